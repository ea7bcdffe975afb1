"""Paths that the files of a YOLO dataset name, found below the dataset's folder.

They often belong to another machine or another folder: Roboflow writes `../train/images`, CVAT `data/images/train/a`.
The longest tail of such a path that exists below the dataset's folder is meant. Nothing outside that folder is read.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.formats.readers._folder_listing import is_file, is_folder

MAX_LIST_BYTES = 2**29  # of a list of images: 5 million paths of 100 characters
MAX_PATH_CHARS = 4_096

#: Names of folders of images beside which a folder `labels` lies.
IMAGE_FOLDERS = ("images", "JPEGImages")

_MAX_PARTS = 32


def existing_tail(root: Path, text: str, *, folder: bool = False) -> Path | None:
    """The longest tail of a path that exists below `root`; `root` itself for "." and ""; None if there is none.

    Args:
        root: folder below which it is looked for.
        text: path as a file of the dataset spells it; untrusted.
        folder: only folders count.
    """
    parts = path_parts(text)
    if parts is None:
        return None
    if not parts:
        return root
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if is_folder(path) or (not folder and is_file(path)):
            return path
    return None


def path_parts(text: str) -> tuple[str, ...] | None:
    """The parts of a path of any system without drive and leading dots; None if it cannot be a path."""
    if "\0" in text or len(text) > MAX_PATH_CHARS:
        return None
    text = text.replace("\\", "/")
    text = text[2:] if text[1:2] == ":" else text
    parts = PurePosixPath(posixpath.normpath(text)).parts if text else ()
    cleaned = tuple(part for part in parts if part not in (".", "..", "/", "//"))
    return cleaned[-_MAX_PARTS:]


def swap_last_images(path: Path, root: Path) -> Path | None:
    """The path with `labels` for its last part `images`; None if there is no such folder."""
    swapped = _swap_parts(path.relative_to(root).parts)
    labels = root.joinpath(*swapped)
    return labels if swapped and is_folder(labels) else None


def _swap_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts with `labels` for the last `images`, as in Ultralytics, or `JPEGImages`, as in darknet; else none."""
    places = [i for i, part in enumerate(parts) if part in IMAGE_FOLDERS]
    return (*parts[: places[-1]], "labels", *parts[places[-1] + 1 :]) if places else ()


class ListedFolders:
    """The folders of images and labels that the folders of a list stand for; remembers the first thousands."""

    def __init__(self, image_root: Path, base: Path) -> None:
        self._image_root, self._base = image_root, base
        self._known: dict[tuple[str, ...], tuple[Path, Path]] = {}

    def find(self, parts: tuple[str, ...]) -> tuple[Path, Path]:
        """(folder of the images, folder of their labels)."""
        found = self._known.get(parts)
        if found is None:
            if len(self._known) > 10_000:
                self._known.clear()
            found = self._known[parts] = self._look(parts)
        return found

    def _look(self, parts: tuple[str, ...]) -> tuple[Path, Path]:
        text = "/".join(parts)
        images = existing_tail(self._image_root, text, folder=True)
        labels, swapped = None, _swap_parts(parts)
        if swapped:
            labels = existing_tail(self._base, "/".join(swapped), folder=True)
        if labels is None:
            labels = existing_tail(self._base, text, folder=True) or self._base
        return images or self._image_root.joinpath(*parts), labels


def listed_label_folder(listing: Path, base: Path) -> Path:
    """The folder that holds all label files of a list."""
    folders = ListedFolders(base, base)
    common: Path | None = None
    last: tuple[str, ...] | None = None
    for _, line in read_path_list(listing):
        parts = path_parts(line)
        if not parts or parts[:-1] == last:
            continue
        last = parts[:-1]
        labels = folders.find(last)[1]
        common = labels if common is None else Path(os.path.commonpath((common, labels)))
    return common if common is not None else base


def read_path_list(listing: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are not blank.

    Args:
        listing: text file with a path in each line; untrusted.

    Raises:
        SynthgenError: it cannot be read or is too large.
    """
    try:
        with listing.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_LIST_BYTES:
                raise SynthgenError(f"{listing} is larger than {MAX_LIST_BYTES // 2**20} MiB; split it into several")
            number = 0
            while line := file.readline(MAX_PATH_CHARS + 2):
                number += 1
                while not line.endswith(b"\n") and (more := file.readline(MAX_PATH_CHARS)):  # too long: no path
                    line = line[:MAX_PATH_CHARS] + b"?\n" if more.endswith(b"\n") else line
                text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").strip()
                if text:
                    yield number, text
    except OSError as why:
        raise SynthgenError(f"cannot read {listing} ({why.strerror}); check the path and its permissions") from None
