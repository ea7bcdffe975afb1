"""Images inside tar archives: an index of the members, and their bytes where they lie. Nothing is unpacked.

It reads the formats ustar, GNU (long names) and pax (path and size), as GNU tar describes them:
https://www.gnu.org/software/tar/manual/html_node/Standard.html. Members that are no plain files, and members with names
that `images.decode.find_image` does not accept, are refused.
"""

from __future__ import annotations

import io
import os
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from synthgen.images.image_error import ImageError, utf8_safe
from synthgen.images.stat_cache import StatCache, file_state

#: An archive with more members is not read further. The index takes 24 bytes for each.
MAX_MEMBERS = 1_000_000

#: Maximum members of all indexes that a process keeps: some 200 MB.
_MAX_CACHED_MEMBERS = 8_000_000

_BLOCK = 512
_MAX_NAME_BYTES = 4_096
_MAX_EXTENDED_BYTES = 2**20  # of one pax header; real ones have some 100 bytes
_MAX_EXTENDED_IN_ROW = 8  # extended headers before one member
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(r"[0-9]{1,20}")  # Python refuses to convert thousands of digits
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]{1,200})=")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_PLAIN_KINDS = "0\x007"  # a file; of the old format; a contiguous file
_KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a device",
    "4": "a device",
    "6": "a pipe",
    "S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of an archive.

    Attributes:
        name: with forward slashes, as `find_image` takes it; "" = the archive is damaged here.
        start, size: where its bytes lie in the archive.
        problem: why it is refused, a part of a sentence; "" = it can be read.
    """

    name: str
    start: int
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Where the members of an archive lie. Of members with one name, the last counts, as for tar.

    Attributes:
        keys: int64 [N], sorted hashes of the names.
        starts: int64 [N], byte of the archive at which each member's content starts.
        sizes: int64 [N], bytes of each member.
        problems: of the first refused members, by name.
        num_refused: members that are refused.
        num_duplicates: members that a later one of the same name replaces.
        damage: where the archive is cut off or damaged; "" = nowhere.
    """

    keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    problems: dict[str, str]
    num_refused: int
    num_duplicates: int
    damage: str

    def locate(self, name: str) -> tuple[int, int]:
        """(start, size) of a member.

        Args:
            name: path of the member in the archive.

        Raises:
            ImageError: there is none, or it is refused.
        """
        key = hash(name)
        at = int(np.searchsorted(self.keys, key))
        if at < len(self.keys) and self.keys[at] == key:
            return int(self.starts[at]), int(self.sizes[at])
        if name in self.problems:
            raise ImageError(f"{utf8_safe(name)} {self.problems[name]}")
        rest = f"; the archive {self.damage}" if self.damage else ""
        raise ImageError(f"no member {utf8_safe(name)} in its archive{rest}")


_MAX_PROBLEMS = 1_000  # refused members whose names an index keeps
_indexes: StatCache[TarIndex] = StatCache(_MAX_CACHED_MEMBERS, lambda index: len(index.keys) + 1)


def open_index(path: Path) -> TarIndex:
    """The index of an archive; remembered while the file does not change.

    Args:
        path: a tar archive; untrusted.

    Raises:
        ImageError: it is no tar archive.
        OSError: it cannot be read.
    """
    return _indexes.get(file_state(path), lambda: build_index(scan_tar(path)))


def build_index(members: Iterator[TarMember]) -> TarIndex:
    """The index of members in the order of the archive."""
    keys, starts, sizes = array("q"), array("q"), array("q")
    problems: dict[str, str] = {}
    refused, damage = 0, ""
    for member in members:
        if not member.name:
            damage = member.problem
        elif member.problem:
            refused += 1
            if len(problems) < _MAX_PROBLEMS:
                problems[member.name] = member.problem
        else:
            keys.append(hash(member.name))
            starts.append(member.start)
            sizes.append(member.size)
    all_keys = np.array(keys, np.int64)
    order = np.argsort(all_keys, kind="stable")
    is_last = np.append(np.diff(all_keys[order]) != 0, True)[: len(order)]
    order = order[is_last]
    return TarIndex(
        all_keys[order],
        np.array(starts, np.int64)[order],
        np.array(sizes, np.int64)[order],
        problems,
        refused,
        len(all_keys) - len(order),
        damage,
    )


def scan_tar(path: Path) -> Iterator[TarMember]:
    """The members of an archive that are files, in its order; folders are left out.

    A cut or damaged archive gives what lies before the damage, then a member without a name.

    Args:
        path: a tar archive; untrusted.

    Raises:
        ImageError: it is no tar archive.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        file_size = os.fstat(file.fileno()).st_size
        start = file.read(_BLOCK)
        if start and not _is_header(start) and start != bytes(_BLOCK):
            raise ImageError(_not_a_tar(start))
        yield from _scan(file.fileno(), file_size) if file_size else [TarMember("", 0, 0, "is empty")]


def _scan(fd: int, file_size: int) -> Iterator[TarMember]:
    position = count = 0
    long_name: bytes | None = None
    pax: dict[str, str] = {}
    problem, in_row = "", 0
    while position < file_size:
        header = os.pread(fd, _BLOCK, position)
        if header == bytes(_BLOCK):
            return
        if not _is_header(header):
            yield TarMember("", position, 0, f"is {_cut_or_damaged(header)} at byte {position:,}")
            return
        kind = chr(header[156])
        size = _parse_number(header[124:136])
        start = position + _BLOCK
        if kind in "xgLK":
            in_row += 1
            if size is None or start + size > file_size or in_row > _MAX_EXTENDED_IN_ROW:
                yield TarMember("", position, 0, f"is cut off or damaged at byte {position:,}")
                return
            if kind in "xL" and size > (_MAX_EXTENDED_BYTES if kind == "x" else _MAX_NAME_BYTES):
                problem = f"has an extended header of {size:,} bytes"
            elif kind == "L":
                long_name = os.pread(fd, size, start).rstrip(b"\0")
            elif kind == "x":
                pax = _parse_pax(os.pread(fd, size, start))
            position = start + _padded(size)
            continue
        name = _member_name(header, long_name, pax)
        if said := pax.get("size"):
            size = int(said) if _DECIMAL.fullmatch(said) else None
        key, why = _check_name(name)
        is_folder = kind == "5" or (kind == "\0" and name.endswith("/"))
        why = problem or why or ("" if kind in _PLAIN_KINDS else f"is {_KINDS.get(kind, 'of an unknown kind')}")
        if any(field.startswith("GNU.sparse") for field in pax):
            why = "is a sparse file"
        long_name, pax, problem, in_row = None, {}, "", 0
        if size is None or size > 2**62:
            yield TarMember("", position, 0, f"is damaged at byte {position:,}")
            return
        if kind in "123456":  # they have no content, whatever their size says
            size = 0
        count += 1
        if count > MAX_MEMBERS:
            yield TarMember("", position, 0, f"has more than {MAX_MEMBERS:,} members, and the others are not read")
            return
        if not is_folder:
            if start + size > file_size:
                yield TarMember(key, start, size, "lies where its archive is cut off")
                yield TarMember("", position, 0, f"is cut off after {file_size:,} bytes")
                return
            yield TarMember(key, start, size, why)
        position = start + _padded(size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _is_header(block: bytes) -> bool:
    """Whether the checksum of a block is that of a header. Some old programs sum signed bytes."""
    if len(block) < _BLOCK:
        return False
    given = _parse_number(block[148:156])
    if given is None:
        return False
    field = block[148:156]  # counts as eight blanks
    total = sum(block) - sum(field) + 8 * 32
    if given == total:
        return True
    return given == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def _cut_or_damaged(header: bytes) -> str:
    return "cut off" if len(header) < _BLOCK else "damaged"


def _parse_number(field: bytes) -> int | None:
    """Octal digits, or base 256 where the first bit is set; None = neither, or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.replace(b"\0", b" ").strip()
    if not text:
        return 0
    return int(text, 8) if _OCTAL.fullmatch(text) else None


def _parse_pax(data: bytes) -> dict[str, str]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header, up to the first that is not valid."""
    found: dict[str, str] = {}
    at = 0
    while match := _PAX_RECORD.match(data, at):
        end = at + int(match[1])
        if end <= match.end() or end > len(data) or data[end - 1 : end] != b"\n":
            break
        key = match[2].decode("utf-8", "replace")
        if key in ("path", "size") or key.startswith("GNU.sparse"):
            found[key] = data[match.end() : end - 1].decode("utf-8", "surrogateescape")
        at = end
    return found


def _member_name(header: bytes, long_name: bytes | None, pax: dict[str, str]) -> str:
    if "path" in pax:
        return pax["path"]
    name = long_name if long_name is not None else header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" and long_name is None else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _check_name(name: str) -> tuple[str, str]:
    """(name as `find_image` takes it, why it is refused or "")."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    shown = "/".join(parts) or "(no name)"
    if not parts or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", parts[0]):
        return utf8_safe(name or shown), "has a name that is not a path below the archive"
    if "\\" in name or "\0" in name or len(name) > _MAX_NAME_BYTES or not _is_unicode(name):
        return utf8_safe(shown), "has a name that is too long, not in UTF-8, or with a backslash"
    return shown, ""


def _is_unicode(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


def _not_a_tar(start: bytes) -> str:
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            return f"is in an archive that is compressed ({name}); unpack the archive to a plain .tar"
    return "is in a file that is not a tar archive"


class _Window(io.RawIOBase):
    """A part of a file as a file of its own. It has its own position, so that threads do not disturb each other."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._size, self._position = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a seek to before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._position))
        data = os.pread(self._file.fileno(), count, self._start + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def open_member(path: Path, start: int, size: int) -> Iterator[BinaryIO]:
    """The bytes of a member as a file; only what is read from it is read from the disk.

    Args:
        path: the archive.
        start: byte of the archive at which the content starts.
        size: bytes of the content.
    """
    with io.BufferedReader(_Window(path, start, size), 65_536) as file:
        yield file
