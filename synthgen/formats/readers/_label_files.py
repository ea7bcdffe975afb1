"""Opens annotation files of strangers safely: bounded size, no pipes, sentences instead of exceptions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from synthgen.errors import describe_exhaustion


class LabelFileError(ValueError):
    """Why an annotation file cannot be used; the text continues a sentence such as "its XML ..."."""


class OtherFormatError(LabelFileError):
    """The file is readable, and of another format."""


def open_label_file(path: Path) -> BinaryIO:
    """Open a file for reading.

    Args:
        path: untrusted; may be a pipe or a link.

    Raises:
        LabelFileError: it is not a file (opening a pipe would block), or cannot be read.
        OSError: the machine lacks memory or open files.
    """
    try:
        if not path.is_file():
            raise LabelFileError("is not a file, or a link to none")
        return path.open("rb")
    except OSError as why:
        raise _as_label_file_error(why) from None


def read_label_file(path: Path, max_bytes: int) -> bytes:
    """The content of a file.

    Args:
        path: untrusted; may be a pipe or a link.
        max_bytes: largest size that is accepted.

    Raises:
        LabelFileError: as `open_label_file`, or it has more than `max_bytes` bytes.
        OSError: the machine lacks memory or open files.
    """
    with open_label_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size  # a larger `read` would allocate for it
            content = file.read(min(size, max_bytes) + 1)
        except OSError as why:
            raise _as_label_file_error(why) from None
    if len(content) > max_bytes:
        raise LabelFileError(f"has more than {max_bytes >> 20} MiB")
    return content


def read_start(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file; none if it cannot be read. For `recognize`."""
    try:
        with open_label_file(path) as file:
            return file.read(count)
    except (LabelFileError, OSError):
        return b""


def _as_label_file_error(why: OSError) -> LabelFileError:
    if describe_exhaustion(why):
        raise why
    return LabelFileError(f"cannot be read ({why.strerror})")
