"""The training loader: the endless stream of batches of one training process, with exact resume.

A `TrainLoader` can be stopped after any batch. Its `state_dict()` is all that a later process needs to continue with
the next batch: each batch carries the position of its reader, and readers take turns. Where the batches of a step are
formed by size, it continues with the first batch of the step that was not completed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import index
from types import TracebackType
from typing import Any, Self

from synthgen.dataloading.collate import Batch, PackedBatch, ReaderTurn, collate, unpack_batch
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.mixture import Mixture, MixturePlan, plan_mixture
from synthgen.dataloading.sample_stats import SampleStats
from synthgen.dataloading.step_parts import form_parts
from synthgen.dataloading.worker_processes import BatchStream, ReaderPool
from synthgen.errors import SynthgenError

STATE_VERSION = 1


class TrainLoader:
    """The batches of one training process, endlessly. After `close` it can still continue.

    Args:
        manifest: names the sources, their ratios and the seed.
        rank: which training process this is.
        world_size: the number of training processes.
        batch_size: images per batch.
        batches_per_step: batches of one training step.
        group_by_size: form the batches of a step by the size of their views; see `size_groups`. Then `batch_size` is
            the maximum, a step may have another number of batches, and the state changes with the last one.
        num_workers: worker processes of this one; 0 = it reads itself.
        state: an earlier `state_dict()`; of several ranks, `merge_states` of them.
        plan: the result of `plan_mixture(manifest)`, if known.
        pin_memory: put batches into page-locked memory.
        prefetch_factor: batches that each worker prefetches.
        is_stopping: whether this process was told to end; see `ReaderPool`.

    Attributes:
        stats: counts of all batches taken, including those before the state.

    Raises:
        SynthgenError: see `plan_mixture`; the state belongs to other code or another world size.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int,
        batches_per_step: int = 1,
        group_by_size: bool = False,
        num_workers: int,
        state: Mapping[str, Any] | None = None,
        plan: MixturePlan | None = None,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._manifest, self._plan = manifest, plan or plan_mixture(manifest)
        self._rank, self._world_size, self._batch_size = rank, world_size, batch_size
        self._batches_per_step, self._group_by_size = batches_per_step, group_by_size
        self._num_workers, self._pin_memory, self._prefetch_factor = num_workers, pin_memory, prefetch_factor
        self._is_stopping = is_stopping
        own = max(1, num_workers)
        self._reader_ids = range(rank * own, rank * own + own)
        self._positions: dict[int, dict[str, Any] | None] = dict.fromkeys(self._reader_ids)
        self._num_batches = 0
        self.stats = SampleStats([f"{source.shards} {source.task}" for source in manifest.mixture])
        self._reader_pool: ReaderPool | None = None
        if state is not None:
            self._load_state(state)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            SynthgenError: a source has nothing to learn, or a worker was killed.
            StoppedWaitingError: this process was told to end, and no batch came.
        """
        packed = next(self._open_pool())
        self._record_turns(packed.turns)
        return packed.batch or unpack_batch(packed)

    def next_step(self) -> list[Batch]:
        """The batches of the next step: `batches_per_step`, or as many as the sizes of their views make.

        Raises:
            SynthgenError: as `__next__`.
            StoppedWaitingError: as `__next__`. The state is still that after the last step.
        """
        pool, batches, turns = self._open_pool(), list[Batch](), list[ReaderTurn]()
        while len(turns) < self._batches_per_step:
            packed = next(pool)
            turns += packed.turns
            batches.append(packed.batch or unpack_batch(packed))
            del packed  # no variable keeps it in memory while the next one is read
        self._record_turns(turns)
        return batches

    def _open_pool(self) -> ReaderPool:
        """The running readers; they are started if there are none."""
        if self._reader_pool is None:
            turns = [
                self._reader_ids[(self._num_batches + i) % len(self._reader_ids)] for i in range(len(self._reader_ids))
            ]
            stream = _MixtureStream(
                self._manifest,
                self._plan,
                batch_size=self._batch_size,
                trim=self._group_by_size,
                turns=turns,
                num_readers=len(self._reader_ids) * self._world_size,
                positions=dict(self._positions),
            )
            regroup = partial(form_parts, num_batches=self._batches_per_step, max_images=self._batch_size)
            self._reader_pool = ReaderPool(
                stream,
                num_workers=self._num_workers,
                regroup=regroup if self._group_by_size else None,
                pin_memory=self._pin_memory,
                prefetch_factor=self._prefetch_factor,
                is_stopping=self._is_stopping,
            )
        return self._reader_pool

    def _record_turns(self, turns: Sequence[ReaderTurn]) -> None:
        for turn in turns:
            self._positions[turn.reader_id] = turn.position
            self._num_batches += 1
            self.stats.merge_state(turn.stats)

    def state_dict(self) -> dict[str, Any]:
        """The position of this loader as plain JSON. Combine those of several ranks with `merge_states`."""
        fresh = {"draws": 0, "sources": [[0, 0, 0] for _ in self._manifest.mixture]}
        return {
            **self._stream_identity(),
            "batches": self._num_batches,
            "positions": {str(reader): position or fresh for reader, position in self._positions.items()},
            "seen": {str(self._rank): self.stats.state_dict()},
        }

    def close(self) -> None:
        """Stop the worker processes. New ones repeat the batches that were prefetched."""
        if self._reader_pool is not None:
            self._reader_pool.close()
            self._reader_pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream_identity(self) -> dict[str, Any]:
        """What must be equal for an exact resume."""
        return {
            "version": STATE_VERSION,
            "seed": self._manifest.seed,
            "sources": [
                [name, taken.num_rows]
                for name, taken in zip(self.stats.source_names, self._plan.source_indexes, strict=True)
            ],
            "readers": len(self._reader_ids) * self._world_size,
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        if state.get("version") != STATE_VERSION:
            raise SynthgenError(
                f"the checkpoint's place in the data is of version {state.get('version')}, this synthgen reads "
                f"{STATE_VERSION}; resume with the version that wrote it"
            )
        try:
            count = len(state["sources"])
            self._restore_positions(
                state, {key: _parse_position(place, count) for key, place in state["positions"].items()}
            )
        except (KeyError, ValueError, TypeError, AttributeError):
            raise SynthgenError(
                "the checkpoint's place in the data is damaged; delete that checkpoint, and the one before it is taken"
            ) from None

    def _restore_positions(self, state: Mapping[str, Any], positions: dict[str, dict[str, Any]]) -> None:
        now = self._stream_identity()
        if [name for name, _ in state["sources"]] == list(self.stats.source_names):
            for rank, seen in state["seen"].items():
                if int(rank) == self._rank or (self._rank == 0 and int(rank) >= self._world_size):
                    self.stats.merge_state(seen)
        different = [name for name in ("seed", "sources", "readers") if state[name] != now[name]]
        if not different:
            if missing := [reader for reader in self._reader_ids if str(reader) not in positions]:
                raise SynthgenError(
                    f"the state has no place for reader {missing[0]}; join the states of all training processes"
                )
            self._num_batches = index(state["batches"])
            self._positions = {reader: positions[str(reader)] for reader in self._reader_ids}
            return
        epoch = 1 + max(epoch for place in positions.values() for epoch, *_ in place["sources"])
        draws = max(place["draws"] for place in positions.values())
        start = {"draws": draws, "sources": [[epoch, 0, 0] for _ in self._manifest.mixture]}
        self._positions = dict.fromkeys(self._reader_ids, start)
        changes = ", ".join(
            f"{name} {state[name]} then and {now[name]} now" if name != "sources" else "other sources"
            for name in different
        )
        logging.getLogger(__name__).warning(
            "not resumed where it stopped (%s): every source starts its next epoch, %d", changes, epoch
        )


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of all ranks as one state, from which each rank can resume."""
    return {
        **states[0],
        "positions": {reader: place for state in states for reader, place in state["positions"].items()},
        "seen": {rank: seen for state in states for rank, seen in state["seen"].items()},
    }


def _parse_position(position: Mapping[str, Any], num_sources: int) -> dict[str, Any]:
    """The position of a reader in the form of `Mixture.state_dict`, checked.

    Args:
        position: an entry of `positions` in a state; untrusted.
        num_sources: sources of the mixture.

    Raises:
        KeyError: an entry is missing.
        TypeError: a value is not an integer, or not a list.
        ValueError: a list has another length.
    """
    sources = [[index(number) for number in at] for at in position["sources"]]
    if [len(at) for at in sources] != [3] * num_sources:
        raise ValueError("a place has three numbers")
    return {"draws": index(position["draws"]), "sources": sources}


class _MixtureStream(BatchStream):
    """The work of the readers of one training process.

    Args:
        manifest: names the sources, their ratios and the seed.
        plan: the result of `plan_mixture(manifest)`.
        batch_size: images per batch.
        trim: pack images without padding.
        turns: its readers, in the order of their next turns.
        num_readers: number of readers of all training processes.
        positions: the position of each of them; None = at the start.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: MixturePlan,
        *,
        batch_size: int,
        trim: bool,
        turns: Sequence[int],
        num_readers: int,
        positions: Mapping[int, dict[str, Any] | None],
    ) -> None:
        self._manifest, self._plan, self._batch_size, self._trim = manifest, plan, batch_size, trim
        self._turns, self._num_readers, self._positions = turns, num_readers, positions

    def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
        """Yield batches endlessly."""
        reader = self._turns[worker_id]
        mixture = Mixture(
            self._manifest,
            reader_id=reader,
            num_readers=self._num_readers,
            state=self._positions[reader],
            plan=self._plan,
        )
        while True:
            yield self._make_batch(mixture, reader)  # no variable keeps it in memory while the next one is made

    def _make_batch(self, mixture: Mixture, reader_id: int) -> PackedBatch:
        packed = collate([next(mixture) for _ in range(self._batch_size)], trim=self._trim)
        packed.turns = [ReaderTurn(reader_id, mixture.state_dict(), mixture.stats.pop_state())]
        return packed
