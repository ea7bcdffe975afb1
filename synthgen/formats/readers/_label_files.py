"""Folders of text files with one object a line, one file for each image (YOLO, DOTA)."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

#: A larger label file is an error of its image. A polygon of 1,000 points takes 20 kB.
MAX_FILE_BYTES = 2**23

#: With more rows, a label file is an error of its image.
MAX_ROWS = 100_000


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
