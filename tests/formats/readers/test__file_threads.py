"""Reading on threads: the order of the items, few results in memory, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from synthgen.formats.readers._file_threads import map_in_order


def test_results_are_in_the_order_of_the_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(map_in_order(slow_first, range(50))) == [number * number for number in range(50)]
    assert list(map_in_order(slow_first, [])) == []


def test_only_some_results_are_waiting() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_order(lambda number: number, items(), ahead=5)
    assert next(results) == 0 and len(taken) == 5
    results.close()
    assert len(taken) == 5


def test_an_error_reaches_the_caller_and_the_threads_end() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    before = threading.active_count()
    with pytest.raises(ValueError, match="three"):
        list(map_in_order(fail, range(10)))
    assert threading.active_count() == before
