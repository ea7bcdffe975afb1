"""The lines of text files with one object a line, one file for each image (YOLO, DOTA)."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from synthgen.formats.readers._label_files import LabelFileError, open_label_file, read_label_file

#: A larger label file is an error of its image. A polygon of 1,000 points takes 20 kB.
MAX_FILE_BYTES = 2**23

#: With more rows, a label file is an error of its image.
MAX_ROWS = 100_000

_START_BYTES = 2**14


def read_label_lines(path: Path) -> tuple[list[tuple[int, bytes]], int] | None:
    """(number, line) for the lines of a label file that are not blank, and its size in bytes; None if it is not there.

    A byte order mark and carriage returns are taken out.

    Args:
        path: untrusted; may be missing.

    Raises:
        LabelFileError: it is not a file, is too large, or is not text; a sentence for `ImageBatch.error`.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return None
        data = read_label_file(path, MAX_FILE_BYTES)
    except LabelFileError as why:
        raise LabelFileError(f"its label file {why}") from None
    except ValueError:  # a zero byte in its name
        raise LabelFileError("its label file cannot be reached") from None
    if b"\0" in data:
        raise LabelFileError("its label file is not text in UTF-8")
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    filled = ((number, line) for number, line in enumerate(lines, 1) if line and not line.isspace())
    found = list(islice(filled, MAX_ROWS + 1))
    if len(found) > MAX_ROWS:
        raise LabelFileError(f"its label file has more than {MAX_ROWS:,} rows")
    return found, len(data)


def first_lines(path: Path) -> list[bytes] | None:
    """Up to 20 lines of the start of a file that are not blank, a cut one without its last word; for `recognize`.

    None if it is not a file that can be read.
    """
    try:
        with open_label_file(path) as file:
            start = file.read(_START_BYTES)
    except (LabelFileError, OSError):
        return None
    lines = start.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n")
    if len(start) == _START_BYTES:
        lines = lines[:-1] or [b" ".join(lines[-1].split()[:-1])]
    return [line for line in lines if line.strip()][:20]
