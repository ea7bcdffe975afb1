"""The processes that train one network: alone, under torchrun, or under Ray Train; who is the first of them speaks."""

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
from synthgen.errors import SynthgenError

T = TypeVar("T")

#: Seconds that processes wait for each other, as when the first of them evaluates.
COLLECTIVE_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """Which of `world_size` processes this is, and where it computes."""

    rank: int
    world_size: int
    device: torch.device

    def all_gather(self, value: T) -> list[T]:
        """What every process says, by rank; picklable, and the same moment in all of them."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        distributed.all_gather_object(found, value)
        return found

    def all_reduce_sum(self, number: float) -> float:
        """The sum over all processes."""
        if self.world_size == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self._collective_device())
        distributed.all_reduce(total)
        return float(total)

    def all_reduce_mean(self, numbers: Tensor) -> list[float]:
        """The means over all processes of some numbers, [n]; their device is waited for once."""
        if self.world_size > 1:
            numbers = numbers.to(self._collective_device(), copy=True)
            distributed.all_reduce(numbers)
            numbers /= self.world_size
        return [float(number) for number in numbers.tolist()]

    def on_rank0(self, action: Callable[[], T]) -> T:
        """What the first process finds, in all of them.

        Raises:
            SynthgenError: what it was refused with; in the others SystemExit, as it has been said.
        """
        if self.world_size == 1:
            return action()
        found: list[Any] = [None, None]
        why: SynthgenError | None = None
        if self.rank == 0:
            try:
                found = [action(), None]
            except SynthgenError as refused:
                why, found = refused, [None, True]
        distributed.broadcast_object_list(found, src=0)
        if why is not None:
            raise why
        if found[1]:
            raise SystemExit(2)
        value: T = found[0]
        return value

    def raise_on_rank0(self, error: SynthgenError) -> BaseException:
        """What to raise where all processes have come upon the same: the first says it."""
        return error if self.rank == 0 else SystemExit(2)

    def _collective_device(self) -> torch.device:
        return self.device if distributed.get_backend() == "nccl" else torch.device("cpu")


@contextmanager
def join_process_group(device: str) -> Iterator[DistributedContext]:
    """Join the others, if there are any: those of torchrun by its environment, those of Ray Train as it joined them.

    Args:
        device: as `devices.resolve_device` takes it; under torchrun "auto" and "cuda" are each process's own GPU.

    Raises:
        SynthgenError: there is no such device here.
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
        shown_one = count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ  # its own, as some launchers do
        if local >= count and not shown_one:
            raise SynthgenError(
                f"process {local + 1} of this machine has no GPU, as it has {count}; say --nproc-per-node {count}"
            )
    _set_current_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    yield DistributedContext(distributed.get_rank(), distributed.get_world_size(), own)
    # Not after an error: NCCL takes leave of a group together, and the others may wait elsewhere for this one. If it
    # ends as it is, its sentence is said, and the launcher ends the others.
    distributed.destroy_process_group()


def _set_current_device(device: torch.device) -> torch.device:
    """The device, which is what "cuda" means from now on: else the first GPU would be asked for memory, too."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _local_device(device: str) -> torch.device:
    """The device of this process among those of its machine."""
    found = resolve_device(device)
    if found.type != "cuda" or ":" in device:
        return found
    # torchrun shows all GPUs to each process; whoever shows it one means that one.
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local if local < torch.cuda.device_count() else 0)
