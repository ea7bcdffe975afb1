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

from synthgen.dataloading.collate import Packed
from synthgen.dataloading.transforms import use_one_thread
from synthgen.errors import SynthgenError

_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited)")


@dataclass(frozen=True, slots=True)
class _Refused:
    """What a reader sends in place of a batch where it cannot go on, for a reason that the user can mend."""

    sentence: str


class Stream(IterableDataset[Packed | _Refused]):
    """What is read. `batches` is called in each reader process, which are numbered from 0 on."""

    def batches(self, worker: int) -> Iterator[Packed]:
        """The batches of one of the readers."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Packed | _Refused]:
        info = get_worker_info()
        try:
            yield from self.batches(info.id if info is not None else 0)
        except SynthgenError as why:
            yield _Refused(str(why))


class Readers:
    """The batches of a stream, from each reader one by turns.

    Args:
        workers: processes; 0 = none, the stream is read here.
        pin_memory: batches come unpacked, in page-locked memory.
        prefetch: batches that each process makes ahead.
    """

    def __init__(self, stream: Stream, *, workers: int, pin_memory: bool = False, prefetch: int = 2) -> None:
        loader: DataLoader[Packed | _Refused] = DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            prefetch_factor=prefetch if workers else None,
            worker_init_fn=_begin,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # or it would draw from the training's own
        )
        self._batches: Any = iter(loader)

    def __iter__(self) -> Iterator[Packed]:
        return self

    def __next__(self) -> Packed:
        """The next batch.

        Raises:
            StopIteration: the stream is at its end.
            SynthgenError: a reader cannot go on, or was killed.
        """
        try:
            packed: Packed | _Refused = next(self._batches)
        except (RuntimeError, EOFError, OSError) as why:  # the last two where it died between two parts of a batch
            sentence = killed(why) or self._dead()
            if sentence is None:
                raise
            self.close()
            raise SynthgenError(sentence) from None
        if isinstance(packed, _Refused):
            self.close()
            raise SynthgenError(packed.sentence)
        return packed

    def close(self) -> None:
        """End the processes, and wait for that."""
        batches, self._batches = self._batches, iter(())
        if not hasattr(batches, "_shutdown_workers"):
            return
        try:
            batches._shutdown_workers()  # its own end comes with the last reference to it: too late
        except RuntimeError as why:
            if killed(why) is None:
                raise
            for worker in batches._workers:  # word of one that was killed came between
                worker.kill()
                worker.join()

    def _dead(self) -> str | None:
        """The sentence for a reader that was killed; None = none was. That may be known a moment later than felt."""
        try:
            for _ in range(20):
                for worker in getattr(self._batches, "_workers", ()):
                    if worker.exitcode not in (None, 0):
                        return _sentence(str(worker.pid), signal.strsignal(max(0, -worker.exitcode)) or "")
                time.sleep(0.05)
        except RuntimeError as why:
            return killed(why)
        return None


def killed(why: BaseException | None) -> str | None:
    """The sentence for the death of a reader, as torch tells it; None = it tells something else.

    Torch notices such a death wherever its host stands in its work, not only where a batch is asked for.
    """
    found = _DIED.search(str(why)) if isinstance(why, RuntimeError) else None
    return _sentence(found[1], (found[2] or "").strip()) if found else None


def _sentence(pid: str, by: str) -> str:
    who = f"the reader process {pid}"
    if by.startswith("Bus"):
        return f"{who} ran out of shared memory; enlarge /dev/shm (docker run --shm-size 16g), or lower readers.workers"
    how = f" ({by})" if by else ""
    return (
        f"{who} died{how}, most likely for want of memory; lower readers.workers, readers.cache_mib or the batch size"
    )


def _begin(worker: int) -> None:  # noqa: ARG001 - so torch calls it
    # Both come to all processes of a terminal, or of a job: the host decides, and ends its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on a Mac
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed_the_host, daemon=True).start()
    use_one_thread()
    sys.excepthook = _told


def _heed_the_host() -> None:
    """End the process at a SIGTERM that the host sent."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _told(kind: type[BaseException], why: BaseException, trace: TracebackType | None) -> None:
    """A host that left in the middle of a batch is no news to it."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, why, trace)


def _as_it_is(sent: Any) -> Any:
    return sent
