"""Atomic writes with temporary files and scratch folders, and the removal of what killed writers left.

A writer holds a lock on each temporary file, and on a file in each scratch folder, for as long as it lives. The
operating system releases the lock of a killed process, on any host and in any container. So a leftover is what can be
locked. The file system must share its locks between the machines that write there, as NFS does unless it is mounted
with `nolock`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.storage.disk import check_folder_exists, create_folder, sync_folder, translate_os_errors
from synthgen.storage.locks import release_lock, try_lock

log = logging.getLogger(__name__)

_TEMPORARY_PATTERN = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")

#: Names that earlier versions gave, with host and process. Those held no locks.
_UNLOCKED_PATTERN = re.compile(r"\..+\.[A-Za-z0-9-]+\.\d{1,9}\.[0-9a-f]{8}\.tmp")

#: In each scratch folder, the file that is locked.
_SCRATCH_LOCK = ".lock"

#: Where locks tell nothing, a leftover is what nobody has changed for a day.
STALE_SECONDS = 24 * 60 * 60

#: A creator whose file was taken for a leftover tries again so often.
_CREATE_ATTEMPTS = 100


@contextlib.contextmanager
def atomic_write(final: Path, *, remedy: str = "choose another --store") -> Iterator[Path]:
    """A temporary file beside `final`. It is renamed to `final` if the block succeeds, and deleted if not.

    The block writes into the file that exists, as `open(path, "wb")` does. The folder must exist; see `create_folder`.

    Args:
        final: path of the finished file; it may exist and is then replaced.
        remedy: what the error message suggests if the folder cannot be written.

    Raises:
        SynthgenError: there is no space, or the folder is gone or cannot be written.
    """
    with translate_os_errors(final, remedy=remedy):
        check_folder_exists(final.parent)
        temporary, handle = _create_temporary_file(final)
        try:
            yield temporary
            os.fsync(handle)
            os.replace(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            release_lock(handle)
        sync_folder(final.parent)


def check_writable(path: Path, *, remedy: str) -> None:
    """Check, before long work, that a file can be written or replaced. Creates its folder.

    Args:
        path: file to be written later; it may exist.
        remedy: what the error message suggests.

    Raises:
        SynthgenError: it cannot.
    """
    with translate_os_errors(path, remedy=remedy):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    create_folder(path.parent, remedy=remedy)
    with translate_os_errors(path, remedy=remedy):
        temporary, handle = _create_temporary_file(path)
        try:
            temporary.unlink()
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            release_lock(handle)


def write_text_atomic(path: Path, text: str, *, remedy: str = "choose another --store") -> None:
    """Write a small text file atomically; see `atomic_write`.

    Args:
        path: file to write; its folder must exist.
        text: characters that UTF-8 cannot encode become escapes.
        remedy: what the error message suggests if the folder cannot be written.
    """
    with atomic_write(path, remedy=remedy) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def append_line(path: Path, text: str, *, remedy: str = "choose another --store") -> None:
    """Append a line to a log with one write, so that lines of two writers do not mix. The folder must exist.

    Args:
        path: file to write to; created if it is missing.
        text: the line, without its end.
        remedy: what the error message suggests if the folder cannot be written.
    """
    with translate_os_errors(path, remedy=remedy):
        check_folder_exists(path.parent)
        with path.open("ab", buffering=0) as file:
            # A path may contain bytes that are not UTF-8. They become escapes such as \udcff, which JSON reads back.
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def link_or_copy(source: Path, final: Path, *, remedy: str) -> None:
    """Give a file a second name atomically. Where the file system has no hard links, as in clouds, it is copied.

    Args:
        source: existing file.
        final: its second name; what lies there is replaced. The folder must exist.
        remedy: what the error message suggests if the folder cannot be written.

    Raises:
        SynthgenError: there is no space, or the folder is gone or cannot be written.
    """
    with translate_os_errors(final, remedy=remedy), scratch_folder(final.parent, remedy=remedy) as scratch:
        new = scratch / "link"
        try:
            os.link(source, new)
        except OSError:
            shutil.copyfile(source, new)
        with new.open("rb") as file:
            os.fsync(file)
        os.replace(new, final)
        sync_folder(final.parent)


@contextlib.contextmanager
def scratch_folder(parent: Path, *, remedy: str = "choose another --store") -> Iterator[Path]:
    """A folder in `parent` without files but its lock, deleted when the block ends. `parent` must exist.

    Args:
        parent: existing folder.
        remedy: what the error message suggests if `parent` cannot be written.

    Raises:
        SynthgenError: it cannot be made, or there is no space for what the block writes.
    """
    created: tuple[Path, int] | None = None
    try:
        with translate_os_errors(parent / "scratch", remedy=remedy):
            check_folder_exists(parent)
            created = _create_scratch_folder(parent)
        # Translate only a full disk: other errors of the block may come from files that it reads elsewhere.
        with translate_os_errors(created[0], errnos=set()):
            yield created[0]
    finally:
        if created is not None:
            folder, handle = created
            try:
                _delete(folder)
            except BaseException:  # a signal that ends the command raises an exception once, between any two calls
                _delete(folder)
                raise
            finally:
                _release_after_delete(handle, folder)


def remove_stale_files(folder: Path) -> int:
    """Delete what killed writers left in a folder; returns how many files and folders.

    Nothing that may be in use is deleted. On a file system without locks, and under the names of earlier versions, a
    leftover is what nobody has changed for `STALE_SECONDS` by the clock of the file server.
    """
    return sum(map(_remove_if_stale, sorted(folder.glob(".*.tmp"))))


def is_temporary_path(path: Path) -> bool:
    """Whether a path is the temporary file or folder of a writer, running or killed, of this version or an earlier."""
    return any(pattern.fullmatch(path.name) for pattern in (_TEMPORARY_PATTERN, _UNLOCKED_PATTERN))


def _temporary_path(final: Path) -> Path:
    """A new name beside `final`. No two writers get the same one."""
    return final.with_name(f".{final.name}.{secrets.token_hex(8)}.tmp")


def _create_temporary_file(final: Path) -> tuple[Path, int]:
    """A new locked file beside `final`, and the handle that holds its lock."""
    for _ in range(_CREATE_ATTEMPTS):
        path = _temporary_path(final)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            if _lock_new(handle, path):
                return path, handle
        except BaseException:  # a signal, too
            _delete(path)
            raise
    raise _lost_error(final.parent)


def _create_scratch_folder(parent: Path) -> tuple[Path, int]:
    """A new folder in `parent` with a locked file, and the handle that holds the lock."""
    for _ in range(_CREATE_ATTEMPTS):
        folder = _temporary_path(parent / "scratch")
        lock = folder / _SCRATCH_LOCK
        try:
            folder.mkdir()
            try:
                handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                continue  # the folder was taken for a leftover
            if _lock_new(handle, lock):
                return folder, handle
        except BaseException:
            _delete(folder)
            raise
    raise _lost_error(parent)


def _lock_new(handle: int, path: Path) -> bool:
    """Lock a file that was created a moment ago. False = another run took it for a leftover; the handle is closed."""
    is_locked = try_lock(handle)
    if is_locked is None:
        _warn_without_locks(path.parent)
    if is_locked is not False and os.path.lexists(path):  # it may have been deleted before it was locked
        return True
    release_lock(handle)
    return False


def _lost_error(folder: Path) -> SynthgenError:
    return SynthgenError(
        f"another program deletes or locks each new file in {folder}; end it, and run the same command again"
    )


@functools.cache
def _warn_without_locks(folder: Path) -> None:
    log.warning(
        "%s is on a file system without locks: what a killed run leaves there is removed after a day at the earliest",
        folder,
    )


def _remove_if_stale(path: Path) -> bool:
    """Delete a temporary file or scratch folder of a killed writer; returns whether this was one."""
    if not is_temporary_path(path):
        return False
    try:
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            return False  # no writer makes links or pipes
        if _UNLOCKED_PATTERN.fullmatch(path.name):
            return _is_old(path) and _delete(path)
        return _remove_if_unlocked(path, is_folder=stat.S_ISDIR(kind))
    except FileNotFoundError:
        return False  # its writer was done
    except OSError as why:
        log.warning("cannot tell whether %s is in use (%s), and keep it", path, why.strerror)
        return False


def _remove_if_unlocked(path: Path, *, is_folder: bool) -> bool:
    lock = path / _SCRATCH_LOCK if is_folder else path
    # The writer of a folder may not have created the lock yet. It finds it locked then, and makes another folder.
    handle = _open_for_lock(lock, os.O_CREAT if is_folder else 0)
    try:
        is_locked = try_lock(handle)
        if is_locked is False or not _is_open_as(handle, lock):
            return False
        if is_locked is None:
            if not _is_old(path):
                return False
            log.warning("removing %s: nobody has changed it for a day, and no lock tells whether it is in use", path)
        _delete(path)
    finally:
        _release_after_delete(handle, path)
    return True


def _open_for_lock(path: Path, flags: int) -> int:
    """Open a file to lock it. NFS locks only what is open for writing; elsewhere reading suffices."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:  # another user's
        return os.open(path, flags | os.O_RDONLY, 0o666)


def _is_open_as(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _is_old(path: Path) -> bool:
    """Whether nobody has changed a file, or anything in a folder, for `STALE_SECONDS`."""
    changed = [path.lstat().st_mtime]
    for folder, folders, files in os.walk(path):
        changed += [Path(folder, name).lstat().st_mtime for name in (*folders, *files)]
    # A new file has the time of the file server, whose clock may differ from that of this machine.
    clock, handle = _create_temporary_file(path.with_name("clock"))
    try:
        return os.fstat(handle).st_mtime - max(changed) > STALE_SECONDS
    finally:
        clock.unlink(missing_ok=True)
        release_lock(handle)


def _delete(path: Path) -> bool:
    """Delete a temporary file or folder; returns True."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True


def _release_after_delete(handle: int, folder: Path) -> None:
    """Release a lock, and delete what is left of an emptied folder.

    NFS gives a deleted file that is still open another name in its folder, which therefore stays until the file is
    closed.
    """
    release_lock(handle)
    with contextlib.suppress(OSError):
        folder.rmdir()
