"""The worker processes of the data loaders: a wrapper around torch's DataLoader that reports why a worker stopped.

Workers are forked if possible: they start at once and share the index. They use no threads of OpenCV or Arrow, so a
fork cannot inherit a held lock. They end with their parent, which alone handles Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from synthgen.dataloading.collate import PackedBatch
from synthgen.dataloading.transforms import disable_opencv_threads
from synthgen.errors import FailedRunError, SynthgenError, describe_exhaustion

_WORKER_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited)")


@dataclass(frozen=True, slots=True)
class _ReaderError:
    """Sent instead of a batch if a worker fails with an error that the user can fix."""

    message: str


class BatchStream(IterableDataset[PackedBatch | _ReaderError]):
    """A stream of batches. `iter_batches` runs in each worker process; workers are numbered from 0."""

    def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
        """The batches of one worker."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[PackedBatch | _ReaderError]:
        info = get_worker_info()
        try:
            yield from self.iter_batches(info.id if info is not None else 0)
        except SynthgenError as why:
            yield _ReaderError(str(why))
        except Exception as why:
            if (sentence := describe_exhaustion(why)) is None:
                raise
            yield _ReaderError(sentence)


class ReaderPool:
    """The batches of a stream, from the workers by turns.

    Args:
        num_workers: number of processes; 0 = read in this process.
        pin_memory: give unpacked batches in page-locked memory.
        prefetch_factor: batches that each process prefetches.
    """

    def __init__(
        self, stream: BatchStream, *, num_workers: int, pin_memory: bool = False, prefetch_factor: int = 2
    ) -> None:
        loader: DataLoader[PackedBatch | _ReaderError] = DataLoader(
            stream,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_identity_collate,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor if num_workers else None,
            worker_init_fn=_init_worker,
            multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # else it would use the training's generator
        )
        self._batches: Any = iter(loader)

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        """The next batch.

        Raises:
            StopIteration: the stream has ended.
            FailedRunError: a worker failed or was killed.
        """
        try:
            packed: PackedBatch | _ReaderError = next(self._batches)
        except (RuntimeError, EOFError, OSError) as why:  # EOFError, OSError: it died while sending a batch
            sentence = describe_worker_death(why) or self._describe_dead_worker()
            if sentence is None:
                raise
            self.close()
            raise FailedRunError(sentence) from None
        if isinstance(packed, _ReaderError):
            self.close()
            raise FailedRunError(packed.message)
        return packed

    def close(self) -> None:
        """Stop the processes and wait for them."""
        batches, self._batches = self._batches, iter(())
        if not hasattr(batches, "_shutdown_workers"):
            return
        try:
            batches._shutdown_workers()  # its finalizer would run too late
        except RuntimeError as why:
            if describe_worker_death(why) is None:
                raise
            for worker in batches._workers:  # a report of a killed one came first
                worker.kill()
                worker.join()

    def _describe_dead_worker(self) -> str | None:
        """The error message for a killed worker; None = none was killed. Waits a moment for the exit code."""
        try:
            for _ in range(20):
                for worker in getattr(self._batches, "_workers", ()):
                    if worker.exitcode not in (None, 0):
                        return _death_message(str(worker.pid), signal.strsignal(max(0, -worker.exitcode)) or "")
                time.sleep(0.05)
        except RuntimeError as why:
            return describe_worker_death(why)
        return None


def describe_worker_death(error: BaseException | None) -> str | None:
    """The error message for the death of a worker in torch's exception; None = another exception.

    torch raises it from a signal handler, anywhere in the parent, not only while it waits for a batch.
    """
    found = _WORKER_DIED.search(str(error)) if isinstance(error, RuntimeError) else None
    return _death_message(found[1], (found[2] or "").strip()) if found else None


def _death_message(pid: str, signal_name: str) -> str:
    who = f"the reader process {pid}"
    if signal_name.startswith("Bus"):
        return f"{who} ran out of shared memory; enlarge /dev/shm (docker run --shm-size 16g), or lower readers.workers"
    how = f" ({signal_name})" if signal_name else ""
    return (
        f"{who} died{how}, most likely for want of memory; lower readers.workers, readers.cache_mib or the batch size"
    )


def _init_worker(worker: int) -> None:  # noqa: ARG001 - so torch calls it
    # These signals reach all processes of a terminal or job. The parent handles them and stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parent_sigterm, daemon=True).start()
    disable_opencv_threads()
    sys.excepthook = _ignore_connection_errors


def _exit_on_parent_sigterm() -> None:
    """Exit at a SIGTERM from the parent."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _ignore_connection_errors(kind: type[BaseException], why: BaseException, trace: TracebackType | None) -> None:
    """Hide the traceback of a worker whose parent ended during a batch."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, why, trace)


def _identity_collate(sent: Any) -> Any:
    return sent
