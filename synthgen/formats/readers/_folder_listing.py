"""Lists folders of strangers: sorted, bounded where little is wanted, without following links to other folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError

_MAX_ENTRIES = 2_000  # entries of a folder that recognition looks at
_MAX_DEPTH = 32

log = logging.getLogger(__name__)


def walk_files(folder: Path, depth: int = 0) -> Iterator[tuple[Path, list[str]]]:
    """(folder, sorted names of its files), the folder first, then its subfolders; links to folders are not followed.

    Names with a leading dot are skipped.

    Args:
        folder: an existing folder.
        depth: levels between this folder and the one where the walk began.

    Raises:
        SynthgenError: a folder cannot be read.
    """
    names, below = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_dir():
                    log.warning("%s is a link and is not followed; put the folder itself there", entry.path)
                else:
                    names.append(entry.name)
    except OSError as why:
        raise SynthgenError(f"cannot read {folder} ({why.strerror}); check the path and its permissions") from None
    names.sort()
    yield folder, names
    del names
    if below and depth >= _MAX_DEPTH:
        log.warning("%s has folders below it that are not read: they are more than %d levels deep", folder, _MAX_DEPTH)
    else:
        for name in sorted(below):
            yield from walk_files(folder / name, depth + 1)


def first_names(folder: Path) -> list[str]:
    """Some names of a folder, sorted; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry, _ in zip(entries, range(_MAX_ENTRIES), strict=False))
    except OSError:
        return []


def file_suffix(name: str) -> str:
    """The suffix of a file name in small letters, with its dot; empty for `.name` and `name`."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def is_folder(path: Path) -> bool:
    """Whether a path, which may be any text, is a folder that can be reached."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a path, which may be any text, is an ordinary file that can be reached."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def utf8_name(name: str) -> str:
    """A name in valid UTF-8; bytes of other encodings become question marks."""
    return name.encode("utf-8", "replace").decode()
