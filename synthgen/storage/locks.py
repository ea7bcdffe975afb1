"""Lock files: one process at a time works in a folder; the operating system releases the lock of a dead one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.storage.atomic import translate_os_errors

log = logging.getLogger(__name__)


#: Errors of a file system without locks.
_NO_LOCK_ERRNOS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def file_lock(path: Path, *, lock_timeout: float, timeout_message: str, remedy: str) -> Iterator[None]:
    """Hold a lock file until the block or the process ends.

    Args:
        path: the file. It is created if it is missing, and stays.
        lock_timeout: how many seconds to wait for a process that holds the lock.
        timeout_message: the error message if it holds the lock longer.
        remedy: what the error message suggests if the file cannot be written.

    Raises:
        SynthgenError: another process holds it; it cannot be written.
    """
    with translate_os_errors(path, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        began, is_logged = time.monotonic(), False
        while not _try_flock(handle, path):
            waited = time.monotonic() - began
            if waited >= lock_timeout:
                raise SynthgenError(timeout_message)
            if waited > 1 and not is_logged:
                log.warning("another process holds %s: waiting for it, %.0f s at most", path, lock_timeout)
                is_logged = True
            time.sleep(0.1)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # also unlocks processes that were forked meanwhile
    finally:
        os.close(handle)


def _try_flock(handle: int, path: Path) -> bool:
    """Whether the lock is ours now. A file system without locks always says yes; this logs a warning."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as why:
        if why.errno not in _NO_LOCK_ERRNOS:
            raise
        log.warning("%s is on a file system without locks: see to it that nobody else writes there", path)
    return True
