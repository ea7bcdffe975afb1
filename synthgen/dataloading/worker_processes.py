"""The worker processes of the data loaders. Each death of one becomes a sentence, and no wait is without end.

Workers are forked if possible: they start at once and share the index. They use no threads of OpenCV or Arrow, so a
fork cannot inherit a held lock. They end with their parent, which alone handles Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.util  # its exit handler must be registered before ours, so that ours runs first
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import torch

from synthgen.dataloading import worker_channel as channels
from synthgen.dataloading.batch_memory import share_batches
from synthgen.dataloading.collate import PackedBatch
from synthgen.dataloading.transforms import disable_opencv_threads
from synthgen.dataloading.worker_channel import ChannelClosedError, WorkerError
from synthgen.errors import FailedRunError, SynthgenError, describe_exhaustion

log = logging.getLogger(__name__)

#: Seconds between two looks at a worker that does not answer, and until a warning names it.
_POLL_SECONDS, _WARNING_SECONDS = 0.5, 120.0

#: Seconds that a process which was told to end still waits for a batch.
STOP_GRACE_SECONDS = 5.0

#: Seconds until the exit code of a worker whose socket is closed is known.
_EXIT_SECONDS = 5.0

#: Regrouped batches that are unpacked ahead. Together they have about as many images as one batch of a worker.
_REGROUPED_AHEAD = 4

#: Signals that reach all processes of a terminal or job. The parent handles them and stops its workers.
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedWaitingError(Exception):
    """The process was told to end and no batch came."""


class BatchStream:
    """A stream of batches. `iter_batches` runs in each worker process; workers are numbered from 0."""

    def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
        """The batches of the worker with the index `worker_id`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    channel: socket.socket


class ReaderPool:
    """The batches of a stream, from the workers by turns.

    Args:
        stream: what each worker reads; copied into its process.
        num_workers: number of processes; 0 = read in this process.
        regroup: makes other batches of the workers' batches; None = they stay.
        pin_memory: give unpacked batches in page-locked memory.
        prefetch_factor: batches that each process prefetches.
        is_stopping: whether this process was told to end. Then it waits only `STOP_GRACE_SECONDS` for a batch.

    Raises:
        SynthgenError: the processes cannot be started.
    """

    def __init__(
        self,
        stream: BatchStream,
        *,
        num_workers: int,
        regroup: Callable[[Iterator[PackedBatch]], Iterator[PackedBatch]] | None = None,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        workers = _start_workers(stream, num_workers)
        stop, threads = threading.Event(), list[threading.Thread]()
        self._finalizer = weakref.finalize(self, _stop_workers, workers, stop, threads, os.getpid())
        self._finalizer.atexit = False  # `_close_pools` runs early enough
        _OPEN_POOLS.add(self)
        batches = _take_turns(workers, prefetch_factor, stop, is_stopping) if num_workers else stream.iter_batches(0)
        if regroup is not None:
            batches = regroup(batches)
        if pin_memory and num_workers:
            ahead = 1 if regroup is None else _REGROUPED_AHEAD
            batches = _unpack_ahead(batches, stop, threads, torch.cuda.current_device(), ahead)
        elif pin_memory:
            batches = (batch.pin_memory() for batch in batches)
        self._batches = batches

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        """The next batch.

        Raises:
            StopIteration: the stream has ended.
            FailedRunError: a worker failed or was killed.
            StoppedWaitingError: this process was told to end, and no batch came.
        """
        try:
            return next(self._batches)
        except BaseException:  # the end of the stream, too
            self.close()
            raise

    def close(self) -> None:
        """Stop the processes and wait for them."""
        self._batches = iter(())
        _OPEN_POOLS.discard(self)
        self._finalizer()


_OPEN_POOLS: weakref.WeakSet[ReaderPool] = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    """Stop the workers before multiprocessing waits for them without limit."""
    for pool in list(_OPEN_POOLS):
        pool.close()


def _start_workers(stream: BatchStream, count: int) -> list[_Worker]:
    context: BaseContext = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    workers: list[_Worker] = []
    try:
        for worker_id in range(count):
            own, theirs = socket.socketpair()
            # A fork also copies the parent's ends of other channels. They must be closed there, or the parent's end
            # would not close them.
            copies = [*(worker.channel for worker in workers), own] if context.get_start_method() == "fork" else []
            process = context.Process(  # type: ignore[attr-defined]
                target=_run_worker, args=(stream, worker_id, theirs, copies), daemon=True
            )
            # A signal must not arrive before the worker ignores it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                theirs.close()
            workers.append(_Worker(process, own))
    except BaseException as why:
        _stop_workers(workers, threading.Event(), (), os.getpid())
        if (sentence := channels.describe_resource_error(why)) is None:
            raise
        raise FailedRunError(sentence) from None
    return workers


def _stop_workers(
    workers: Sequence[_Worker], stop: threading.Event, threads: Sequence[threading.Thread], parent: int
) -> None:
    """Kill workers, which write nothing, and wait for them and for the threads that `stop` ends."""
    if os.getpid() != parent:  # a copy of the pool in a forked process
        return
    stop.set()
    for worker in workers:
        worker.process.kill()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()
    for worker in workers:
        worker.process.join()
        worker.channel.close()


def _take_turns(
    workers: Sequence[_Worker], prefetch_factor: int, stop: threading.Event, is_stopping: Callable[[], bool]
) -> Iterator[PackedBatch]:
    """The batches of the workers by turns. A worker whose stream has ended is left out."""
    for worker in workers:
        for _ in range(prefetch_factor):
            channels.request_batch(worker.channel)
    turns = deque(workers)
    while turns and not stop.is_set():
        worker = turns.popleft()
        answer = _receive(worker, stop, is_stopping)
        if answer is None:
            continue
        turns.append(worker)
        channels.request_batch(worker.channel)
        yield answer
        del answer  # no variable keeps it in memory while the next one is received


def _receive(worker: _Worker, stop: threading.Event, is_stopping: Callable[[], bool]) -> PackedBatch | None:
    """The next batch of a worker; None = its stream has ended."""
    began, told, warned = time.monotonic(), None, False
    while not wait([worker.channel], _POLL_SECONDS):
        now = time.monotonic()
        if stop.is_set():
            return None
        # The channel of a dead worker is closed, unless a process that it started holds a copy.
        if not worker.process.is_alive() and not wait([worker.channel], 0):
            raise FailedRunError(_describe_death(worker.process))
        if is_stopping():
            told = told or now
            if now - told > STOP_GRACE_SECONDS:
                raise StoppedWaitingError
        if not warned and now - began > _WARNING_SECONDS:
            warned = True
            log.warning("no batch for %d s; do the readers wait for their storage?", now - began)
    try:
        answer = channels.receive(worker.channel)
    except ChannelClosedError:
        if stop.is_set():
            return None
        raise FailedRunError(_describe_death(worker.process)) from None
    if isinstance(answer, WorkerError):
        if answer.is_bug:
            raise RuntimeError(f"a reader process failed:\n{answer.message}")
        raise FailedRunError(answer.message)
    return answer


def _describe_death(process: BaseProcess) -> str:
    """The error message for a worker that ended without a word."""
    process.join(_EXIT_SECONDS)
    code = process.exitcode
    how = ""
    if code is not None and code < 0:
        how = f" ({signal.strsignal(-code) or f'signal {-code}'})"
    elif code:
        how = f" (exit code {code})"
    return (
        f"the reader process {process.pid} died{how}, most likely for want of memory; lower dataloader.num_workers, "
        "dataloader.cache_mib or the batch size"
    )


def _unpack_ahead(
    batches: Iterator[PackedBatch],
    stop: threading.Event,
    threads: list[threading.Thread],
    cuda_device: int,
    ahead: int,
) -> Iterator[PackedBatch]:
    """The batches, unpacked by a thread into page-locked memory, `ahead` of them ahead. The thread is added to
    `threads`.
    """
    ready: queue.Queue[PackedBatch | BaseException | None] = queue.Queue(maxsize=ahead)

    def put(item: PackedBatch | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=_POLL_SECONDS)
                return

    def unpack() -> None:
        try:
            torch.cuda.set_device(cuda_device)  # else the thread would create a context on the first GPU
            for packed in batches:
                put(packed.pin_memory())
            put(None)
        except BaseException as why:
            put(why)

    thread = threading.Thread(target=unpack, name="pin-memory", daemon=True)
    threads.append(thread)
    thread.start()
    while not stop.is_set():
        try:
            item = ready.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue  # the thread always puts its end
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
        del item


def _run_worker(stream: BatchStream, worker_id: int, channel: socket.socket, copies: Sequence[socket.socket]) -> None:
    """The main function of a worker process."""
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    for copy in copies:
        copy.close()
    torch.set_num_threads(1)
    disable_opencv_threads()
    share_batches()
    with channel, contextlib.suppress(ConnectionError):  # the parent has ended
        try:
            batches = stream.iter_batches(worker_id)
            while channels.wait_for_request(channel):
                packed = next(batches, None)
                if packed is None:
                    channels.send_end(channel)
                    return
                channels.send_batch(channel, packed)
                del packed  # no variable keeps it in memory while the next one is made
        except ConnectionError:
            raise
        except BaseException as why:
            channels.send_error(channel, _describe_error(why))


def _describe_error(why: BaseException) -> WorkerError:
    if isinstance(why, SynthgenError):
        return WorkerError(str(why))
    if (sentence := channels.describe_resource_error(why) or describe_exhaustion(why)) is not None:
        return WorkerError(sentence)
    return WorkerError("".join(traceback.format_exception(why)), is_bug=True)
