"""Files that are there whole or not at all, a lock, and the sentences for places where nothing can be written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError

log = logging.getLogger(__name__)

_TEMPORARY_PATTERN = re.compile(r"\..+\.([A-Za-z0-9-]+)\.(\d{1,9})\.[0-9a-f]{8}\.tmp")  # of which host and process

#: What a file system says to a place where nothing can be written.
_UNWRITABLE_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP),
}

#: ... and one that has no locks.
_NO_LOCK_ERRNOS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def atomic_write(final: Path, *, remedy: str = "choose another --store") -> Iterator[Path]:
    """A temporary path in the folder of `final`; renamed to it when the block ends well, deleted when it does not.

    Args:
        remedy: what the sentence says where the folder cannot be written.

    Raises:
        SynthgenError: there is no space, or the folder cannot be written.
    """
    with _translate_os_errors(final, remedy=remedy):
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
    """See, before the work that it is for, that a file can be put in place, or in the place of the one that is there.

    Raises:
        SynthgenError: it cannot.
    """
    with _translate_os_errors(path, remedy=remedy):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_path(path)
        temporary.touch(exist_ok=False)
        temporary.unlink()


def write_text_atomic(path: Path, text: str, *, remedy: str = "choose another --store") -> None:
    """Put a small file in place, whole or not at all, as a shard is put; see `atomic_write`."""
    with atomic_write(path, remedy=remedy) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def append_line(path: Path, text: str, *, remedy: str = "choose another --store") -> None:
    """Add a line to a log with one write: the lines of two writers may interleave, their letters may not."""
    with _translate_os_errors(path, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            # A path need not be UTF-8. Its odd bytes become what JSON reads back as the same: \udcff.
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")


@contextlib.contextmanager
def file_lock(path: Path, *, lock_timeout: float, timeout_message: str, remedy: str) -> Iterator[None]:
    """Hold a lock file until the block ends, or the process does, in whatever way.

    Args:
        path: the file, which is made where there is none, and stays.
        lock_timeout: seconds that another process which holds it is waited for.
        timeout_message: what is said if it holds it longer.
        remedy: what is said where the file cannot be written.

    Raises:
        SynthgenError: another process holds it; it cannot be written.
    """
    with _translate_os_errors(path, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        began, is_told = time.monotonic(), False
        while not _try_flock(handle, path):
            waited = time.monotonic() - began
            if waited >= lock_timeout:
                raise SynthgenError(timeout_message)
            if waited > 1 and not is_told:
                log.warning("another process holds %s: waiting for it, %.0f s at most", path, lock_timeout)
                is_told = True
            time.sleep(0.1)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # for processes that were forked meanwhile as well
    finally:
        os.close(handle)


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, deleted when the block ends.

    Raises:
        SynthgenError: it cannot be made, or there is no space for what the block writes.
    """
    folder = _temporary_path(parent / "scratch")
    with _translate_os_errors(folder):
        folder.mkdir(parents=True)
    try:
        # Only a full disk is told of here: other errors of the block may come from files that it reads elsewhere.
        with _translate_os_errors(folder, errnos=set()):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_files(folder: Path) -> int:
    """Delete what writers killed on this machine left in a folder; returns how many files and folders it was."""
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
    """Whether a file or folder is what a writer is at, or left, on whatever machine."""
    return _TEMPORARY_PATTERN.fullmatch(path.name) is not None


def _temporary_path(final: Path) -> Path:
    """A name beside `final` that says whose it is: `remove_stale_files` reads it."""
    return final.with_name(f".{final.name}.{_host_name()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _translate_os_errors(
    path: Path, errnos: set[int] = _UNWRITABLE_ERRNOS, *, remedy: str = "choose another --store"
) -> Iterator[None]:
    """Turn what the file system refuses, and the user can mend, into a sentence."""
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


def _try_flock(handle: int, path: Path) -> bool:
    """Whether the file is ours now; a file system without locks gives it to anyone, which is told."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as why:
        if why.errno not in _NO_LOCK_ERRNOS:
            raise
        log.warning("%s is on a file system without locks: see to it that nobody else writes there", path)
    return True


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
