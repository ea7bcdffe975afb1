"""How a run replaces the results of an earlier one: whole, on the disk, and never mixed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synthgen.evaluation.result_folder import REPORT_FILE, check_folders, publish

JSON = "semantic_predictions.json"


def write_run(folder: Path, run: str, *images: str, maps: bool = True) -> Path:
    folder.mkdir(parents=True)
    for name in (JSON, REPORT_FILE):
        (folder / name).write_text(run)
    if maps:
        (folder / "semantic_predictions" / "a").mkdir(parents=True)
        for name in ("class_names.json", *(f"a/{image}.png" for image in images)):
            (folder / "semantic_predictions" / name).write_text(run)
    return folder


def held(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A finished run, the folder with an earlier one, and a scratch folder."""
    scratch = tmp_path / "out" / ".scratch"
    out = write_run(tmp_path / "out", "old", "1", "2")
    return write_run(scratch / "files", "new", "1", "3"), out, scratch


def results(out: Path) -> dict[str, str]:
    return {name: text for name, text in held(out).items() if not name.startswith(".scratch")}


NEW = {
    **dict.fromkeys((JSON, REPORT_FILE, "semantic_predictions/class_names.json"), "new"),
    "semantic_predictions/a/1.png": "new",
    "semantic_predictions/a/3.png": "new",
}


def test_folders_are_replaced_whole_and_other_files_stay(places: tuple[Path, Path, Path]) -> None:
    folder, out, scratch = places
    (out / "predictions.json").write_text("another task")
    publish(folder, out, scratch)
    assert results(out) == {**NEW, "predictions.json": "another task"}


def test_the_first_run_needs_nothing_there(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    publish(places[0], tmp_path / "empty", places[2])
    assert held(tmp_path / "empty") == NEW


@pytest.mark.parametrize("maps", [True, False])
def test_at_no_moment_do_files_of_two_runs_lie_together(
    places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, maps: bool
) -> None:
    """What a kill would leave, before and after each step."""
    folder, out, scratch = places
    if not maps:
        folder = write_run(scratch / "files2", "new", maps=False)
        out = write_run(tmp_path / "out2", "old", maps=False)
    states = []
    for function in ("replace", "rename", "link"):
        real = getattr(os, function)

        def noted(*args: object, real: object = real, **options: object) -> None:
            states.append(results(out))
            real(*args, **options)  # type: ignore[operator]
            states.append(results(out))

        monkeypatch.setattr(os, function, noted)
    publish(folder, out, scratch)
    assert len(states) >= 6 and len(set(states[-1].values())) == 1
    for state in states:
        own = {name: text for name, text in state.items() if JSON in state or name.startswith("semantic")}
        assert len(set(own.values())) <= 1, state
        assert maps or JSON in state, "a file alone is replaced in one step"


@pytest.mark.parametrize("step", range(1, 8))
def test_a_call_that_fails_leaves_what_was_there(
    places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    folder, out, scratch = places
    before, calls = results(out), []
    for function in ("replace", "rename"):
        real = getattr(os, function)

        def failing(*args: object, real: object = real, **options: object) -> None:
            calls.append(1)
            if len(calls) == step:
                raise KeyboardInterrupt
            real(*args, **options)  # type: ignore[operator]

        monkeypatch.setattr(os, function, failing)
    if step > 6:
        publish(folder, out, scratch)
        assert len(calls) == 6 and results(out) == NEW
        return
    with pytest.raises(KeyboardInterrupt):
        publish(folder, out, scratch)
    assert results(out) == before and held(folder) == NEW


def test_all_files_and_folders_are_on_the_disk_before_they_are_moved(
    places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, scratch = places
    expected = {path.stat().st_ino for path in (folder, *folder.rglob("*"))}
    flushed: set[int] = set()
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(file: object) -> None:
        number = file if isinstance(file, int) else file.fileno()  # type: ignore[attr-defined]
        flushed.add(os.fstat(number).st_ino)
        real_fsync(number)

    def replace(source: Path, final: Path) -> None:
        assert expected <= flushed
        real_replace(source, final)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    publish(folder, out, scratch)
    assert out.stat().st_ino in flushed


def test_files_of_the_system_do_not_count(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out", "old", "1")
    (out / "semantic_predictions" / ".DS_Store").write_text("x")
    check_folders(out, ["semantic_predictions", "pictures"], [tmp_path])
