"""A cache with a total cost, for threads and forked processes."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from synthgen.images.stat_cache import StatCache, file_state


def test_the_last_used_values_are_kept_up_to_a_cost() -> None:
    cache: StatCache[str] = StatCache(5, len)
    made: list[str] = []

    def get(key: str) -> str:
        return cache.get(key, lambda: made.append(key) or key)

    for key in ("aa", "bb", "aa", "cc", "aa", "bb", "too long", "too long"):
        assert get(key) == key
    assert made == ["aa", "bb", "cc", "bb", "too long", "too long"]


def test_threads_wait_for_one_that_makes_their_value() -> None:
    cache: StatCache[str] = StatCache(100, len)
    made: list[str] = []

    def make() -> str:
        time.sleep(0.02)
        made.append("x")
        return "value"

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: cache.get("key", make), range(16))) == {"value"}
    assert made == ["x"]
    assert cache.get("outer", lambda: cache.get("inner", lambda: "in") + "side") == "inside"


def test_a_file_that_is_written_or_replaced_has_another_state(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a")
    first = file_state(path)
    assert file_state(path) == first
    os.utime(path, ns=(1, 1))
    second = file_state(path)
    path.write_bytes(b"ab")
    os.utime(path, ns=(1, 1))
    assert len({first, second, file_state(path)}) == 3


def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    cache: StatCache[str] = StatCache(10, len)
    cache.get("a", lambda: "kept")
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._lock, cache._making:
            locked.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get("a", lambda: "anew") + cache.get("b", lambda: "b") == "keptb" else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0
