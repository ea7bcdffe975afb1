"""Out of memory on a device: batches halve themselves, and errors say what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch

from synthgen.errors import BrokenWorkerError, SynthgenError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class OomBatcher:
    """Runs forward passes with a lock on the device, and with smaller batches after it ran out of memory.

    Attributes:
        max_images, max_boxes: how many are processed at once.
    """

    max_images: int
    max_boxes: int

    def __post_init__(self) -> None:
        self._lock = Lock()

    def run(self, forward: Callable[[list[T]], list[R]], items: list[T]) -> list[R]:
        """Return `forward(items)` with the device locked, one item per image. `forward` reads `max_boxes` at each call.

        Args:
            forward: the network's pass over some items; it returns one result for each.
            items: one for each image.

        Raises:
            BrokenWorkerError: the device is lost; every later call would fail as well.
        """
        with self._lock, _explain_lost_device():
            return self._run_halving(forward, items)

    def _run_halving(self, forward: Callable[[list[T]], list[R]], items: list[T]) -> list[R]:
        """After OOM, halve the number of images, then the number of boxes. The smaller numbers stay."""
        try:
            return forward(items)
        except RuntimeError as why:  # the allocator of a CPU raises RuntimeError, too
            if not _is_out_of_memory(why) or (len(items) <= 1 and self.max_boxes == 1):
                raise
        torch.cuda.empty_cache()  # outside the handler, whose exception keeps the tensors of its frames alive
        if len(items) <= 1:
            self.max_boxes = max(1, self.max_boxes // 2)
            log.warning("out of memory: going on with %d boxes at once", self.max_boxes)
            return self._run_halving(forward, items)
        half = len(items) // 2
        self.max_images = max(1, min(self.max_images, half))
        log.warning("out of memory: going on with %d images at once", self.max_images)
        return self._run_halving(forward, items[:half]) + self._run_halving(forward, items[half:])


def _is_out_of_memory(why: RuntimeError) -> bool:
    return isinstance(why, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(why)


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of a device into a `SynthgenError`.

    Args:
        remedy: what the user can do.

    Raises:
        SynthgenError: with the remedy.
    """
    try:
        yield
    except RuntimeError as why:
        if not _is_out_of_memory(why):
            raise
        raise SynthgenError(f"the device's memory is too small ({str(why).splitlines()[0][:200]}); {remedy}") from None


@contextmanager
def _explain_lost_device() -> Iterator[None]:
    try:
        yield
    except torch.AcceleratorError as why:
        raise BrokenWorkerError(
            f"the GPU failed ({str(why).splitlines()[0]}); look at `nvidia-smi`, and run the same command again: what "
            "is committed stays"
        ) from why
