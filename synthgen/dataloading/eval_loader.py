"""The evaluation loader: every row of a layer once, in order, as whole images."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from synthgen import plugins
from synthgen.dataloading.collate import Batch, PackedBatch, ReaderTurn, collate, unpack_batch
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.mixture import StreamItem, count_example
from synthgen.dataloading.row_stream import ImageCache, SequentialRows, SourceIndex, build_source_index
from synthgen.dataloading.sample_stats import SampleStats
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.dataloading.tasks import Target, Task
from synthgen.dataloading.tasks._places import build_target, extract_regions, get_region_mask
from synthgen.dataloading.tasks._texts import build_label_space
from synthgen.dataloading.transforms import make_captioner_example, make_eval_example, make_unscaled_example
from synthgen.dataloading.worker_processes import BatchStream, ReaderPool
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

#: Metrics that count false positives also in images without ground truth.
_METRICS_COUNTING_EMPTY_IMAGES = ("ap", "box_ap", "pq")


class EvalLoader:
    """The batches of an evaluated layer: every row once, in order. Some batches may be smaller.

    Each rank has a contiguous part of the rows. Targets also hold "sample" and "original": the record, and the target
    in the frame of the image file, in which predictions are measured. Rows with an error and unreadable images are
    skipped and counted. So are images without an object if the task's metric measures nothing in them.

    Args:
        manifest: names the layers and the kind of network.
        eval_index: position in the manifest's `eval`.
        rank: which process this is.
        world_size: the number of processes that share the layer.
        batch_size: the maximum number of images per batch.
        num_workers: worker processes of this one; 0 = it reads itself.
        short_side: length of the shorter side of the view, in pixels; see `transforms.make_eval_example`. A captioner
            has its own size, and a box segmenter gets the image file's.
        long_side: maximum of the longer side of the view, in pixels, likewise.
        pin_memory: put batches into page-locked memory.

    Attributes:
        num_rows: rows of the layer that this process reads.
        stats: counts of the batches so far.

    Raises:
        SynthgenError: there is no such layer, it is empty, or its image folder is unknown.
    """

    def __init__(
        self,
        manifest: Manifest,
        eval_index: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int = 1,
        num_workers: int = 0,
        short_side: int = 800,
        long_side: int = 1333,
        pin_memory: bool = False,
    ) -> None:
        source = manifest.eval[eval_index]
        store = ShardStore(manifest.store)
        taken = build_source_index(store, source)
        self.stats = SampleStats([f"{source.shards} {source.task}"])
        rows = range(rank * taken.num_rows // world_size, (rank + 1) * taken.num_rows // world_size)
        self.num_rows = len(rows)
        stream = _SequentialStream(
            store, taken, source.task, rows=rows, batch_size=batch_size, num_readers=max(1, num_workers),
            sides=(short_side, long_side),
            square_side=manifest.captioner.image_size if manifest.captioner else None,
            is_unscaled=manifest.box_segmenter is not None,
        )  # fmt: skip
        self._reader_pool = ReaderPool(stream, num_workers=num_workers, pin_memory=pin_memory)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            StopIteration: no batch is left.
            SynthgenError: a worker was killed.
        """
        while True:
            packed = next(self._reader_pool)
            for turn in packed.turns:
                self.stats.merge_state(turn.stats)
            if packed.targets:
                return packed.batch or unpack_batch(packed)

    def close(self) -> None:
        """Stop the worker processes."""
        self._reader_pool.close()


class _SequentialStream(BatchStream):
    """Rows of a layer in order; the batches are dealt to the workers by turns."""

    def __init__(
        self,
        store: ShardStore,
        source_index: SourceIndex,
        task: str,
        *,
        rows: range,
        batch_size: int,
        num_readers: int,
        sides: tuple[int, int],
        square_side: int | None,
        is_unscaled: bool,
    ) -> None:
        self._store, self._source_index, self._task = store, source_index, task
        self._rows, self._batch_size, self._num_readers = rows, batch_size, num_readers
        self._sides, self._square_side, self._is_unscaled = sides, square_side, is_unscaled

    def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
        samples, pixels = SequentialRows(self._store, self._source_index), ImageCache()
        seen = SampleStats([self._source_index.name])
        for start in range(worker_id * self._batch_size, len(self._rows), self._num_readers * self._batch_size):
            made = []
            for row in self._rows[start : start + self._batch_size]:
                sample = samples[row]
                try:
                    one = self._make_example(sample, pixels, seen)
                except (ImageError, SynthgenError) as why:
                    seen.record_failure(0, f"{sample.file_name}: {why}")
                    kind = "unreadable" if isinstance(why, ImageError) else "broken"
                    seen.count(0, {f"skipped/{kind}": 1})
                    continue
                if one is not None:
                    made.append(one)
            packed = collate([drawn for drawn, _ in made], [more for _, more in made])
            packed.turns = [ReaderTurn(worker_id, {}, seen.pop_state())]
            yield packed

    def _make_example(
        self, sample: Sample, image_cache: ImageCache, stats: SampleStats
    ) -> tuple[StreamItem, dict[str, Any]] | None:
        """One example and its record; None = the metric measures nothing in this image."""
        if sample.error is not None:
            stats.count(0, {"skipped/error": 1})
            return None
        image: NDArray[np.uint8] | None = None
        if not (sample.height and sample.width):  # the source gives no size, and boxes need a frame
            image = image_cache.load(self._source_index.image_folder, sample)
            sample = replace(sample, height=image.shape[0], width=image.shape[1])
        task, names = cast(Task, plugins.load_plugin(TASKS_PACKAGE, self._task)), self._source_index.categories
        rng = random.Random(f"{sample.image_key}/{sample.image_id}")  # noqa: S311 - the same in every evaluation
        target = task.target(sample, names, rng, max_texts=max(1, len(names), len(sample.annotations)))
        if target is None and task.METRIC in _METRICS_COUNTING_EMPTY_IMAGES:
            target = _empty_target(sample, names, rng)
        if target is None:
            stats.count(0, {"skipped/nothing": 1})
            return None
        short, long = self._sides
        if image is None:
            image = image_cache.load(self._source_index.image_folder, sample)
        if self._square_side is not None:
            example = make_captioner_example(image, target, side=self._square_side)
        elif self._is_unscaled:
            example = make_unscaled_example(image, target)
        else:
            example = make_eval_example(image, target, short_side=short, long_side=long)
        stats.count(0, count_example(sample, target, example))
        return StreamItem(example, 0, sample.image_key), {"sample": sample, "original": target}


def _empty_target(sample: Sample, names: tuple[str, ...], rng: random.Random) -> Target | None:
    """A target without objects, with all names that were looked for; crowds are ignored. None: there are none."""
    left = [place for place in extract_regions(sample) if place.is_crowd or not place.category]
    texts = build_label_space(set(), {place.category for place in left}, sample, names, rng, max(1, len(names)))
    return build_target([], [], texts, [get_region_mask(place, sample) for place in left]) if texts else None
