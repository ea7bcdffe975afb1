"""Progress: a line per minute without a terminal, a bar in a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from synthgen import progress
from synthgen.progress import TerminalProgress


def test_one_line_a_minute_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with TerminalProgress("masks", 1000, "images") as bar:
        for _ in range(300):
            now[0] += 1.0
            bar.advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5  # five minutes
    assert lines[0] == "masks: 120 of 1,000 images (12%), 2.0/s, 7 min left"


def test_a_bar_on_a_terminal() -> None:
    code = (
        "from synthgen.progress import TerminalProgress\n"
        "with TerminalProgress('masks', 4, 'images') as b:\n"
        "  b.advance(3, 'loss 1.234 ' * 20); "
        "b.print_line('[odd] words')"
    )
    head, tail = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=tail, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    )
    os.close(tail)
    seen = b""
    while True:
        try:
            piece = os.read(head, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        seen += piece
    os.close(head)
    assert process.wait() == 0
    assert b"3/4 images" in seen
    assert b"[odd] words" in seen  # said as it is, not read as markup
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen)
    assert re.search(rb"left [-0]:[-0-9]{2}:[-0-9]{2} loss 1\.2", plain), "a long note leaves no room for the time"


def test_a_total_of_nothing_is_no_accident(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress("masks", 0, "images") as bar:
        bar.print_line("nothing to do")
    assert capsys.readouterr().err == "nothing to do\n"
