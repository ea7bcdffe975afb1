"""Detects images of two layers that are the same file under different keys, such as two annotation files of one folder.

Paths are compared, not content: a copy, and a symbolic link to a file, are not detected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from synthgen.images.image_error import ImageError
from synthgen.images.packed import find_packed_image
from synthgen.images.paths import candidate_paths

#: Symbolic links are resolved in at most this many folders below the image folder; further folders keep their names.
MAX_FOLDERS = 10_000

#: File names that stand for others, beside their folders; see `images.paths`.
_COCO_FILE_NAME = re.compile(r"(COCO_(train|val)2014_)?\d{12}\.jpg")


class ImagePaths:
    """The paths of the images of one folder, with symbolic links to folders resolved.

    Args:
        folder: the image folder of a layer.

    Attributes:
        root: the folder itself.
    """

    def __init__(self, folder: Path) -> None:
        self.root = os.path.realpath(folder)
        self._folder = folder
        self._folders: dict[str, tuple[str, ...]] = {}  # by the folder part of a name
        self._real_folders: dict[str, str] = {}

    def overlaps(self, other: ImagePaths) -> bool:
        """Whether one of the two folders is the other, or contains it."""
        return os.path.commonpath([self.root, other.root]) in (self.root, other.root)

    def resolved_candidates(self, file_name: str) -> tuple[str, ...]:
        """The paths at which `images.decode.find_image` looks for the image `file_name`, in its order; () = none."""
        before, slash, name = file_name.replace("\\", "/").rpartition("/")
        plain = file_name.isascii() and "\0" not in name and ":" not in name
        if name in ("", ".", "..") or not plain or _COCO_FILE_NAME.fullmatch(name):
            return self._resolve_candidates(file_name)
        above = before + slash
        folders = self._folders.get(above)
        if folders is None:
            folders = tuple(path.removesuffix("/x") for path in self._resolve_candidates(f"{above}x"))
            if len(self._folders) < MAX_FOLDERS:
                self._folders[above] = folders
        return tuple(f"{folder}/{name}" for folder in folders)

    def resolve_path(self, file_name: str) -> str | None:
        """The path of the image `file_name`; None = it is missing. Reads the disk only for several candidates."""
        return _first_existing(self.resolved_candidates(file_name))

    def _resolve_candidates(self, file_name: str) -> tuple[str, ...]:
        parts = PurePosixPath(file_name.replace("\\", "/")).parts
        if (
            not parts
            or parts[0].startswith("/")
            or ".." in parts
            or "\0" in file_name
            or re.match("[A-Za-z]:", parts[0])
        ):
            return ()
        found = (os.path.join(self.root, *tail) for tail in candidate_paths(self._folder, parts))  # noqa: PTH118
        return tuple(dict.fromkeys(self._resolve_links(path) for path in found))

    def _resolve_links(self, path: str) -> str:
        folder, name = os.path.split(path)
        real = self._real_folders.get(folder)
        if real is None:
            real = folder if len(self._real_folders) >= MAX_FOLDERS else os.path.realpath(folder)
            if len(self._real_folders) < MAX_FOLDERS:
                self._real_folders[folder] = real
        return f"{real.rstrip('/')}/{name}"


def find_same_files(
    image_paths: ImagePaths, rows: Iterable[tuple[str, str]], other_keys_by_path: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield images that are files of another layer under another key: (key here, key there).

    Args:
        image_paths: of the folder that the rows name files in.
        rows: (image key, file name).
        other_keys_by_path: that layer's keys by the paths of its files.
    """
    for key, name in rows:
        paths = image_paths.resolved_candidates(name)
        if any(path in other_keys_by_path for path in paths):
            there = other_keys_by_path.get(_first_existing(paths) or "")
            if there is not None and there != key:
                yield key, there


def _first_existing(paths: tuple[str, ...]) -> str | None:
    return next(filter(_exists, paths), paths[0]) if len(paths) > 1 else next(iter(paths), None)


def _exists(path: str) -> bool:
    """Whether an image is there, as a file or in an archive."""
    if os.path.isfile(path):  # noqa: PTH113 - pathlib's raises where a name is too long
        return True
    try:
        return find_packed_image(Path("/"), PurePosixPath(path).parts[1:]) is not None
    except ImageError:
        return False
