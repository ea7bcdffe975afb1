"""Threads that run the batches of a plugin: daemons, so that a plugin that hangs does not keep a process alive.

Nothing can stop a thread. A batch that is not done in time breaks its worker, and another worker goes on. Native code
that keeps Python's lock (the GIL) stops all threads of its process; then only `--timeout` or SIGKILL ends the process.
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import BrokenWorkerError
from synthgen.generate.output_checks import PluginError
from synthgen.records.sample import Sample

#: (row in the shard, sample, pixels) each.
Batch = list[tuple[int, Sample, NDArray[np.uint8]]]

#: Beside twice the timeout: seconds after which a process whose Python does not run any more is ended.
_GRACE_SECONDS = 5.0

#: Seconds between two restarts of the countdown.
_HEARTBEAT_SECONDS = 1.0

#: Name of the threads.
_THREAD_NAME = "batch"


class StartedBatch(NamedTuple):
    """A batch on its thread, and its result."""

    batch: Batch
    future: Future[list[Sample]]


class BatchTimeoutError(BrokenWorkerError):
    """A plugin hangs, and may hold its device. Another worker can go on.

    Attributes:
        rows: rows in the shard of the images that it was given and has not answered.

    Args:
        message: names the plugin, the time and the images.
        rows: becomes the attribute.
    """

    def __init__(self, message: str, rows: tuple[int, ...]) -> None:
        super().__init__(message, rows)  # pickle calls __init__ with these
        self.rows = rows

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class HungRows:
    """Rows of a shard over which earlier workers hung.

    Attributes:
        suspected: images of batches that hung; each is run alone.
        proven: images that hung alone; they are not run again, but recorded as failed.
        hangs: how often a worker hung over this shard.
    """

    suspected: frozenset[int] = frozenset()
    proven: frozenset[int] = frozenset()
    hangs: int = 0

    def after(self, error: BatchTimeoutError) -> HungRows:
        """What is known after one more worker hung, with `error`."""
        rows = frozenset(error.rows)
        proven = self.proven | rows if len(rows) == 1 and rows <= self.suspected else self.proven
        return HungRows((self.suspected | rows) - proven, proven, self.hangs + 1)


NONE_HUNG = HungRows()


class _Watchdog:
    """Ends the process with exit code 1 and a traceback of all threads, if batches run and Python runs nothing else.

    Native code that keeps Python's lock (the GIL) also keeps `wait_for_batch` from seeing that the time is over. A
    thread that restarts the countdown every few seconds shows that Python runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Future[list[Sample]]] = set()
        self._seconds = 0.0
        self._has_heartbeat = False

    def watch(self, future: Future[list[Sample]], timeout: float) -> None:
        """Begin to watch a batch."""
        with self._lock:
            self._running.add(future)
            self._seconds = 2 * timeout + _GRACE_SECONDS
            self._restart()
            if not self._has_heartbeat:
                threading.Thread(target=self._beat, name="batch heartbeat", daemon=True).start()
                self._has_heartbeat = True
        future.add_done_callback(self.forget)

    def forget(self, *futures: Future[list[Sample]]) -> None:
        """Watch these batches no more: they are done, or given up."""
        with self._lock:
            self._running.difference_update(futures)
            self._restart()

    def _beat(self) -> None:
        while True:
            time.sleep(_HEARTBEAT_SECONDS)
            with self._lock:
                self._restart()
                if not self._running:
                    self._has_heartbeat = False
                    return

    def _restart(self) -> None:
        if self._running:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)  # a native thread without the lock
        else:
            faulthandler.cancel_dump_traceback_later()


_watchdog = _Watchdog()


def start_batch(process: Callable[[Batch], list[Sample]], batch: Batch, timeout: float | None) -> StartedBatch:
    """Run a batch on a thread of its own.

    An exception that would end the program (SystemExit and the like) becomes a `PluginError`. KeyboardInterrupt stays.

    Args:
        process: the stage's work on a batch; called on the new thread.
        batch: samples and their pixels.
        timeout: seconds that a batch may take; None = any time.
    """
    started = StartedBatch(batch, Future())
    if timeout is not None:  # before the thread starts: a plugin that keeps the GIL would never let us do it after
        _watchdog.watch(started.future, timeout)
    threading.Thread(target=_run, args=(process, started), name=_THREAD_NAME, daemon=True).start()
    return started


def _run(process: Callable[[Batch], list[Sample]], started: StartedBatch) -> None:
    batch, future = started
    try:
        future.set_result(process(batch))
    except (Exception, KeyboardInterrupt) as why:
        future.set_exception(why)
    except BaseException as why:
        ended = PluginError(f"it raised {type(why).__name__}{f': {why}' if str(why) else ''}")
        ended.__cause__ = why
        future.set_exception(ended)
    del future, started  # the exception refers to this frame: a cycle would keep its tensors


def wait_for_batch(
    started: StartedBatch, others: Sequence[StartedBatch], plugin: str, timeout: float | None
) -> list[Sample]:
    """The results of a batch; `others` are in flight beside it.

    Args:
        started: the batch whose results are wanted.
        others: batches in flight beside it.
        plugin: name of the plugin, for the message.
        timeout: seconds; None = wait without end.

    Raises:
        BatchTimeoutError: for `timeout` seconds none of them was done. One may hold the device that another waits for,
            so that all that are not done are suspected.
    """
    while not started.future.done():
        running = [started, *(own for own in others if not own.future.done())]
        wait([own.future for own in running], timeout, FIRST_COMPLETED)
        if not any(own.future.done() for own in running):
            _watchdog.forget(*(own.future for own in running))
            names = {i: sample.file_name for own in running for i, sample, _ in own.batch}
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            message = f"{plugin} {describe_timeout(timeout)} for {next(iter(names.values()))}{more}"
            raise BatchTimeoutError(message, tuple(names))
    return started.future.result()


def describe_timeout(timeout: float | None) -> str:
    """What a plugin did that hangs, with its `timeout` in seconds."""
    return f"did not answer within {timeout or 0:g} s"


def is_batch_running() -> bool:
    """Whether any batch is running in this process, or hangs."""
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())
