"""The report of a validation as text: no control characters, words for every code."""

from __future__ import annotations

from pathlib import Path

from fakes.validated_datasets import clean, look

from synthgen.ingest.validation.diagnosis import (
    MAX_LINES,
    BoxSizeStats,
    Finding,
    FindingExample,
    SplitReport,
    ValidationReport,
    format_validation_report,
    report_to_dict,
)
from synthgen.ingest.validation.finding_codes import FINDING_CODES, INFO_CODES
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


def _report(codes: list[str], splits: int = 1) -> ValidationReport:
    examples = tuple(FindingExample(f"image {i}", "something") for i in range(3))
    found = tuple(Finding(code, "boxes", 5, 10, stops=i == 0, examples=examples) for i, code in enumerate(codes))
    sizes = BoxSizeStats(1, 2, 3, 1.0, 2)
    split = SplitReport("train", 10, 10, 5, 2, 10, 0, sizes, found)
    return ValidationReport("boxes", (split,) * splits, "not ready", "synthgen doctor")


def test_a_report_stays_short_however_much_is_wrong() -> None:
    codes = [code for code in FINDING_CODES if code not in INFO_CODES]
    for count in range(len(codes)):
        lines = format_validation_report(_report([*codes[:count], *sorted(INFO_CODES)[:count]]))
        assert len(lines) <= MAX_LINES
        text = "\n".join(lines)
        assert all(code in text for code in codes[:count]), "each code is named, if only in a list"
    few = format_validation_report(_report(codes[:3]))
    assert sum("something" in line for line in few) == 9, "few findings have all their examples"
    every = report_to_dict(_report(codes))["splits"][0]["findings"]
    assert all(len(finding["examples"]) == 3 for finding in every)


def test_many_splits_are_short_too() -> None:
    codes = [code for code in FINDING_CODES if code not in INFO_CODES][:6]
    assert len(format_validation_report(_report(codes, splits=3))) <= MAX_LINES


def test_characters_beyond_one_byte_are_escaped_by_their_code_points(tmp_path: Path) -> None:
    content = clean()
    content["images"][0]["file_name"] = "a\u200b\u202e.png"
    content["annotations"][0]["bbox"] = [60, 0, 10, 10]
    text = "\n".join(format_validation_report(look(tmp_path, content)))
    assert "a\\u200b\\u202e.png" in text
