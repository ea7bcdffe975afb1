"""The log of a training: entries of a later step go, and a line that is no entry is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.training.logger import MetricsLogger


def test_entries_from_the_first_step_on_and_a_torn_line_are_removed(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": step, "of": "train", "note": "café"}, ensure_ascii=False) for step in (1, 2, 3)]
    log.write_text("\n".join([*lines, '{"step": 2']))
    with MetricsLogger(tmp_path, 3) as logger:
        logger.log_metrics(3, {"loss": 0.5})
    assert log.read_text().splitlines() == [*lines[:2], '{"step": 3, "of": "train", "loss": 0.5}']


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b'{"step": "x"}', b'{"step": 1, "x": "\xed\xa0\x80"}', b"[" * 100_000, b'{"step": 1e999}'],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    """Among them half a surrogate pair in UTF-8, which Python's JSON reads from bytes and no text can hold."""
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 9}\n')
    with pytest.raises(SynthgenError, match=r"^line 2 of .*log\.jsonl is damaged; take it out"):
        MetricsLogger(tmp_path, 3)
