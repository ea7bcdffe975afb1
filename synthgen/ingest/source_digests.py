"""SHA-256 digests of a dataset's own files, remembered so that unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from synthgen.errors import SynthgenError, describe_exhaustion
from synthgen.formats.readers import DatasetFiles
from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.storage.atomic import write_text_atomic

#: The digest of a file is remembered only if the file was this many seconds old when it was read.
RACY_SECONDS = 2.0

_LOG_ERRORS = (OSError, ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)


class SourceDigests(NamedTuple):
    """SHA-256 of the source files by role; the log that remembers them; whether that log is to be written."""

    by_role: dict[str, str]
    log: dict[str, Any]
    is_new: bool


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of the file at `path`, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as why:
        if describe_exhaustion(why):  # says nothing about the file
            raise
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def folder_sha256(path: Path, *, of: str = "sizes", skip: Path | None = None) -> str:
    """SHA-256, in hexadecimal, of the names in a folder and of the sizes or contents of its files.

    Args:
        path: an existing folder.
        of: "sizes"; or "contents", of images their sizes only: annotation files may lie beside photographs, and reading
            these would take hours.
        skip: a folder that is left out: the store, which may lie in the dataset's folder.

    Raises:
        SynthgenError: a file or folder cannot be read.
    """
    found = []
    try:
        for file in _walk(path, skip):
            found.append((os.fsencode(file.relative_to(path)), _digest_part(file, of)))
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    return _hash_parts(found)


def _hash_parts(parts: list[tuple[bytes, bytes]]) -> str:
    """SHA-256, in hexadecimal, of (name, what is digested of the file), in any order."""
    return hashlib.sha256(b"".join(b"%s\0%s\n" % one for one in sorted(parts))).hexdigest()


def _walk(path: Path, skip: Path | None) -> Iterator[Path]:
    """The files in a folder, at any depth, but for hidden ones and those below `skip`."""
    inside = skip is not None and skip.resolve().is_relative_to(path.resolve())
    left_out = os.fspath(path / skip.resolve().relative_to(path.resolve())) if skip is not None and inside else None
    for folder, below, names in os.walk(path, onerror=_raise):
        below[:] = [name for name in below if Path(folder, name) != Path(left_out)] if left_out else below
        for name in names:
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield file


def _digest_part(file: Path, of: str) -> bytes:
    if of == "contents" and file.suffix.lower() not in IMAGE_SUFFIXES:
        return file_sha256(file).encode()
    return b"%d" % file.stat().st_size


def remember_digests(log: Path, found: SourceDigests) -> None:
    """Write the `found` digests to the `log`, if they are not there yet."""
    if found.is_new:
        write_text_atomic(log, json.dumps(found.log))


def digest_sources(files: DatasetFiles, log: Path, skip: Path | None = None) -> SourceDigests:
    """SHA-256 by role. The log gives that of a file which is certainly unchanged; others are hashed.

    Args:
        files: whose `sources` are digested.
        log: JSON file with the digests of an earlier run; it may be missing.
        skip: as in `folder_sha256`.
    """
    checked_ns, known = time.time_ns(), _read_source_log(log)
    entries: dict[str, tuple[int | str, ...]] = {}
    digests: dict[str, str] = {}
    for role, state in source_states(files, skip).items():
        digests[role] = known.get((role, *state)) or _digest_source(files, role, skip)
        entries[role] = (*state, digests[role])
    is_new = any(known.get((role, *state)) != digest for role, (*state, digest) in entries.items())
    return SourceDigests(digests, {"checked_ns": checked_ns, "files": entries}, is_new)


def _read_source_log(log: Path) -> dict[tuple[Any, ...], str]:
    """(role, *state of the file) -> SHA-256, of those that were read long enough after their last change.

    Time stamps are coarse: a file that is changed again in the moment in which it is read may look unchanged.
    """
    known = {}
    try:
        then = json.loads(log.read_text(encoding="utf-8"))
        checked_ns = int(then["checked_ns"])
        for role, (size, mtime_ns, ctime_ns, inode, digest) in then["files"].items():
            if min(abs(checked_ns - mtime_ns), checked_ns - ctime_ns) >= RACY_SECONDS * 1e9:
                known[role, size, mtime_ns, ctime_ns, inode] = digest
    except _LOG_ERRORS:  # it is missing, damaged, or of an older release
        return {}
    return known


def _digest_source(files: DatasetFiles, role: str, skip: Path | None) -> str:
    path = files.sources[role]
    if not path.is_dir():
        return file_sha256(path)
    return folder_sha256(path, of="contents" if role in files.content_roles else "sizes", skip=skip)


def source_states(files: DatasetFiles, skip: Path | None = None) -> dict[str, tuple[int, int, int, int]]:
    """By role: (bytes, modification time in ns, change time in ns, inode) of a file, or what stands for it of a folder.

    Whoever changes a file may set its modification time, but not its change time.

    Args:
        files: whose `sources` are looked at.
        skip: see `folder_sha256`.

    Raises:
        SynthgenError: a file or folder cannot be read.
    """
    states = {}
    for role, path in sorted(files.sources.items()):
        try:
            if path.is_dir():
                by_content = role in files.content_roles
                digest, newest = _folder_state(path, skip) if by_content else (folder_sha256(path, skip=skip), 0)
                states[role] = 0, int(digest[:15], 16), newest, 0
            else:
                found = path.stat()
                states[role] = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
        except OSError as why:
            raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    return states


def _folder_state(folder: Path, skip: Path | None) -> tuple[str, int]:
    """A digest of the names, sizes, times and inodes in a folder, and the newest change time of its files, in ns."""
    parts, newest = [], 0
    for file in _walk(folder, skip):
        state = file.stat()
        known = b"%d %d %d %d" % (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        parts.append((os.fsencode(file.relative_to(folder)), known))
        newest = max(newest, state.st_ctime_ns)
    return _hash_parts(parts), newest


def _raise(why: OSError) -> None:
    raise why
