"""A layer once through, in its own order, as an evaluation reads it: whole images, and every name of the layer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from synthgen import plugins
from synthgen.dataloading.collate import Batch, Packed, pack, unpack
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.mixture import Drawn, counted
from synthgen.dataloading.row_stream import InOrder, Pixels, Taken, take
from synthgen.dataloading.sample_stats import Seen
from synthgen.dataloading.source_config import SHELF
from synthgen.dataloading.tasks import Target, Task
from synthgen.dataloading.tasks._places import places, region, target_of
from synthgen.dataloading.tasks._texts import label_space
from synthgen.dataloading.transforms import captioner_view, eval_view
from synthgen.dataloading.worker_processes import Readers, Stream
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

#: Metrics by which a prediction counts as wrong also where an image holds nothing of what is asked for.
_ABSENCE_COUNTS = ("ap", "box_ap", "pq")


class Once:
    """The batches of an evaluated layer: every row once, in order; the last batch, and some others, may be smaller.

    Each process of several has a part of its own, the first rows the first one. Targets hold "sample" and "original"
    as well: the record, and the target in the frame of the image file, which predictions are to be measured in. Rows
    with an error and images that cannot be read are passed over and counted; so are images without an object, where
    the task's metric finds nothing to measure in them.

    Args:
        index: which of the manifest's `eval`.
        rank, world: which process this is, of how many.
        short, long: sides of the view; see `eval_view`. A captioner sees its own.

    Attributes:
        rows: of the layer, how many this process reads.
        seen: what was in the batches so far.

    Raises:
        SynthgenError: there is no such layer, it is empty, or nobody knows where its images are.
    """

    def __init__(
        self,
        manifest: Manifest,
        index: int,
        *,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        workers: int = 0,
        short: int = 800,
        long: int = 1333,
        pin_memory: bool = False,
    ) -> None:
        source = manifest.eval[index]
        store = ShardStore(manifest.store)
        taken = take(store, source)
        self.seen = Seen([f"{source.shards} {source.task}"])
        rows = range(rank * taken.rows // world, (rank + 1) * taken.rows // world)
        self.rows = len(rows)
        stream = _InOrder(
            store, taken, source.task, rows=rows, batch_size=batch_size, readers=max(1, workers), sides=(short, long),
            square=manifest.captioner.image_size if manifest.captioner else None,
        )  # fmt: skip
        self._readers = Readers(stream, workers=workers, pin_memory=pin_memory)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            StopIteration: that was all.
            SynthgenError: a reader was killed.
        """
        while True:
            packed = next(self._readers)
            self.seen.add(packed.seen)
            if packed.targets:
                return packed.batch or unpack(packed)

    def close(self) -> None:
        """End the reader processes, if there are some."""
        self._readers.close()


class _InOrder(Stream):
    """Rows of a layer; of their batches, each reader makes every `readers`-th."""

    def __init__(
        self,
        store: ShardStore,
        taken: Taken,
        task: str,
        *,
        rows: range,
        batch_size: int,
        readers: int,
        sides: tuple[int, int],
        square: int | None,
    ) -> None:
        self._store, self._taken, self._task = store, taken, task
        self._rows, self._batch_size, self._readers = rows, batch_size, readers
        self._sides, self._square = sides, square

    def batches(self, worker: int) -> Iterator[Packed]:
        samples, pixels = InOrder(self._store, self._taken), Pixels()
        seen = Seen([self._taken.name])
        for start in range(worker * self._batch_size, len(self._rows), self._readers * self._batch_size):
            made = []
            for row in self._rows[start : start + self._batch_size]:
                sample = samples[row]
                try:
                    one = self._measured(sample, pixels, seen)
                except (ImageError, SynthgenError) as why:
                    seen.name(0, f"{sample.file_name}: {why}")
                    kind = "unreadable" if isinstance(why, ImageError) else "broken"
                    seen.count(0, {f"skipped/{kind}": 1})
                    continue
                if one is not None:
                    made.append(one)
            packed = pack([drawn for drawn, _ in made], [more for _, more in made])
            packed.seen = seen.take()
            yield packed

    def _measured(self, sample: Sample, pixels: Pixels, seen: Seen) -> tuple[Drawn, dict[str, Any]] | None:
        """One image, and its record; None = there is nothing to measure in it."""
        if sample.error is not None:
            seen.count(0, {"skipped/error": 1})
            return None
        image: NDArray[np.uint8] | None = None
        if not (sample.height and sample.width):  # the source does not say, and boxes need a frame
            image = pixels.load(self._taken.images, sample)
            sample = replace(sample, height=image.shape[0], width=image.shape[1])
        task, names = cast(Task, plugins.load(SHELF, self._task)), self._taken.categories
        rng = random.Random(f"{sample.image_key}/{sample.image_id}")  # noqa: S311 - the same in every evaluation
        target = task.target(sample, names, rng, max_texts=max(1, len(names), len(sample.annotations)))
        if target is None and task.METRIC in _ABSENCE_COUNTS:
            target = _nothing(sample, names, rng)
        if target is None:
            seen.count(0, {"skipped/nothing": 1})
            return None
        short, long = self._sides
        if image is None:
            image = pixels.load(self._taken.images, sample)
        if self._square is not None:
            example = captioner_view(image, target, side=self._square)
        else:
            example = eval_view(image, target, short=short, long=long)
        seen.count(0, counted(sample, target, example))
        return Drawn(example, 0, sample.image_key), {"sample": sample, "original": target}


def _nothing(sample: Sample, names: tuple[str, ...], rng: random.Random) -> Target | None:
    """No object, and all names that somebody looked for; crowds are ignored. None: nobody looked for any."""
    left = [place for place in places(sample) if place.is_crowd or not place.category]
    texts = label_space(set(), {place.category for place in left}, sample, names, rng, max(1, len(names)))
    return target_of([], [], texts, [region(place, sample) for place in left]) if texts else None
