"""Reads large CSV files line by line in bounded memory: a row is one line, and a line has a maximum length."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from synthgen.errors import SynthgenError

#: A longer line cannot be read. The longest of Open Images, with a photographer's texts, have a few thousand bytes.
MAX_LINE_BYTES = 2**16

_CHUNK_BYTES = 2**20


def iter_lines(path: Path, on_bytes: Callable[[int], None] | None = None) -> Iterator[tuple[int, bytes]]:
    """(byte position, line without "\\n") of each line, blank ones left out; b"" for one that is too long.

    A "\\r" before the "\\n" and a byte order mark are kept.

    Args:
        path: CSV file; untrusted.
        on_bytes: called with the number of further bytes read, for progress; None = not called.

    Raises:
        SynthgenError: the file cannot be read.
    """
    try:
        if not path.is_file():
            raise SynthgenError(f"{path} is not a file; check the path")
        with path.open("rb") as file:
            at, rest, is_skipping = 0, b"", False
            while True:
                chunk = file.read(_CHUNK_BYTES)
                if on_bytes is not None and chunk:
                    on_bytes(len(chunk))
                parts = (rest + chunk).split(b"\n")
                rest = parts.pop() if chunk else b""
                for line in parts:
                    if is_skipping:  # the end of a line that was given before
                        is_skipping = False
                    elif line and not line.isspace():
                        yield at, (line if len(line) <= MAX_LINE_BYTES else b"")
                    at += len(line) + 1
                if not chunk:
                    return
                if len(rest) > MAX_LINE_BYTES:
                    if not is_skipping:
                        yield at, b""
                    at, rest, is_skipping = at + len(rest), b"", True
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def split_line(line: bytes) -> list[str] | None:
    """The fields of a line; None if its quotes do not fit, or it was too long."""
    if not line:
        return None
    text = line.decode("utf-8", "replace").rstrip("\r")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True), None)
    except csv.Error:
        return None


class CsvTable:
    """The rows of a CSV file that begins with the names of its columns.

    Attributes:
        columns: positions of the columns that are there, by the names asked for.
    """

    def __init__(
        self,
        path: Path,
        required: Sequence[str],
        optional: Sequence[str],
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        """
        Args:
            path: CSV file; untrusted.
            required: names of columns that must be there; any case fits.
            optional: names of columns that may be there; any case fits.
            on_bytes: called with the number of further bytes read; None = not called.

        Raises:
            SynthgenError: the file cannot be read, or lacks a required column.
        """
        self._path, self._on_bytes = path, on_bytes
        first = next((line for _, line in iter_lines(path)), b"")
        header = [name.strip().lower() for name in split_line(first.removeprefix(b"\xef\xbb\xbf")) or ()]
        missing = [name for name in required if name.lower() not in header]
        if missing:
            shown = ",".join(header)[:200]
            raise SynthgenError(
                f"{path} has no column {', '.join(missing)} (its first line is: {shown}); download the file again"
            )
        self.columns: Mapping[str, int] = {
            name: header.index(name.lower()) for name in (*required, *optional) if name.lower() in header
        }

    def rows(self) -> Iterator[tuple[int, int, list[str] | None]]:
        """(number of the row from 1, byte position, fields); None for fields if they do not reach the last column.

        Raises:
            SynthgenError: the file cannot be read.
        """
        least = max(self.columns.values(), default=0) + 1
        for number, (at, line) in enumerate(iter_lines(self._path, self._on_bytes)):
            if number:
                fields = split_line(line)
                yield number, at, fields if fields is not None and len(fields) >= least else None


def read_line_at(path: Path, at: int) -> list[str]:
    """The fields of the line at a byte position that `CsvTable.rows` gave; empty if the file was changed meanwhile."""
    with path.open("rb") as file:
        file.seek(at)
        return split_line(file.readline(MAX_LINE_BYTES + 2).rstrip(b"\r\n")) or []
