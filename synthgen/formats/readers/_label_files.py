"""Folders of text files with one object a line, one file for each image (YOLO, DOTA)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from synthgen.errors import SynthgenError

#: A larger label file is an error of its image. A polygon of 1,000 points takes 20 kB.
MAX_FILE_BYTES = 2**23

#: With more rows, a label file is an error of its image.
MAX_ROWS = 100_000

_MAX_DEPTH = 32

log = logging.getLogger(__name__)


class LabelFileError(Exception):
    """Why a label file cannot be read: a sentence for `ImageBatch.error`, without paths of this machine."""


def read_label_lines(path: Path) -> tuple[list[tuple[int, bytes]], int] | None:
    """(number, line) for the lines of a label file that are not blank, and its size in bytes; None if it is not there.

    A byte order mark and carriage returns are taken out.

    Raises:
        LabelFileError: it is not a file, is too large, or is not text.
    """
    try:
        if not path.is_file():  # opening a pipe would block
            if path.exists() or path.is_symlink():
                raise LabelFileError("its label file is not a file, or a link to none")
            return None
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except ValueError:
        raise LabelFileError("its label file cannot be reached") from None
    except OSError as why:
        raise LabelFileError(f"its label file cannot be read ({why.strerror})") from None
    if len(data) > MAX_FILE_BYTES:
        raise LabelFileError(f"its label file is larger than {MAX_FILE_BYTES:,} bytes")
    if b"\0" in data:
        raise LabelFileError("its label file is not text in UTF-8")
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    filled = ((number, line) for number, line in enumerate(lines, 1) if line and not line.isspace())
    found = list(islice(filled, MAX_ROWS + 1))
    if len(found) > MAX_ROWS:
        raise LabelFileError(f"its label file has more than {MAX_ROWS:,} rows")
    return found, len(data)


def walk_files(folder: Path, depth: int = 0) -> Iterator[tuple[Path, list[str]]]:
    """(folder, sorted names of its files), the folder first, then its subfolders; links to folders are not followed.

    Names with a leading dot are skipped.

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
