"""The soak test: a few rounds of each fault hold, and its comparisons find what they should."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FAULTS = 9


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the soak test that compares stores."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("_soak_world")
    for name in set(sys.modules) - before:
        if name.startswith("_soak"):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_rounds_of_each_fault_leave_what_an_undisturbed_run_leaves(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "soak.py", "--rounds", str(2 * FAULTS), "--folder", tmp_path / "soak"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *_, heading, _, last = [], *ran.stdout.split("\n| ", 1)
    rows = [line for line in ran.stdout.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == FAULTS
    assert all(int(row.split("|")[2]) >= 2 for row in rows), "each fault is tried in each of its rounds"
    assert f"{2 * FAULTS} rounds" in ran.stdout.splitlines()[-1]
    assert not (tmp_path / "soak").exists()
