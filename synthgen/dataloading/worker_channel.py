"""The socket between a worker process of a data loader and its parent.

The parent asks for a batch with one byte. The worker answers with a header and, for a batch, the file descriptor of its
memory (`batch_memory`). The socket has no name and no thread. The end of either process closes it, which the other one
sees at once.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import socket
import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from synthgen.dataloading.batch_memory import map_arrays, memory_size
from synthgen.dataloading.collate import PackedBatch, split_pixels
from synthgen.errors import FailedRunError

#: The kind of an answer; where the pickled rest of a batch starts in its memory; the length of that, or of the text.
_HEADER = struct.Struct("<BQQ")

#: Maximum bytes of an error's text.
_MAX_TEXT_BYTES = 100_000


class _Kind(IntEnum):
    BATCH, END, USER_ERROR, BUG = range(4)


class ChannelClosedError(Exception):
    """The other process has ended."""


@dataclass(frozen=True, slots=True)
class WorkerError:
    """Sent instead of a batch by a worker that failed.

    Attributes:
        message: the sentence for the user, or the traceback of a bug.
        is_bug: whether the user cannot fix it.
    """

    message: str
    is_bug: bool = False


def request_batch(channel: socket.socket) -> None:
    """Ask the worker at the other end of `channel` for one more batch. A worker that has ended cannot be asked; the
    next answer tells that.
    """
    try:
        channel.sendall(b"\0")
    except OSError:
        return


def wait_for_request(channel: socket.socket) -> bool:
    """Wait until the parent, at the other end of `channel`, asks for a batch; False = the parent has ended."""
    try:
        return bool(channel.recv(1))
    except ConnectionError:
        return False


def send_batch(channel: socket.socket, packed: PackedBatch) -> None:
    """Send a batch whose pixels are in shared memory.

    Args:
        channel: the worker's end of the socket.
        packed: a batch from `collate` in a worker.

    Raises:
        OSError: the parent has ended, or there is no memory.
        ValueError: the pixels are in ordinary memory.
    """
    if packed.memory is None:
        raise ValueError("the batch is not in shared memory")
    shapes = [array.shape for pixels in packed.pixels for array in pixels]
    rest = replace(packed, pixels=[], memory=None)
    body = memoryview(pickle.dumps((shapes, rest), pickle.HIGHEST_PROTOCOL))
    fd, start = packed.memory.fileno(), memory_size(shapes)
    done = 0
    while done < len(body):
        done += os.pwrite(fd, body[done:], start + done)
    socket.send_fds(channel, [_HEADER.pack(_Kind.BATCH, start, len(body))], [fd])


def send_end(channel: socket.socket) -> None:
    """Say over `channel` that the worker's stream has ended."""
    channel.sendall(_HEADER.pack(_Kind.END, 0, 0))


def send_error(channel: socket.socket, error: WorkerError) -> None:
    """Say over `channel` that the worker has failed with `error`; no batch follows."""
    text = error.message.encode("utf-8", "backslashreplace")[-_MAX_TEXT_BYTES:]
    channel.sendall(_HEADER.pack(_Kind.BUG if error.is_bug else _Kind.USER_ERROR, 0, len(text)) + text)


def receive(channel: socket.socket) -> PackedBatch | WorkerError | None:
    """The answer of a worker; None = its stream has ended.

    Args:
        channel: the parent's end of the socket.

    Raises:
        ChannelClosedError: the worker has ended without an answer.
        FailedRunError: this process cannot open the batch.
        OSError: the batch cannot be mapped, for another reason than a limit of the machine.
    """
    try:
        header, fds, _, _ = socket.recv_fds(channel, _HEADER.size, 1)
        header += _receive_exactly(channel, _HEADER.size - len(header))
        kind, start, length = _HEADER.unpack(header)
        if kind == _Kind.END:
            return None
        if kind != _Kind.BATCH:
            text = _receive_exactly(channel, length).decode("utf-8", "replace")
            return WorkerError(text, is_bug=kind == _Kind.BUG)
    except ConnectionError:
        raise ChannelClosedError from None
    if not fds:  # the kernel drops a descriptor for which there is no room
        raise FailedRunError(describe_resource_error(OSError(errno.EMFILE, "")) or "")
    try:
        return _open_batch(fds[0], start, length)
    except OSError as why:
        if (sentence := describe_resource_error(why)) is None:
            raise
        raise FailedRunError(sentence) from None
    finally:
        os.close(fds[0])


def _open_batch(fd: int, start: int, length: int) -> PackedBatch:
    body = bytearray()
    while len(body) < length:
        body += os.pread(fd, length - len(body), start + len(body))
    content: tuple[list[tuple[int, ...]], PackedBatch] = pickle.loads(body)  # noqa: S301 - of our own process
    shapes, packed = content
    packed.pixels = split_pixels(map_arrays(fd, shapes))
    return packed


def _receive_exactly(channel: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        more = channel.recv(size - len(found))
        if not more:
            raise ChannelClosedError
        found += more
    return bytes(found)


def describe_resource_error(why: BaseException) -> str | None:
    """The sentence for `why`, if a reader reached a limit of this machine; None = the error has another cause."""
    number: Any = why.errno if isinstance(why, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"the readers have no file descriptor left (the limit of a process is {limit}); raise it with ulimit -n, "
            "or lower dataloader.num_workers"
        )
    if number == errno.EAGAIN:
        return (
            "no more reader processes can be started; raise the limit of processes (ulimit -u), or lower "
            "dataloader.num_workers"
        )
    if number in (errno.ENOMEM, errno.ENOSPC) or isinstance(why, MemoryError):
        return "the readers have no memory left; lower dataloader.num_workers, dataloader.cache_mib or the batch size"
    return None
