"""Smaller batches after an out-of-memory error, and turns at a device."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from synthgen.oom import OomBatcher

#: As PyTorch's allocator of main memory says it, which raises no error of its own kind.
OF_THE_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


def test_one_at_a_time():
    """Two batches are under way at once; on the device there is one."""
    portions, within, most = OomBatcher(4, 4), 0, 0
    both = threading.Barrier(2)

    def run(items: list[int]) -> list[int]:
        nonlocal within, most
        within += 1
        most = max(most, within)
        threading.Event().wait(0.05)
        within -= 1
        return items

    def ask(number: int) -> list[int]:
        both.wait(timeout=10)
        return portions.run(run, [number])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == [[0], [1]]
    assert most == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), OF_THE_CPU], ids=["gpu", "cpu"])
def test_fewer_images_then_fewer_boxes_where_memory_runs_out(error):
    portions, asked = OomBatcher(4, 8), []

    def run(items: list[int]) -> list[int]:
        asked.append((len(items), portions.max_boxes))
        if len(items) * portions.max_boxes > 2:
            raise error
        return [-item for item in items]

    assert portions.run(run, [1, 2, 3]) == [-1, -2, -3]
    assert (portions.max_images, portions.max_boxes) == (1, 2)
    assert asked == [(3, 8), (1, 8), (1, 4), (1, 2), (2, 2), (1, 2), (1, 2)]


def test_what_asks_for_too_much_by_itself_is_raised():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        torch.empty(2**60, dtype=torch.uint8)  # the words are still PyTorch's
    portions = OomBatcher(1, 1)
    for error in (OF_THE_CPU, torch.OutOfMemoryError("CUDA out of memory")):

        def run(_: list[int], error: RuntimeError = error) -> list[int]:
            raise error

        with pytest.raises(RuntimeError) as told:
            portions.run(run, [1])
        assert told.value is error


def test_other_errors_are_no_lack_of_memory():
    portions = OomBatcher(4, 8)

    def run(_: list[int]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        portions.run(run, [1, 2])
    assert (portions.max_images, portions.max_boxes) == (4, 8)
