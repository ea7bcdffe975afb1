"""The folder of the results of `predict`: what a run may replace there, and the moment when it does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.storage.disk import sync_folder, translate_os_errors

#: The file that says what a run did. It is put in place last.
REPORT_FILE = "predict_report.json"

#: The folder of pictures.
PICTURES = "pictures"

#: The list of names beside label maps.
CLASSES = "class_names.json"

REMEDY = "choose another --out"

#: How the names of the files in each folder end, and of those that systems leave in any folder.
_ENDS = {"panoptic_predictions": (".png",), "semantic_predictions": (".png", CLASSES), PICTURES: (".found.png",)}
_SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")


def check_folders(out: Path, names: Iterable[str], reads: Sequence[Path]) -> None:
    """Check that a run may replace folders: what lies there is of an earlier run, and this run does not read it.

    Args:
        out: the folder of the results; it may not exist.
        names: of folders in it, keys of `_ENDS`.
        reads: files and folders that the run reads.

    Raises:
        SynthgenError: a file lies there, or something that no run has written, or that this run reads.
    """
    for folder in (out / name for name in names):
        if not os.path.lexists(folder):
            continue
        if folder.is_symlink() or not folder.is_dir():
            raise SynthgenError(f"{folder} is not a folder; move it away, or {REMEDY}")
        for place in reads:
            if place.resolve().is_relative_to(folder.resolve()):
                raise SynthgenError(f"{folder} holds {place}, which this run reads, and would be replaced; {REMEDY}")
        for here, _, files in os.walk(folder):
            for file in files:
                if not file.endswith(_ENDS[folder.name]) and file not in _SYSTEM_FILES:
                    raise SynthgenError(
                        f"{Path(here, file)} is not by predict, which would replace {folder}; move it away, or {REMEDY}"
                    )


def publish(folder: Path, out: Path, scratch: Path) -> None:
    """Move the finished files and folders of a run into the folder of the results, and replace those of their names.

    They are on the disk before that. Folders are replaced whole. While that is done, no JSON file lies beside them, so
    a run that is killed leaves no mix of two runs. A call that fails leaves what was there.

    Args:
        folder: holds the files and folders.
        out: the folder of the results, on the same disk.
        scratch: a folder on the same disk, for what is replaced; the caller deletes it.

    Raises:
        SynthgenError: they cannot be written.
    """
    aside = scratch / "replaced"
    with translate_os_errors(out, remedy=REMEDY):
        _sync_tree(folder)
        aside.mkdir()
        folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
        files = [path.name for path in folder.iterdir() if not path.is_dir()]
        files.sort(key=lambda name: (name == REPORT_FILE, name))
        names = [*folders, *files]
        try:
            for name in reversed(names):
                # Without folders, the JSON file of the task can be replaced in one step.
                _set_aside(out / name, aside / name, in_place=not folders and name != REPORT_FILE)
            sync_folder(out)
            for group in (folders, files):
                for name in group:
                    os.replace(folder / name, out / name)
                sync_folder(out)
        except BaseException:  # a signal, too
            for name in names:
                if not os.path.lexists(folder / name):
                    os.replace(out / name, folder / name)
                if os.path.lexists(aside / name):
                    os.replace(aside / name, out / name)
            raise


def _set_aside(path: Path, aside: Path, *, in_place: bool) -> None:
    """Give a file or folder, if there is one, another name; `in_place`: where the disk can, beside its own."""
    if not os.path.lexists(path):
        return
    if in_place:
        try:
            os.link(path, aside, follow_symlinks=False)
        except (OSError, NotImplementedError):  # no hard links here
            pass
        else:
            return
    path.rename(aside)


def _sync_tree(folder: Path) -> None:
    """Flush all files and folders below a folder, and the folder."""
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            with Path(here, name).open("rb") as file:
                os.fsync(file)
        sync_folder(Path(here))
