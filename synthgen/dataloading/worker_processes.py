"""Reader processes: torch's DataLoader, kept behind one wall. They end with their host, and what stops one is told.

They are forked where that can be: a reader is there at once, and shares what was looked up. They use neither threads of
OpenCV nor of Arrow, so nothing of the host's can be locked in them. Ctrl-C and SIGTERM are the host's to hear.
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
from synthgen.errors import SynthgenError

_WORKER_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited)")


@dataclass(frozen=True, slots=True)
class _ReaderError:
    """What a reader sends in place of a batch where it cannot go on, for a reason that the user can mend."""

    message: str


class BatchStream(IterableDataset[PackedBatch | _ReaderError]):
    """What is read. `iter_batches` is called in each reader process, which are numbered from 0 on."""

    def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
        """The batches of one of the readers."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[PackedBatch | _ReaderError]:
        info = get_worker_info()
        try:
            yield from self.iter_batches(info.id if info is not None else 0)
        except SynthgenError as why:
            yield _ReaderError(str(why))


class ReaderPool:
    """The batches of a stream, from each reader one by turns.

    Args:
        workers: processes; 0 = none, the stream is read here.
        pin_memory: batches come unpacked, in page-locked memory.
        prefetch: batches that each process makes ahead.
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
            generator=torch.Generator(),  # or it would draw from the training's own
        )
        self._batches: Any = iter(loader)

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        """The next batch.

        Raises:
            StopIteration: the stream is at its end.
            SynthgenError: a reader cannot go on, or was killed.
        """
        try:
            packed: PackedBatch | _ReaderError = next(self._batches)
        except (RuntimeError, EOFError, OSError) as why:  # the last two where it died between two parts of a batch
            sentence = describe_worker_death(why) or self._describe_dead_worker()
            if sentence is None:
                raise
            self.close()
            raise SynthgenError(sentence) from None
        if isinstance(packed, _ReaderError):
            self.close()
            raise SynthgenError(packed.message)
        return packed

    def close(self) -> None:
        """End the processes, and wait for that."""
        batches, self._batches = self._batches, iter(())
        if not hasattr(batches, "_shutdown_workers"):
            return
        try:
            batches._shutdown_workers()  # its own end comes with the last reference to it: too late
        except RuntimeError as why:
            if describe_worker_death(why) is None:
                raise
            for worker in batches._workers:  # word of one that was killed came between
                worker.kill()
                worker.join()

    def _describe_dead_worker(self) -> str | None:
        """The sentence for a reader that was killed; None = none was. That may be known a moment later than felt."""
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
    """The sentence for the death of a reader, as torch tells it; None = it tells something else.

    Torch notices such a death wherever its host stands in its work, not only where a batch is asked for.
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
    # Both come to all processes of a terminal, or of a job: the host decides, and ends its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on a Mac
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parent_sigterm, daemon=True).start()
    disable_opencv_threads()
    sys.excepthook = _ignore_connection_errors


def _exit_on_parent_sigterm() -> None:
    """End the process at a SIGTERM that the host sent."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _ignore_connection_errors(kind: type[BaseException], why: BaseException, trace: TracebackType | None) -> None:
    """A host that left in the middle of a batch is no news to it."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, why, trace)


def _identity_collate(sent: Any) -> Any:
    return sent
