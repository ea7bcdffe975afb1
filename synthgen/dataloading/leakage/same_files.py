"""Whether images of two layers are one file, which their keys may not tell: two annotation files of one folder.

Paths are compared, not content, and no file is asked for: a copy, and a link from one file to another, are not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from synthgen.images.paths import tails

#: In so many folders below that of the images links are followed; any others are taken for what they are called.
MOST_FOLDERS = 10_000

#: Names that stand for others, beside the folders that they are in; see `records.file_names`.
_OF_COCO = re.compile(r"(COCO_(train|val)2014_)?\d{12}\.jpg")


class Files:
    """The paths of the images of one folder, with links between folders followed.

    Attributes:
        root: the folder itself.
    """

    def __init__(self, folder: Path) -> None:
        self.root = os.path.realpath(folder)
        self._folder = folder
        self._folders: dict[str, tuple[str, ...]] = {}  # by what a name says before its last slash
        self._real: dict[str, str] = {}

    def overlap(self, other: Files) -> bool:
        """Whether one of the two folders is the other, or lies in it."""
        return os.path.commonpath([self.root, other.root]) in (self.root, other.root)

    def tried(self, file_name: str) -> tuple[str, ...]:
        """The paths at which `records.images.find` looks for an image, in its order; () = it is nowhere."""
        before, slash, name = file_name.replace("\\", "/").rpartition("/")
        if name in ("", ".", "..") or "\0" in name or ":" in name or _OF_COCO.fullmatch(name):
            return self._tried(file_name)
        above = before + slash
        folders = self._folders.get(above)
        if folders is None:
            folders = tuple(path.removesuffix("/x") for path in self._tried(f"{above}x"))
            if len(self._folders) < MOST_FOLDERS:
                self._folders[above] = folders
        return tuple(f"{folder}/{name}" for folder in folders)

    def place(self, file_name: str) -> str | None:
        """The path of an image; None = it is nowhere. The disk is asked only where it may have several."""
        return _one(self.tried(file_name))

    def _tried(self, file_name: str) -> tuple[str, ...]:
        parts = PurePosixPath(file_name.replace("\\", "/")).parts
        if (
            not parts
            or parts[0].startswith("/")
            or ".." in parts
            or "\0" in file_name
            or re.match("[A-Za-z]:", parts[0])
        ):
            return ()
        found = (os.path.join(self.root, *tail) for tail in tails(self._folder, parts))  # noqa: PTH118
        return tuple(dict.fromkeys(self._followed(path) for path in found))

    def _followed(self, path: str) -> str:
        folder, name = os.path.split(path)
        real = self._real.get(folder)
        if real is None:
            real = folder if len(self._real) >= MOST_FOLDERS else os.path.realpath(folder)
            if len(self._real) < MOST_FOLDERS:
                self._real[folder] = real
        return f"{real.rstrip('/')}/{name}"


def shared(files: Files, rows: Iterable[tuple[str, str]], other: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Of images that are files of another layer under another key: (key here, key there).

    Args:
        rows: (image key, file name).
        other: that layer's keys by the places of its files.
    """
    for key, name in rows:
        paths = files.tried(name)
        if any(path in other for path in paths):
            there = other.get(_one(paths) or "")
            if there is not None and there != key:
                yield key, there


def _one(paths: tuple[str, ...]) -> str | None:
    return next(filter(os.path.isfile, paths), paths[0]) if len(paths) > 1 else next(iter(paths), None)
