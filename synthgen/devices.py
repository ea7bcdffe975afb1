"""Devices, precision and batch sizes that adapt to the memory (OOM); shared by all models."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch

from synthgen.errors import BrokenWorkerError, SynthgenError, did_you_mean

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check_device_options(device: str, precision: str, batch_size: str | int) -> None:
    """Check the options that can be checked when a job starts, on a machine that may lack the device.

    Raises:
        SynthgenError: with the flag and what it should be.
    """
    check_choice("--precision", precision, PRECISIONS)
    if batch_size != "auto" and not re.fullmatch(r"[1-9]\d{0,5}", str(batch_size)):
        raise SynthgenError(f"--batch-size {batch_size} should be a number of images, or auto")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", device):
        raise SynthgenError(f"--device {device} should be auto, cpu, cuda, cuda:1, ... or mps")


def check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        SynthgenError: with the choices.
    """
    names = list(choices)
    if value not in names:
        raise SynthgenError(f"{flag} {value} should be {' or '.join(names)}{did_you_mean(value, names)}")


def resolve_device(name: str) -> torch.device:
    """The device of `--device`; "auto" = the first CUDA device, else the CPU.

    Raises:
        SynthgenError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    device = torch.device(name)
    if not there or (kind == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise SynthgenError(
            f"--device {name}: PyTorch sees no such device here; `nvidia-smi` should list it, or say cpu"
        )
    return device


def free_memory_gib(device: torch.device) -> float:
    """Free memory of a CUDA device in GiB; 0 for other devices, whose batch size does not depend on it."""
    return float(torch.cuda.mem_get_info(device)[0]) / 2**30 if device.type == "cuda" else 0.0


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
            if not _is_oom(why) or (len(items) <= 1 and self.max_boxes == 1):
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


def _is_oom(why: RuntimeError) -> bool:
    return isinstance(why, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(why)


@contextmanager
def explain_oom(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of a device into a `SynthgenError`.

    Raises:
        SynthgenError: with the remedy.
    """
    try:
        yield
    except RuntimeError as why:
        if not _is_oom(why):
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
