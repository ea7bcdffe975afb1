"""The report of a validation as text: no control characters, words for every code."""

from __future__ import annotations

from pathlib import Path

from fakes.validated_datasets import clean, look

from synthgen.ingest.validation.diagnosis import (
    FINDING_CODES,
    INFO_CODES,
    format_validation_report,
)
from synthgen.records.sample import ANNOTATION_FLAGS


def test_names_cannot_move_the_terminals_cursor(tmp_path: Path) -> None:
    content = clean()
    content["images"][0]["file_name"] = "a\x1b[2J\r\nready.png"
    content["annotations"][0]["bbox"] = [60, 0, 10, 10]
    text = format_validation_report(look(tmp_path, content))
    assert all(line.isprintable() for line in text)
    assert any("\\x1b[2J" in line for line in text)


def test_every_code_has_its_words() -> None:
    assert set(ANNOTATION_FLAGS) <= set(FINDING_CODES) and set(FINDING_CODES) >= INFO_CODES
