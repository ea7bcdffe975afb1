"""A cache of what was read from files, by their state; for threads and forked processes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")

#: Path, size in bytes, modification time in ns, inode.
FileState = tuple[str, int, int, int]


def file_state(path: Path) -> FileState:
    """The key of a file: it changes when the file is written or replaced.

    Args:
        path: an existing file.

    Raises:
        OSError: the file cannot be reached.
    """
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns, found.st_ino


class StatCache(Generic[T]):
    """The last used values by key, up to a total cost. One thread at a time makes a value; others wait for it.

    Args:
        max_cost: sum of the costs of all values that are kept.
        cost: cost of a value, such as its bytes.
    """

    def __init__(self, max_cost: int, cost: Callable[[T], int]) -> None:
        self._max_cost, self._cost = max_cost, cost
        self._values: OrderedDict[object, T] = OrderedDict()
        self._used = 0
        self._lock, self._making = threading.Lock(), threading.RLock()
        _caches.add(self)

    def get(self, key: object, make: Callable[[], T]) -> T:
        """The value of a key; `make` makes it if it is not there. A value above the total cost is not kept."""
        if (found := self._find(key)) is not None:
            return found
        with self._making:
            if (found := self._find(key)) is not None:  # made meanwhile
                return found
            value = make()
            self._keep(key, value)
            return value

    def renew_locks(self) -> None:
        """New locks: in a forked process, a thread that held an old one no longer exists. The values stay."""
        self._lock, self._making = threading.Lock(), threading.RLock()
        self._used = sum(map(self._cost, self._values.values()))

    def _find(self, key: object) -> T | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        return None

    def _keep(self, key: object, value: T) -> None:
        cost = self._cost(value)
        with self._lock:
            if key not in self._values and cost <= self._max_cost:
                self._values[key] = value
                self._used += cost
            while self._used > self._max_cost:
                self._used -= self._cost(self._values.popitem(last=False)[1])


_caches: WeakSet[StatCache[Any]] = WeakSet()


def _renew_locks() -> None:
    for cache in list(_caches):
        cache.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)
