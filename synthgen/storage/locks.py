"""Locks on files: the operating system releases the lock of a process that has ended, however it ended."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.storage.disk import create_folder, translate_os_errors

log = logging.getLogger(__name__)


#: Errors of a file system without locks.
#: The last one is NFS's, for a folder: it locks alone only what is open for writing.
_NO_LOCK_ERRNOS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF}


def try_lock(handle: int, *, shared: bool = False) -> bool | None:
    """Lock an open file if nobody holds its lock; True = it is ours, False = another one's, None = no locks there.

    The lock belongs to the open file and not to the process: another handle of the same process cannot take it.

    Args:
        handle: the file descriptor.
        shared: others may hold it too, if they share it.

    Raises:
        OSError: the file cannot be locked for another reason.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as why:
        if why.errno not in _NO_LOCK_ERRNOS:
            raise
        return None
    return True


def release_lock(handle: int) -> None:
    """Release the lock and close the file, both by the file descriptor `handle`. Processes that were forked meanwhile
    lose the lock, too.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


@contextlib.contextmanager
def file_lock(path: Path, *, lock_timeout: float = math.inf, timeout_message: str = "", remedy: str) -> Iterator[None]:
    """Hold a lock file until the block or the process ends.

    Args:
        path: the file. It is created if it is missing, and stays.
        lock_timeout: how many seconds to wait for a process that holds the lock; infinite = until it releases it.
        timeout_message: the error message if it holds the lock longer.
        remedy: what the error message suggests if the file cannot be written.

    Raises:
        SynthgenError: another process holds it; it cannot be written.
    """
    create_folder(path.parent, remedy=remedy)
    with translate_os_errors(path, remedy=remedy):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        began, is_logged = time.monotonic(), False
        while (is_ours := try_lock(handle)) is False:
            waited = time.monotonic() - began
            if waited >= lock_timeout:
                raise SynthgenError(timeout_message)
            if waited > 1 and not is_logged:
                at_most = f", {lock_timeout:.0f} s at most" if math.isfinite(lock_timeout) else ""
                log.warning("another process holds %s: waiting for it%s", path, at_most)
                is_logged = True
            time.sleep(0.1)
        if is_ours is None:
            log.warning("%s is on a file system without locks: see to it that nobody else writes there", path)
        yield
    finally:
        release_lock(handle)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[tuple[int, bool | None]]:
    """Lock a folder alone, if nobody uses it; see `use_folder`.

    Args:
        folder: an existing folder, which must not be a link.

    Yields:
        The file descriptor of the folder, and whether the lock is ours; None = the file system has no locks.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle, try_lock(handle)
    finally:
        release_lock(handle)


@contextlib.contextmanager
def use_folder(folder: Path) -> Iterator[None]:
    """Hold a shared lock on an existing folder until the block or the process ends, so that nobody deletes it.

    Args:
        folder: the folder of a layer. Where it cannot be locked, it is used without a lock.

    Raises:
        SynthgenError: it is being deleted.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # whoever uses it says what is wrong with it
        yield
        return
    try:
        if try_lock(handle, shared=True) is False:
            raise SynthgenError(f"{folder} is being deleted; wait for `synthgen rm`, and run the same command again")
        yield
    finally:
        release_lock(handle)
