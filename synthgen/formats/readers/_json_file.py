"""Opens JSON files, compressed with gzip or not, and says what a file of another kind is."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from synthgen.errors import SynthgenError

_GZIP = b"\x1f\x8b"

#: First bytes of files that are no JSON, what they are, and what to do.
_OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", "unpack it and name the JSON file in it"),
    (b"PK\x05\x06", "an empty zip archive", "download it again"),
    (b"BZh", "a bzip2 file", "unpack it (bunzip2) and name the JSON file"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it (unxz) and name the JSON file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it (unzstd) and name the JSON file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the JSON file in it"),
    (b"Rar!", "a rar archive", "unpack it and name the JSON file in it"),
    (b"PAR1", "a Parquet file", "export the annotations as COCO JSON"),
    (b"\x80\x04", "a Python pickle", "export the annotations as COCO JSON"),
    (b"\xff\xfe", "text in UTF-16", "save it in UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it in UTF-8"),
    (b"version https://git-lfs", "a pointer to a Git LFS file", "fetch the file itself with git lfs pull"),
    (b"\x89PNG", "a PNG image", "name the annotation file"),
    (b"\xff\xd8\xff", "a JPEG image", "name the annotation file"),
    (b"<", "XML or HTML", "name the JSON file; a web page instead of a file means that the download failed"),
)


@contextmanager
def open_json(
    path: Path, on_bytes: Callable[[int], None] | None = None
) -> Iterator[tuple[BinaryIO, Callable[[int], None] | None]]:
    """Open a JSON file for reading; a gzip file is decompressed piece by piece, in bounded memory.

    Args:
        path: untrusted file.
        on_bytes: called with the number of further bytes read, for progress; None = not called.

    Yields:
        The file, and what its reader calls with the number of bytes that it read; for a gzip file that is None, as
        `on_bytes` is called with compressed bytes then.

    Raises:
        SynthgenError: it is a file of another kind, such as a zip archive, or a damaged gzip file.
        OSError: it cannot be opened or read.
    """
    with path.open("rb") as raw:
        start = raw.read(24)
        raw.seek(0)
        if not start.startswith(_GZIP):
            _refuse_other_file(path, start)
            yield raw, on_bytes
            return
        try:
            with gzip.GzipFile(fileobj=cast(BinaryIO, _CountedFile(raw, on_bytes))) as unpacked:
                start = unpacked.peek(512)
                if start[257:262] == b"ustar":
                    raise SynthgenError(f"{path} is a tar archive; unpack it and name the JSON file in it")
                _refuse_other_file(path, start[:24])
                yield cast(BinaryIO, unpacked), None
        except (EOFError, zlib.error, gzip.BadGzipFile) as why:
            raise SynthgenError(f"{path} is damaged gzip data ({why}); download it again, or unpack it first") from None


def _refuse_other_file(path: Path, start: bytes) -> None:
    for first_bytes, what, remedy in _OTHER_FILES:
        if start.lstrip(b" \t\r\n").startswith(first_bytes) or start.startswith(first_bytes):
            raise SynthgenError(f"{path} is {what}, not JSON; {remedy}")


class _CountedFile(io.RawIOBase):
    """A file that reports what is read of it."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[int], None] | None) -> None:
        self._file, self._on_bytes = file, on_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        if self._on_bytes and found:
            self._on_bytes(len(found))
        return found
