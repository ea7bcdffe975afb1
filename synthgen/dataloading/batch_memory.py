"""The memory of batches: anonymous and shared, so that a worker process can send a batch as one file descriptor.

It has no name in any folder. So a long TMPDIR or a small /dev/shm does not matter, and a killed process leaves nothing.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import IO

import numpy as np
from numpy.typing import NDArray

#: Arrays start at multiples of this many bytes.
_ALIGNMENT = 64

_is_shared = False


def share_batches() -> None:
    """Allocate the batches of this process in shared memory from now on; a worker process calls it."""
    global _is_shared  # noqa: PLW0603 - a property of the process, like torch's `get_worker_info`
    _is_shared = True


def allocate(shapes: Sequence[tuple[int, ...]]) -> tuple[list[NDArray[np.uint8]], IO[bytes] | None]:
    """Zeroed uint8 arrays of these shapes, and the memory file that holds them; None = ordinary memory.

    Args:
        shapes: one for each array.

    Raises:
        OSError: no memory or no file descriptor is left.
    """
    if not _is_shared:
        return [np.zeros(shape, np.uint8) for shape in shapes], None
    file = _open_memory()
    if size := memory_size(shapes):
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # memory that is missing is an error here, not SIGBUS later
        else:
            file.truncate(size)
    return map_arrays(file.fileno(), shapes), file


def map_arrays(fd: int, shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.uint8]]:
    """The arrays of a memory file. They keep the memory; the file may be closed.

    Args:
        fd: the descriptor of the memory file.
        shapes: the shape of each uint8 array, in the order of the file.
    """
    if not (size := memory_size(shapes)):
        return [np.zeros(shape, np.uint8) for shape in shapes]
    content = np.frombuffer(mmap.mmap(fd, size), np.uint8)
    starts = accumulate(map(_aligned_size, shapes), initial=0)
    return [content[start : start + prod(shape)].reshape(shape) for start, shape in zip(starts, shapes, strict=False)]


def memory_size(shapes: Sequence[tuple[int, ...]]) -> int:
    """Bytes of uint8 arrays of these `shapes` in a memory file."""
    return sum(map(_aligned_size, shapes))


def _aligned_size(shape: tuple[int, ...]) -> int:
    return -(-prod(shape) // _ALIGNMENT) * _ALIGNMENT


def _open_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # not on macOS
        return os.fdopen(os.memfd_create("synthgen-batch"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
