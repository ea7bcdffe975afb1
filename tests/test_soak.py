"""The soak test: a few rounds of each fault end as they should, and it finds what is not as it should be."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FAULTS = 9
LAYER = "world/train/masks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """`load("_soak_world")`: a module of the soak test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.startswith("_soak_")]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_rounds_of_each_fault_end_as_they_should(tmp_path: Path) -> None:
    folder = tmp_path / "soak"
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--rounds", str(2 * FAULTS), "--folder", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [line for line in ran.stdout.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == FAULTS
    assert all(row.split("|")[2].endswith(" in 2 rounds ") for row in rows), ran.stdout
    assert f"{2 * FAULTS} rounds" in ran.stdout
    assert not folder.exists()


def make_store(folder: Path) -> Path:
    for name in (f"{LAYER}/00000-of-00002.parquet", f"{LAYER}/00001-of-00002.parquet", f"{LAYER}/_log/run.log"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("00000-of-00002.parquet", "other", "is not what an undisturbed run writes"),
        ("00000-of-00002.parquet", None, "is missing"),
        ("00002-of-00002.parquet", "more", "is not what an undisturbed run writes"),
        (".00000-of-00002.parquet.0123456789abcdef.tmp", "half", "is left over"),
        (".scratch.0123456789abcdef.tmp/part", "half", "is left over"),
        ("_log/.status.json.0123456789abcdef.tmp", "half", "is left over"),
        ("core", "dumped", "is left over"),
    ],
)
def test_what_differs_from_an_undisturbed_run_is_found(
    load: Callable[[str], Any], tmp_path: Path, name: str, content: str | None, finding: str
) -> None:
    worlds = load("_soak_world")
    reference, store = make_store(tmp_path / "reference"), make_store(tmp_path / "store")
    (store / LAYER / "_log" / "metrics.jsonl").touch()
    (store / LAYER / "_log" / "run.log").write_text("a log tells of times")
    assert worlds.store_differences(store, reference) == []
    path = store / LAYER / name
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    found = worlds.store_differences(store, reference)
    assert found and all(sentence.endswith(finding) for sentence in found), found


@pytest.mark.parametrize(
    ("code", "text", "finding"),
    [
        (None, "", "masks hung"),
        (1, "", "ended with 1 instead of"),
        (-11, "", "ended with -11"),
        (0, "Traceback (most recent call last):", "printed a traceback"),
    ],
)
def test_a_wrong_end_of_a_command_is_found(
    load: Callable[[str], Any], tmp_path: Path, code: int | None, text: str, finding: str
) -> None:
    worlds, runs, rounds = load("_soak_world"), load("_soak_runs"), load("_soak_round")
    one = rounds.Round(worlds.World(tmp_path / "world"), tmp_path / "round", random.Random(0))
    assert one.expect("masks", runs.Ended(0, "done"), [0, 143]).text == "done"
    with pytest.raises(rounds.FindingError, match=finding):
        one.expect("masks", runs.Ended(code, text), [0, 143])
