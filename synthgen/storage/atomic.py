"""Atomic writes, scratch folders, and error messages for disks that are full or read-only."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError

log = logging.getLogger(__name__)

_TEMPORARY_PATTERN = re.compile(r"\..+\.([A-Za-z0-9-]+)\.(\d{1,9})\.[0-9a-f]{8}\.tmp")  # host, process

#: Errors of a folder that cannot be written.
_UNWRITABLE_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP),
}


@contextlib.contextmanager
def atomic_write(final: Path, *, remedy: str = "choose another --store") -> Iterator[Path]:
    """A temporary path beside `final`. It is renamed to `final` if the block succeeds, and deleted if not.

    Args:
        remedy: what the error message suggests if the folder cannot be written.

    Raises:
        SynthgenError: there is no space, or the folder cannot be written.
    """
    with translate_os_errors(final, remedy=remedy):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_path(final)
        try:
            yield temporary
            _fsync(temporary)
            os.replace(temporary, final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync(final.parent)


def check_writable(path: Path, *, remedy: str) -> None:
    """Check, before long work, that a file can be written or replaced.

    Raises:
        SynthgenError: it cannot.
    """
    with translate_os_errors(path, remedy=remedy):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_path(path)
        temporary.touch(exist_ok=False)
        temporary.unlink()


def write_text_atomic(path: Path, text: str, *, remedy: str = "choose another --store") -> None:
    """Write a small text file atomically; see `atomic_write`."""
    with atomic_write(path, remedy=remedy) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def append_line(path: Path, text: str, *, remedy: str = "choose another --store") -> None:
    """Append a line to a log with one write, so that lines of two writers do not mix."""
    with translate_os_errors(path, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            # A path may contain bytes that are not UTF-8. They become escapes such as \udcff, which JSON reads back.
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, deleted when the block ends.

    Raises:
        SynthgenError: it cannot be made, or there is no space for what the block writes.
    """
    folder = _temporary_path(parent / "scratch")
    with translate_os_errors(folder):
        folder.mkdir(parents=True)
    try:
        # Translate only a full disk: other errors of the block may come from files that it reads elsewhere.
        with translate_os_errors(folder, errnos=set()):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_files(folder: Path) -> int:
    """Delete the temporary files of killed writers of this machine; returns how many files and folders."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY_PATTERN.fullmatch(path.name)
        if match and match[1] == _host_name() and not _is_process_alive(int(match[2])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed += 1
    return removed


def is_temporary_path(path: Path) -> bool:
    """Whether a path is the temporary file or folder of a writer, running or killed, on any machine."""
    return _TEMPORARY_PATTERN.fullmatch(path.name) is not None


def _temporary_path(final: Path) -> Path:
    """A name beside `final` with host and process id, which `remove_stale_files` reads."""
    return final.with_name(f".{final.name}.{_host_name()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def translate_os_errors(
    path: Path, errnos: set[int] = _UNWRITABLE_ERRNOS, *, remedy: str = "choose another --store"
) -> Iterator[None]:
    """Turn errors of the file system that the user can fix into a `SynthgenError`."""
    try:
        yield
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SynthgenError(
                f"no space left to write {path}; make room and run the same command again: what is committed stays"
            ) from None
        if why.errno in errnos:
            raise SynthgenError(f"cannot write {path} ({why.strerror}); {remedy}") from None
        raise


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


def _is_process_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
