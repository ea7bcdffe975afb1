"""A few rounds of `benchmarks/kill_rounds.py`, with a fixed seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def assert_kills_change_nothing(command: str, folder: Path, *, rounds: int = 3) -> None:
    """Each round ends with the result of an undisturbed run, and some process was killed."""
    program = [sys.executable, str(ROOT / "benchmarks/kill_rounds.py"), "--command", command, "--folder", str(folder)]
    done = subprocess.run(
        [*program, "--rounds", str(rounds), "--seed", "1"],
        capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    row = re.search(rf"^\| {command} \| (\d+) \| (\d+) \| (\d+) \|", done.stdout, re.M)
    assert row, said
    count, kills, differ = map(int, row.groups())
    assert (count, differ) == (rounds, 0), said
    assert kills > 0, said
