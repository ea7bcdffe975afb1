"""The mixture: an endless stream of examples. Sources are drawn by ratio; each reader has its own order of rows."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from synthgen import plugins
from synthgen.dataloading.filters import apply_filters
from synthgen.dataloading.leakage.image_keys import read_exclude_list
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.row_stream import Cursor, ImageCache, ShuffledRows, SourceIndex, build_source_index
from synthgen.dataloading.sample_stats import SampleStats
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.dataloading.tasks import Target, Task
from synthgen.dataloading.tasks._weighted import weight_masks
from synthgen.dataloading.transforms import Example, make_captioner_example, make_train_example
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

#: A source fails if a reader has found nothing to learn in this many samples. A smaller number would stop a source
#: with phrases for one image of a hundred, by bad luck of one of many readers.
MAX_EMPTY_SAMPLES = 1_000

#: A source fails after this many unreadable images in a row. The number is larger than a row group, so that a part of
#: a dataset that was not unpacked is skipped.
MAX_UNREADABLE, MAX_UNREADABLE_PARTIAL = 200, 4000

#: 2**64 divided by the golden ratio. Its multiples modulo 2**64 fill every interval evenly: after n draws the number
#: for a source is right but for a few, while independent draws are off by the square root of n.
_GOLDEN_STEP = 0x9E3779B97F4A7C15


class StreamItem(NamedTuple):
    """One example of the stream.

    Attributes:
        source_id: position in the manifest's mixture.
        image_key: the key of its photograph.
    """

    example: Example
    source_id: int
    image_key: str


@dataclass(frozen=True, slots=True, eq=False)
class MixturePlan:
    """What all readers share: the index of each source, and the excluded keys."""

    source_indexes: tuple[SourceIndex, ...]
    excluded_keys: frozenset[str]


def plan_mixture(manifest: Manifest) -> MixturePlan:
    """Look up the layers of a manifest's mixture.

    Args:
        manifest: names the sources and the exclude lists.

    Raises:
        SynthgenError: a layer or a list is missing, a layer is empty, or its image folder is unknown.
    """
    if not manifest.mixture:
        raise SynthgenError(f"the manifest {manifest.name} has nothing to learn from; add mixture:")
    store = ShardStore(manifest.store)
    excluded = frozenset(key for path in manifest.exclude for key in read_exclude_list(path))
    return MixturePlan(tuple(build_source_index(store, source) for source in manifest.mixture), excluded)


class Mixture:
    """The stream of one of several readers. Streams of other readers have none of its rows in the same epoch.

    Args:
        manifest: names the sources, their ratios and the seed.
        reader_id: which of the readers of all training processes, from 0.
        num_readers: the number of readers of all training processes.
        state: an earlier `state_dict()` of the same reader of the same number: the stream continues after it.
        plan: the result of `plan_mixture(manifest)`, if known.

    Attributes:
        stats: counts of the examples given and the rows skipped.

    Raises:
        SynthgenError: see `plan_mixture`.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        reader_id: int,
        num_readers: int,
        state: dict[str, Any] | None = None,
        plan: MixturePlan | None = None,
    ) -> None:
        found = plan or plan_mixture(manifest)
        self.stats = SampleStats([f"{source.shards} {source.task}" for source in manifest.mixture])
        ratios = [source.ratio for source in manifest.mixture]
        self._cumulative_ratios = list(itertools.accumulate(ratio / sum(ratios) for ratio in ratios))
        self._offset = random.Random(f"{manifest.seed}/draws/{reader_id}").getrandbits(64)  # noqa: S311
        self._draws: int = state["draws"] if state else 0
        store, pixels = ShardStore(manifest.store), ImageCache(manifest.dataloader.cache_mib * 2**20)
        self._source_streams = []
        for i, taken in enumerate(found.source_indexes):
            at = Cursor(*state["sources"][i]) if state else Cursor()
            rows = ShuffledRows(
                store, taken, seed_key=f"{manifest.seed}/{i}", reader_id=reader_id, num_readers=num_readers, cursor=at
            )
            self._source_streams.append(
                _SourceStream(manifest, i, taken, rows, found.excluded_keys, pixels, self.stats)
            )

    def __iter__(self) -> Iterator[StreamItem]:
        return self

    def __next__(self) -> StreamItem:
        """The next image.

        Raises:
            SynthgenError: many samples of a source in a row teach nothing or have unreadable images.
        """
        source = self._choose_source(self._draws)
        self._draws += 1
        example, key = self._source_streams[source].next_example()
        return StreamItem(example, source, key)

    def state_dict(self) -> dict[str, Any]:
        """The position of the stream as plain JSON: draws so far; for each source epoch, unit and row in the unit."""
        return {"draws": self._draws, "sources": [list(feed.rows.cursor) for feed in self._source_streams]}

    def _choose_source(self, draw: int) -> int:
        """The source of a draw."""
        part = ((self._offset + draw * _GOLDEN_STEP) % 2**64) / 2**64
        return min(bisect_right(self._cumulative_ratios, part), len(self._cumulative_ratios) - 1)


class _SourceStream:
    """The examples of one source: its rows without those that teach nothing."""

    def __init__(
        self,
        manifest: Manifest,
        source_id: int,
        source_index: SourceIndex,
        rows: ShuffledRows,
        excluded_keys: frozenset[str],
        image_cache: ImageCache,
        stats: SampleStats,
    ) -> None:
        self.rows = rows
        self._source_id, self._source, self._augment = source_id, manifest.mixture[source_id], manifest.augment
        self._task = cast(Task, plugins.load_plugin(TASKS_PACKAGE, self._source.task))
        self._captioner, self._max_texts = manifest.captioner, self._source.max_texts
        if self._captioner is not None:
            self._max_texts = min(self._max_texts, self._captioner.regions_per_image)
        if manifest.box_segmenter is not None:
            self._max_texts = min(self._max_texts, manifest.box_segmenter.boxes_per_image)
        self._source_index, self._excluded_keys, self._image_cache, self._stats = (
            source_index,
            excluded_keys,
            image_cache,
            stats,
        )
        self._num_skipped = 0  # rows skipped in a row, for any reason
        self._num_failed = 0  # unusable images in a row
        self._has_succeeded = False  # whether an image was usable
        self._empty_counts: Counter[str] | None = (
            Counter()
        )  # samples without an example and what they had, until the first example

    def next_example(self) -> tuple[Example, str]:
        """The next example, and the key of its image."""
        while True:
            sample, rng = next(self.rows)
            if sample.image_key in self._excluded_keys:
                self._skip_row("excluded")
            elif sample.error is not None:
                self._skip_row("error")
            else:
                try:
                    example = self._make_example(sample, rng)
                except (ImageError, SynthgenError) as why:
                    self._skip_unusable(sample, why)
                    continue
                if example is not None:
                    self._num_skipped = self._num_failed = 0
                    self._has_succeeded = True
                    self._empty_counts = None
                    return example, sample.image_key
                self._skip_row("nothing")

    def _make_example(self, sample: Sample, rng: random.Random) -> Example | None:
        """The example of a sample; None = it teaches nothing.

        Args:
            sample: a row of the source.
            rng: decides the random draws of this row.

        Raises:
            ImageError: its image cannot be read.
            SynthgenError: its annotations contradict themselves.
        """
        image: NDArray[np.uint8] | None = None
        if not (sample.height and sample.width):  # the source gives no size, and boxes need a frame
            image = self._image_cache.load(self._source_index.image_folder, sample)
            sample = replace(sample, height=image.shape[0], width=image.shape[1])
        kept, refused = apply_filters(sample, self._source)
        target = self._task.target(kept, self._source_index.categories, rng, max_texts=self._max_texts)
        if target is None:
            if self._empty_counts is not None:
                captions = sum(n for why, n in refused.items() if why.startswith("caption/"))
                self._empty_counts.update(samples=1, annotations=len(sample.annotations), captions=captions)
            return None
        if self._source.mask_weight is not None:
            target = weight_masks(target, kept, self._source.mask_weight)
        if image is None:
            image = self._image_cache.load(self._source_index.image_folder, sample)
        if self._captioner is not None:
            example = make_captioner_example(image, target, side=self._captioner.image_size)
        else:
            example = make_train_example(image, target, self._task.AUGMENTATION, self._augment, rng)
        self._stats.count(self._source_id, {**refused, **count_example(kept, target, example)})
        return example

    def _skip_row(self, reason: str) -> None:
        """Count a skipped row.

        Args:
            reason: a key of `sample_stats.SKIP_REASONS`.

        Raises:
            SynthgenError: they are too many in a row.
        """
        self._stats.count(self._source_id, {f"skipped/{reason}": 1})
        self._num_skipped += 1
        name = self._source_index.name
        if self._empty_counts is not None and self._empty_counts["samples"] == MAX_EMPTY_SAMPLES:
            remedy = self._suggest_fix(self._empty_counts)
            raise SynthgenError(
                f"{self._source.task} found nothing in {MAX_EMPTY_SAMPLES:,} samples of {name}; {remedy}"
            )
        if self._num_skipped >= max(MAX_EMPTY_SAMPLES, 2 * self._source_index.num_rows):
            raise SynthgenError(
                f"no image of {name} can be learned from: all are on a list of exclude: or have an error; take it out"
            )

    def _skip_unusable(self, sample: Sample, error: ImageError | SynthgenError) -> None:
        """Count and name an image that cannot be used.

        Args:
            sample: the row of the image.
            error: why it cannot be used.

        Raises:
            SynthgenError: they are too many in a row.
        """
        unreadable = isinstance(error, ImageError)
        self._stats.record_failure(self._source_id, f"{sample.file_name}: {error}")
        self._num_failed += 1
        if self._num_failed == (MAX_UNREADABLE_PARTIAL if self._has_succeeded else MAX_UNREADABLE):
            first = f"{self._num_failed:,} images of {self._source_index.name} in a row"
            if not unreadable:
                raise SynthgenError(f"{first} have annotations that cannot be learned from; the last: {error}")
            raise SynthgenError(
                f"{first} cannot be read from {self._source_index.image_folder} (the last: {error}); is it their "
                "folder? "
                f"Say which is with images: in mixture.{self._source_id}"
            )
        self._skip_row("unreadable" if unreadable else "broken")

    def _suggest_fix(self, counts: Counter[str]) -> str:
        """The likely cause if many samples teach nothing; `counts`: their annotations, masks and so on."""
        if not counts["annotations"]:
            return "they have no annotations; name another layer"
        if self._task.METRIC not in ("ciou", "cider"):
            return f"does it fit their {counts['annotations']:,} annotations?"
        if counts["captions"]:
            return f"{counts['captions']:,} captions were refused; lower the thresholds of mixture.{self._source_id}"
        return "does this layer have captions?"


def count_example(sample: Sample, target: Target, example: Example) -> dict[str, int]:
    """The counts that an example adds to `sample_stats.COUNTERS`.

    Args:
        sample: the record that the example shows; in training after the filters.
        target: the target of that record.
        example: the view of both; it may lack objects of `target`.
    """
    phrases = {a.id: {" ".join(c.text.split()).lower() for c in a.captions} for a in sample.annotations if a.captions}
    captions = 0
    if phrases:
        for label, ids in zip(example.labels.tolist(), example.annotation_ids, strict=True):
            captions += any(target.texts[label].lower() in phrases.get(i, ()) for i in ids)
    return {
        "images": 1,
        "objects": len(example.labels),
        "masks": len(example.masks),
        "captions": captions,
        "unseen": len(target.labels) - len(example.labels),
        "ignored": int(example.ignore.any()),
    }
