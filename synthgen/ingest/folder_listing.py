"""All image files below a folder, by one listing, in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.ingest.image_table import StringColumn

#: A larger folder is refused; the listing takes some 100 bytes a file.
MAX_LISTED_FILES = 10_000_000

#: Names that end in another way are no images: annotation files, videos, caches.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .tif .tiff .webp .jp2 .avif .ppm .pgm .pbm .heic .heif".split()
)


def list_image_files(folder: Path) -> StringColumn:
    """The paths below `folder` with forward slashes, of files with the suffix of an image or without any, sorted.

    Symbolic links are followed, a folder in a circle of links once. Names that UTF-8 cannot encode are left out, as no
    annotation file can name them, and so are names that begin with a dot.

    Args:
        folder: an existing folder.

    Raises:
        SynthgenError: there are more than `MAX_LISTED_FILES`, or a folder cannot be read.
    """
    files = StringColumn()
    waiting: list[str] = []
    for path in _walk(folder):
        waiting.append(path)
        if len(waiting) == 10_000:
            files.extend(waiting)
            waiting = []
        if len(files) > MAX_LISTED_FILES:
            raise SynthgenError(f"{folder} holds more than {MAX_LISTED_FILES:,} images; name a smaller folder")
    files.extend(waiting)
    return files


def _walk(folder: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            place = (folder / below).stat()
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(folder / below) as entries:
                found = sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in entries)
        except OSError as why:
            raise SynthgenError(f"{folder / below} cannot be listed ({why.strerror})") from None
        folders = []
        for name, is_folder, is_file in found:
            if name.startswith(".") or not _is_utf8(name):
                continue
            if is_folder:
                folders.append(f"{below}{name}/")
            elif is_file and suffix_of(name).lower() in {*IMAGE_SUFFIXES, ""}:
                yield below + name
        stack += reversed(folders)


def suffix_of(name: str) -> str:
    """The suffix of a file name if it is an image's, or short enough to be one's; "" = none."""
    stem, dot, end = name.rpartition(".")
    return dot + end if stem and (1 <= len(end) <= 5 and end.isalnum() and not end.isdigit()) else ""


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_hashes(texts: list[str]) -> NDArray[np.int64]:
    """64-bit hashes of texts, to find candidates; equal texts are compared afterwards."""
    return np.fromiter((hash_text(text) for text in texts), np.int64, len(texts))


def hash_text(text: str) -> int:
    """One hash of `text`, the same in each process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little", signed=True)
