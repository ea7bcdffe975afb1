"""The endless stream of examples of a manifest: sources drawn by ratio, each read in an order of the reader's own."""

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
from synthgen.dataloading.filters import accepted
from synthgen.dataloading.leakage.image_keys import read_list
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.row_stream import Pixels, Place, Rows, Taken, take
from synthgen.dataloading.sample_stats import Seen
from synthgen.dataloading.source_config import SHELF
from synthgen.dataloading.tasks import Target, Task
from synthgen.dataloading.tasks._weighted import weighted
from synthgen.dataloading.transforms import Example, captioner_view, train_view
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

#: So many samples may hold nothing to learn before a reader has found anything in their source. Fewer would stop a
#: source in which one image of a hundred is described, by the bad luck of one of many readers.
TRIES = 1_000

#: So many images in a row may be unreadable, of several row groups: a part of a dataset that was not unpacked is passed
#: over. More of them are no part any more.
UNREADABLE, UNREADABLE_PART = 200, 4000

#: 2**64 divided by the golden ratio. Its multiples, modulo 2**64, fill every interval as evenly as can be: after n
#: draws a source has its part of them but for a few, where independent draws would miss by the root of n.
_STEP = 0x9E3779B97F4A7C15


class Drawn(NamedTuple):
    """One image of the stream.

    Attributes:
        source: its place in the manifest's mixture.
        image_key: which photograph it is.
    """

    example: Example
    source: int
    image_key: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is looked up once for all readers: what each source takes of its layer, and keys that none may show."""

    taken: tuple[Taken, ...]
    excluded: frozenset[str]


def planned(manifest: Manifest) -> Plan:
    """Look up the layers of a manifest's mixture.

    Raises:
        SynthgenError: a layer or a list is not there, a layer is empty, or nobody knows where its images are.
    """
    if not manifest.mixture:
        raise SynthgenError(f"the manifest {manifest.name} has nothing to learn from; add mixture:")
    store = ShardStore(manifest.store)
    excluded = frozenset(key for path in manifest.exclude for key in read_list(path))
    return Plan(tuple(take(store, source) for source in manifest.mixture), excluded)


class Mixture:
    """The stream of reader `reader` of `readers`; the others' streams have none of its rows in the same epoch.

    Args:
        state: an earlier `state()` of the same reader among as many: the stream goes on behind it.
        plan: what `planned(manifest)` gave, if that is known.

    Attributes:
        seen: counts of what the stream gave, and passed over.

    Raises:
        SynthgenError: see `planned`.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        reader: int,
        readers: int,
        state: dict[str, Any] | None = None,
        plan: Plan | None = None,
    ) -> None:
        found = plan or planned(manifest)
        self.seen = Seen([f"{source.shards} {source.task}" for source in manifest.mixture])
        ratios = [source.ratio for source in manifest.mixture]
        self._until = list(itertools.accumulate(ratio / sum(ratios) for ratio in ratios))
        self._offset = random.Random(f"{manifest.seed}/draws/{reader}").getrandbits(64)  # noqa: S311
        self._draws: int = state["draws"] if state else 0
        store, pixels = ShardStore(manifest.store), Pixels(manifest.readers.cache_mib * 2**20)
        self._feeds = []
        for i, taken in enumerate(found.taken):
            at = Place(*state["sources"][i]) if state else Place()
            rows = Rows(store, taken, key=f"{manifest.seed}/{i}", reader=reader, readers=readers, at=at)
            self._feeds.append(_Feed(manifest, i, taken, rows, found.excluded, pixels, self.seen))

    def __iter__(self) -> Iterator[Drawn]:
        return self

    def __next__(self) -> Drawn:
        """The next image.

        Raises:
            SynthgenError: its source holds nothing to learn, or its images cannot be read; many in a row.
        """
        source = self._source(self._draws)
        self._draws += 1
        example, key = self._feeds[source].example()
        return Drawn(example, source, key)

    def state(self) -> dict[str, Any]:
        """Where the stream is, as plain JSON: draws so far; for each source the epoch, its unit, the unit's row."""
        return {"draws": self._draws, "sources": [list(feed.rows.place) for feed in self._feeds]}

    def _source(self, draw: int) -> int:
        """Which source the draw of that number is of."""
        part = ((self._offset + draw * _STEP) % 2**64) / 2**64
        return min(bisect_right(self._until, part), len(self._until) - 1)


class _Feed:
    """One source of a stream: its rows, as far as there is something to learn from them, as examples."""

    def __init__(
        self,
        manifest: Manifest,
        index: int,
        taken: Taken,
        rows: Rows,
        excluded: frozenset[str],
        pixels: Pixels,
        seen: Seen,
    ) -> None:
        self.rows = rows
        self._index, self._source, self._augment = index, manifest.mixture[index], manifest.augment
        self._task = cast(Task, plugins.load(SHELF, self._source.task))
        self._captioner, self._max_texts = manifest.captioner, self._source.max_texts
        if self._captioner is not None:
            self._max_texts = min(self._max_texts, self._captioner.regions)
        self._taken, self._excluded, self._pixels, self._seen = taken, excluded, pixels, seen
        self._idle = 0  # rows passed over in a row, for whatever reason
        self._failed = 0  # images in a row that could not be used
        self._used = False  # whether one could
        self._nothing: Counter[str] | None = Counter()  # samples that taught nothing, and what they held; until one did

    def example(self) -> tuple[Example, str]:
        """The next example, and the key of its image."""
        while True:
            sample, rng = next(self.rows)
            if sample.image_key in self._excluded:
                self._pass_over("excluded")
            elif sample.error is not None:
                self._pass_over("error")
            else:
                try:
                    example = self._learned(sample, rng)
                except (ImageError, SynthgenError) as why:
                    self._give_up(sample, why)
                    continue
                if example is not None:
                    self._idle = self._failed = 0
                    self._used = True
                    self._nothing = None
                    return example, sample.image_key
                self._pass_over("nothing")

    def _learned(self, sample: Sample, rng: random.Random) -> Example | None:
        """What a sample teaches; None = nothing.

        Raises:
            ImageError: its image cannot be read.
            SynthgenError: its annotations contradict themselves.
        """
        image: NDArray[np.uint8] | None = None
        if not (sample.height and sample.width):  # the source does not say, and boxes need a frame
            image = self._pixels.load(self._taken.images, sample)
            sample = replace(sample, height=image.shape[0], width=image.shape[1])
        kept, refused = accepted(sample, self._source)
        target = self._task.target(kept, self._taken.categories, rng, max_texts=self._max_texts)
        if target is None:
            if self._nothing is not None:
                captions = sum(n for why, n in refused.items() if why.startswith("caption/"))
                self._nothing.update(samples=1, annotations=len(sample.annotations), captions=captions)
            return None
        if self._source.mask_weight is not None:
            target = weighted(target, kept, self._source.mask_weight)
        if image is None:
            image = self._pixels.load(self._taken.images, sample)
        if self._captioner is not None:
            example = captioner_view(image, target, side=self._captioner.image_size)
        else:
            example = train_view(image, target, self._task.AUGMENTATION, self._augment, rng)
        self._seen.count(self._index, {**refused, **counted(kept, target, example)})
        return example

    def _pass_over(self, why: str) -> None:
        """Count a row that is not used.

        Raises:
            SynthgenError: they are too many in a row.
        """
        self._seen.count(self._index, {f"skipped/{why}": 1})
        self._idle += 1
        name = self._taken.name
        if self._nothing is not None and self._nothing["samples"] == TRIES:
            remedy = self._remedy(self._nothing)
            raise SynthgenError(f"{self._source.task} found nothing in {TRIES:,} samples of {name}; {remedy}")
        if self._idle >= max(TRIES, 2 * self._taken.rows):
            raise SynthgenError(
                f"no image of {name} can be learned from: all are on a list of exclude: or have an error; take it out"
            )

    def _give_up(self, sample: Sample, why: ImageError | SynthgenError) -> None:
        """Count and name an image that cannot be used.

        Raises:
            SynthgenError: they are too many in a row.
        """
        unreadable = isinstance(why, ImageError)
        self._seen.name(self._index, f"{sample.file_name}: {why}")
        self._failed += 1
        if self._failed == (UNREADABLE_PART if self._used else UNREADABLE):
            first = f"{self._failed:,} images of {self._taken.name} in a row"
            if not unreadable:
                raise SynthgenError(f"{first} have annotations that cannot be learned from; the last: {why}")
            raise SynthgenError(
                f"{first} cannot be read from {self._taken.images} (the last: {why}); is it their folder? "
                f"Say which is with images: in mixture.{self._index}"
            )
        self._pass_over("unreadable" if unreadable else "broken")

    def _remedy(self, held: Counter[str]) -> str:
        """What may be wrong where nothing is learned from many samples, which held so many annotations and so on."""
        if not held["annotations"]:
            return "they have no annotations; name another layer"
        if self._task.METRIC not in ("ciou", "cider"):
            return f"does it fit their {held['annotations']:,} annotations?"
        if held["captions"]:
            return f"{held['captions']:,} captions were refused; lower the thresholds of mixture.{self._index}"
        return "does this layer have captions?"


def counted(sample: Sample, target: Target, example: Example) -> dict[str, int]:
    """What an example adds to `seen.COUNTED`.

    Args:
        sample, target: what it was made from.
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
