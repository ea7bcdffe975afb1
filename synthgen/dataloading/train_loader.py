"""The endless stream of batches that a training process takes, and how it goes on exactly where it was broken off.

A `Loader` can be broken off after any batch. Its `state()` is all that a later process needs to go on with the very
next one: each batch carries where its reader was behind it, and readers take turns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from operator import index
from types import TracebackType
from typing import Any, Self

from synthgen.dataloading.collate import Batch, Packed, pack, unpack
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.mixture import Mixture, Plan, planned
from synthgen.dataloading.sample_stats import Seen
from synthgen.dataloading.worker_processes import Readers, Stream, killed
from synthgen.errors import SynthgenError

STATE_VERSION = 1


class Loader:
    """The batches of one training process, endlessly. Closed, it gives its processes back, and can still go on.

    Args:
        rank, world: which training process this is, of how many.
        batch_size: images a batch.
        workers: reader processes of this one; 0 = it reads itself.
        state: an earlier `state()`, of several training processes `joined`.
        plan: what `planned(manifest)` gave, if that is known.
        pin_memory: batches lie in page-locked memory.
        prefetch: batches that each reader makes ahead.

    Attributes:
        seen: what was in the batches that were taken, those before the state included.

    Raises:
        SynthgenError: see `planned`; the state is of other code, or of other training processes.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        rank: int = 0,
        world: int = 1,
        batch_size: int,
        workers: int,
        state: Mapping[str, Any] | None = None,
        plan: Plan | None = None,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        self._manifest, self._plan = manifest, plan or planned(manifest)
        self._rank, self._world, self._batch_size = rank, world, batch_size
        self._workers, self._pin, self._prefetch = workers, pin_memory, prefetch
        own = max(1, workers)
        self._own = range(rank * own, rank * own + own)
        self._positions: dict[int, dict[str, Any] | None] = dict.fromkeys(self._own)
        self._batches = 0
        self.seen = Seen([f"{source.shards} {source.task}" for source in manifest.mixture])
        self._readers: Readers | None = None
        if state is not None:
            self._resume(state)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            SynthgenError: a source has nothing to give, or a reader was killed.
        """
        if self._readers is None:
            turns = [self._own[(self._batches + i) % len(self._own)] for i in range(len(self._own))]
            stream = _Mixed(
                self._manifest,
                self._plan,
                batch_size=self._batch_size,
                turns=turns,
                readers=len(self._own) * self._world,
                positions=dict(self._positions),
            )
            self._readers = Readers(stream, workers=self._workers, pin_memory=self._pin, prefetch=self._prefetch)
        packed = next(self._readers)
        self._positions[packed.reader] = packed.position
        self._batches += 1
        self.seen.add(packed.seen)
        return packed.batch or unpack(packed)

    def state(self) -> dict[str, Any]:
        """Where this loader is, as plain JSON; several training processes' are to be `joined`."""
        fresh = {"draws": 0, "sources": [[0, 0, 0] for _ in self._manifest.mixture]}
        return {
            **self._identity(),
            "batches": self._batches,
            "positions": {str(reader): position or fresh for reader, position in self._positions.items()},
            "seen": {str(self._rank): self.seen.state()},
        }

    def close(self) -> None:
        """End the reader processes. What they have made ahead is made again by the next ones."""
        if self._readers is not None:
            self._readers.close()
            self._readers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if (sentence := killed(why)) is not None:
            raise SynthgenError(sentence) from None

    def _identity(self) -> dict[str, Any]:
        """What must be the same if a stream is to go on exactly."""
        return {
            "version": STATE_VERSION,
            "seed": self._manifest.seed,
            "sources": [[name, taken.rows] for name, taken in zip(self.seen.sources, self._plan.taken, strict=True)],
            "readers": len(self._own) * self._world,
        }

    def _resume(self, state: Mapping[str, Any]) -> None:
        if state.get("version") != STATE_VERSION:
            raise SynthgenError(
                f"the checkpoint's place in the data is of version {state.get('version')}, this synthgen reads "
                f"{STATE_VERSION}; resume with the version that wrote it"
            )
        try:
            count = len(state["sources"])
            self._go_on(state, {key: _place(place, count) for key, place in state["positions"].items()})
        except (KeyError, ValueError, TypeError, AttributeError):
            raise SynthgenError(
                "the checkpoint's place in the data is damaged; delete that checkpoint, and the one before it is taken"
            ) from None

    def _go_on(self, state: Mapping[str, Any], positions: dict[str, dict[str, Any]]) -> None:
        now = self._identity()
        if [name for name, _ in state["sources"]] == list(self.seen.sources):
            for rank, seen in state["seen"].items():
                if int(rank) == self._rank or (self._rank == 0 and int(rank) >= self._world):
                    self.seen.add(seen)
        different = [name for name in ("seed", "sources", "readers") if state[name] != now[name]]
        if not different:
            if missing := [reader for reader in self._own if str(reader) not in positions]:
                raise SynthgenError(
                    f"the state has no place for reader {missing[0]}; join the states of all training processes"
                )
            self._batches = index(state["batches"])
            self._positions = {reader: positions[str(reader)] for reader in self._own}
            return
        epoch = 1 + max(epoch for place in positions.values() for epoch, *_ in place["sources"])
        draws = max(place["draws"] for place in positions.values())
        start = {"draws": draws, "sources": [[epoch, 0, 0] for _ in self._manifest.mixture]}
        self._positions = dict.fromkeys(self._own, start)
        changes = ", ".join(
            f"{name} {state[name]} then and {now[name]} now" if name != "sources" else "other sources"
            for name in different
        )
        logging.getLogger(__name__).warning(
            "not resumed where it stopped (%s): every source starts its next epoch, %d", changes, epoch
        )


def joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of all training processes as one, from which each of them can be resumed."""
    return {
        **states[0],
        "positions": {reader: place for state in states for reader, place in state["positions"].items()},
        "seen": {rank: seen for state in states for rank, seen in state["seen"].items()},
    }


def _place(said: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Where a reader of so many sources was: `mixture.Mixture.state`.

    Raises:
        KeyError, TypeError, ValueError: that is no such place.
    """
    sources = [[index(number) for number in at] for at in said["sources"]]
    if [len(at) for at in sources] != [3] * count:
        raise ValueError("a place has three numbers")
    return {"draws": index(said["draws"]), "sources": sources}


class _Mixed(Stream):
    """What the readers of a training process do.

    Args:
        turns: its readers, in the order in which they come next.
        readers: how many there are in all training processes.
        positions: where each of them is; None = at the beginning.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        *,
        batch_size: int,
        turns: Sequence[int],
        readers: int,
        positions: Mapping[int, dict[str, Any] | None],
    ) -> None:
        self._manifest, self._plan, self._batch_size = manifest, plan, batch_size
        self._turns, self._readers, self._positions = turns, readers, positions

    def batches(self, worker: int) -> Iterator[Packed]:
        """Endless."""
        reader = self._turns[worker]
        mixture = Mixture(
            self._manifest, reader=reader, readers=self._readers, state=self._positions[reader], plan=self._plan
        )
        while True:
            yield self._batch(mixture, reader)  # and no name keeps it in memory while the next one is made

    def _batch(self, mixture: Mixture, reader: int) -> Packed:
        packed = pack([next(mixture) for _ in range(self._batch_size)])
        packed.reader, packed.position, packed.seen = reader, mixture.state(), mixture.seen.take()
        return packed
