"""Distributed training: process groups of torchrun or Ray Train, or a single process; rank 0 reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from synthgen.devices import resolve_device
from synthgen.errors import FailedRunError, SynthgenError

T = TypeVar("T")

#: Seconds that processes wait for each other, e.g. while rank 0 evaluates.
COLLECTIVE_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """Rank, number of processes and device of this process."""

    rank: int
    world_size: int
    device: torch.device

    def all_gather(self, value: T) -> list[T]:
        """Gather a picklable value from every process, ordered by rank. All processes must call it."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        distributed.all_gather_object(found, value)
        return found

    def all_reduce_sum(self, number: float) -> float:
        """The sum of `number` over all processes."""
        if self.world_size == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self._collective_device())
        distributed.all_reduce(total)
        return float(total)

    def all_reduce_mean(self, numbers: Tensor) -> list[float]:
        """The means of some numbers over all processes; synchronizes with the device once.

        Args:
            numbers: float [n], on any device.
        """
        if self.world_size > 1:
            numbers = numbers.to(self._collective_device(), copy=True)
            distributed.all_reduce(numbers)
            numbers /= self.world_size
        return [float(number) for number in numbers.tolist()]

    def on_rank0(self, action: Callable[[], T]) -> T:
        """Call a function on rank 0 and return its result in all processes.

        Args:
            action: its result must be picklable.

        Raises:
            SynthgenError: on rank 0, the error of the function. The other ranks raise SystemExit, because rank 0
                reports the error.
        """
        if self.world_size == 1:
            return action()
        found: list[Any] = [None, None]
        why: SynthgenError | None = None
        if self.rank == 0:
            try:
                found = [action(), None]
            except SynthgenError as refused:
                why, found = refused, [None, refused.exit_code]
        distributed.broadcast_object_list(found, src=0)
        if why is not None:
            raise why
        if found[1]:
            raise SystemExit(found[1])
        value: T = found[0]
        return value

    def raise_on_rank0(self, error: SynthgenError) -> BaseException:
        """The exception for an error of a job that occurs in all its processes, so that only rank 0 reports it."""
        return error if self.rank == 0 else SystemExit(FailedRunError.exit_code)

    def _collective_device(self) -> torch.device:
        return self.device if distributed.get_backend() == "nccl" else torch.device("cpu")


@contextmanager
def join_process_group(device: str) -> Iterator[DistributedContext]:
    """Join the process group of torchrun (from its environment) or of Ray Train (already initialized), if there is one.

    Args:
        device: see `devices.resolve_device`; under torchrun, "auto" and "cuda" mean the process's own GPU.

    Raises:
        SynthgenError: no such device on this machine.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield DistributedContext(
            distributed.get_rank(), distributed.get_world_size(), _set_current_device(_local_device(device))
        )
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield DistributedContext(0, 1, _set_current_device(resolve_device(device)))
        return
    own = _local_device(device)
    if own.type == "cuda":
        count, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
        if ":" in device:
            raise SynthgenError(f"--device {device} is one GPU, and several processes have one each; say cuda")
        shown_one = count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ  # some launchers set one GPU per process
        if local >= count and not shown_one:
            raise SynthgenError(
                f"process {local + 1} of this machine has no GPU, as it has {count}; say --nproc-per-node {count}"
            )
    _set_current_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    yield DistributedContext(distributed.get_rank(), distributed.get_world_size(), own)
    # Not after an error: destroying an NCCL group is collective, and other ranks may wait elsewhere. If this process
    # exits with its error message, the launcher stops the others.
    distributed.destroy_process_group()


def _set_current_device(device: torch.device) -> torch.device:
    """Make the device the current one, so that "cuda" means it. Otherwise the first GPU would be initialized too."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _local_device(device: str) -> torch.device:
    """The device of this process on its machine."""
    found = resolve_device(device)
    if found.type != "cuda" or ":" in device:
        return found
    # torchrun makes all GPUs visible to each process; with a single visible GPU, that one is meant.
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local if local < torch.cuda.device_count() else 0)
