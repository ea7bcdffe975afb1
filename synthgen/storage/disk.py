"""Folders that survive a power failure, and the errors of disks that are full, read-only, gone or remote."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from synthgen.errors import ArgumentError, FailedRunError, SynthgenError, is_disk_full, shorten_value

#: The folders that `create_folder` has made in the block of `without_empty_folders`, with what tells each from another
#: one that takes its place, such as a mount point; None = outside of such a block.
_CREATED: ContextVar[list[tuple[Path, os.stat_result]] | None] = ContextVar("_CREATED", default=None)

#: Errors of a folder that cannot be written.
_UNWRITABLE_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP),
}

#: Errors of a disk that was unmounted, or whose server is away.
_GONE_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EHOSTDOWN}

#: Errors of file systems that cannot flush a folder, or of folders that this user may write but not list.
_NO_FOLDER_SYNC_ERRNOS = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}


def default_store() -> Path:
    """The root of the shards if the user names none."""
    return Path(os.environ.get("SYNTHGEN_STORE") or "shards")


@contextlib.contextmanager
def translate_os_errors(
    path: Path, errnos: set[int] = _UNWRITABLE_ERRNOS, *, remedy: str = "choose another --store"
) -> Iterator[None]:
    """Turn errors of the file system that the user can fix into a `SynthgenError`.

    Args:
        path: file or folder that the block writes, for the message.
        errnos: errors that the user can fix by another folder; a full disk is always translated.
        remedy: what the error message suggests.

    Raises:
        FailedRunError: the disk is full.
        SynthgenError: an error of `errnos`.
    """
    try:
        yield
    except OSError as why:
        if is_disk_full(why):
            raise FailedRunError(
                f"no space left to write {path}; make room and run the same command again: what is committed stays"
            ) from None
        if why.errno in errnos:
            raise SynthgenError(f"cannot write {path} ({why.strerror}); {remedy}") from None
        raise


def create_folder(folder: Path, *, remedy: str = "choose another --store") -> None:
    """Create a folder and the missing ones above it. They are on the disk when the function returns.

    Only the start of a job calls this. What is written later goes to folders that exist: a disk that was unmounted
    meanwhile must not get a second copy below its mount point.

    Args:
        folder: may exist.
        remedy: what the error message suggests if the folder cannot be created.

    Raises:
        SynthgenError: it cannot be created.
    """
    missing = []
    for place in (folder, *folder.parents):
        with translate_os_errors(place, remedy=remedy):
            if place.is_dir():
                break
        missing.append(place)
    for place in reversed(missing):
        with translate_os_errors(place, remedy=remedy):
            try:
                place.mkdir()
                if (created := _CREATED.get()) is not None:
                    created.append((place, place.stat()))
            except (FileExistsError, NotADirectoryError):
                if not place.is_dir():  # else another process was faster
                    raise SynthgenError(
                        f"cannot write {place} (a file lies where a folder should be); move it away, or {remedy}"
                    ) from None
            sync_folder(place.parent)


@contextlib.contextmanager
def without_empty_folders() -> Iterator[None]:
    """If the block fails, delete the folders that it made and left empty. Blocks may be nested."""
    outer, created = _CREATED.get(), list[tuple[Path, os.stat_result]]()
    token = _CREATED.set(created)
    try:
        yield
    except BaseException:
        for folder, then in reversed(created):
            with contextlib.suppress(OSError):  # it holds something, or is gone
                if os.path.samestat(folder.lstat(), then):
                    folder.rmdir()
        raise
    finally:
        _CREATED.reset(token)
        if outer is not None:
            outer += created


def check_folder_exists(folder: Path) -> os.stat_result:
    """The file status of a folder that a job has created.

    Args:
        folder: any path; a file there is not refused.

    Raises:
        FailedRunError: it is gone.
        OSError: its status cannot be read for another reason.
    """
    try:
        found = folder.stat()
    except OSError as why:
        if why.errno not in _GONE_ERRNOS:
            raise
        raise gone_error(folder, why.strerror or "") from None
    return found


def gone_error(folder: Path, reason: str) -> FailedRunError:
    """The error for a `folder` that vanished during a run, for a `reason` in a few words."""
    return FailedRunError(
        f"{folder} has gone during the run ({reason}); if its disk was unmounted, mount it again, and run the same "
        "command again: what is committed stays"
    )


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that a new name in it survives a power failure."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as why:
        if why.errno not in _NO_FOLDER_SYNC_ERRNOS:
            raise


def reject_url(path: Path | None) -> Path | None:
    """The path, unless it is a URL such as "s3://bucket/folder", which would become a local folder named "s3:".

    Args:
        path: what the user gave; None stays None.

    Raises:
        SynthgenError: it is a URL.
    """
    # A path has one slash where the URL had two.
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)) if path is not None else None
    if match is not None and not Path(f"{match[1]}:").is_dir():
        url = str(path).replace(":/", "://", 1)
        raise SynthgenError(
            f"{url} is a URL, and synthgen reads and writes local folders; copy the files to one, or mount the bucket"
        )
    return path


def check_path(argument: str, path: str | os.PathLike[str] | None) -> Path | None:
    """A path that a user of the Python API gives; None stays None.

    Args:
        argument: the argument's name, for the message.
        path: what the user gave.

    Raises:
        ArgumentError: it is not a path, is empty or too long for one, or has a character that no path has.
        SynthgenError: it is a URL.
    """
    if path is None:
        return None
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise ArgumentError(f"{argument}={shorten_value(path)} is not a path; give a text or a pathlib.Path")
    if not text:  # pathlib takes it for the working directory
        raise ArgumentError(f"{argument}={shorten_value(path)} is empty; give a path, or '.' for the working directory")
    try:
        os.lstat(text)
    except UnicodeEncodeError:
        raise ArgumentError(f"{argument}={shorten_value(path)} has a character that no path has; rename it") from None
    except OSError as why:  # whoever opens the file says what else is wrong
        if why.errno == errno.ENAMETOOLONG:
            raise ArgumentError(f"{argument}={shorten_value(path)} is too long for a path; shorten it") from None
    return reject_url(Path(text))


def require_path(argument: str, path: str | os.PathLike[str]) -> Path:
    """A path that a user of the Python API must give.

    Args:
        argument: the argument's name, for the message.
        path: what the user gave.

    Raises:
        ArgumentError: it is not a path.
        SynthgenError: it is a URL.
    """
    found = check_path(argument, path)
    if found is None:
        raise ArgumentError(f"{argument} is None; give a text or a pathlib.Path")
    return found
