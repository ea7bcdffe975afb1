"""Streams the rows of one source in a shuffled order. All readers together read every row once per epoch.

A layer is read in units: row groups, or slices of them if it has few. Each epoch shuffles the units again. Each of R
readers takes every R-th unit and shuffles its rows. So the position of a reader is three integers, and a reader holds
one row group at most. Each random number follows from the manifest's seed and its purpose, never from earlier draws, so
a stream can resume anywhere.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.dataloading.source_config import LayerSource, TrainSource
from synthgen.errors import SynthgenError
from synthgen.images.decode import find_image, load_rgb
from synthgen.records.sample import Sample
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: Units for each reader, so that their shares of an epoch are nearly equal.
UNITS_PER_READER = 4


@dataclass(frozen=True, slots=True, eq=False)
class SourceIndex:
    """The row groups that a source takes from its layer; built once and shared by all readers.

    Attributes:
        name: "dataset/split/layer".
        shards: in order.
        row_groups: int32 [G, 3]: index in `shards`, row group in that shard, its number of rows.
        categories: the unique category names of the layer.
        image_folder: the folder of its images.
    """

    name: str
    shards: tuple[Shard, ...]
    row_groups: NDArray[np.int32]
    categories: tuple[str, ...]
    image_folder: Path

    @property
    def num_rows(self) -> int:
        return int(self.row_groups[:, 2].sum())


class Cursor(NamedTuple):
    """The position of a reader in a source: the epoch, its unit in that, the next row in the unit."""

    epoch: int = 0
    unit: int = 0
    row: int = 0


START = Cursor()


def build_source_index(store: ShardStore, source: LayerSource) -> SourceIndex:
    """Build the index of a source from the headers of its shards: about a millisecond each.

    Args:
        store: where the layer is.
        source: names the layer and, for training, its share of the shards.

    Raises:
        SynthgenError: there is no such layer, it has no images, or its image folder is unknown.
    """
    name = source.shards
    shards = store.list_shards(*source.parts)
    if isinstance(source, TrainSource):
        shards = source.select_shards(shards)
    if not shards:
        raise SynthgenError(f"no shards of {name} in {store.root}; `synthgen status` lists what is there")
    groups: list[tuple[int, int, int]] = []
    categories: dict[str, None] = {}
    for place, shard in enumerate(shards):
        footer, rows = store.read_row_group_sizes(shard)
        groups += [(place, group, count) for group, count in enumerate(rows) if count]
        categories.update(dict.fromkeys(footer.get("categories", ())))
    if not groups:
        raise SynthgenError(f"{name} holds no images; take it out of the manifest, or name another layer")
    folder = source.images or find_image_folder(store, *source.parts)
    if folder is None:
        raise SynthgenError(f"where are the images of {name}? Add images: FOLDER to it in the manifest")
    return SourceIndex(name, tuple(shards), np.array(groups, np.int32), tuple(categories), folder)


def split_into_units(source_index: SourceIndex, num_readers: int) -> NDArray[np.int32]:
    """int32 [U, 4]: shard, row group, first row, end row.

    There are at least `UNITS_PER_READER` units for each reader, if there are enough rows.

    Args:
        source_index: the shards and row groups of a source.
        num_readers: the number of readers of all training processes.
    """
    most = max(1, source_index.num_rows // (UNITS_PER_READER * num_readers))  # rows per unit
    place, group, rows = source_index.row_groups.T.astype(np.int64)
    pieces = -(-rows // most)
    if (pieces == 1).all():
        return np.stack([place, group, np.zeros_like(rows), rows], axis=1).astype(np.int32)
    of = np.repeat(np.arange(len(rows)), pieces)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first, end = (which * rows[of] // pieces[of] for which in (nth, nth + 1))
    return np.stack([place[of], group[of], first, end], axis=1).astype(np.int32)


def select_reader_units(
    all_units: NDArray[np.int32], seed_key: str, reader_id: int, num_readers: int
) -> NDArray[np.int32]:
    """The units of a reader in an epoch, in order: int32 [u, 4].

    The units of different readers are disjoint; together they are `all_units`.

    Args:
        all_units: int32 [U, 4], from `split_into_units`.
        seed_key: seed of the order: the epoch and the source.
        reader_id: which of the readers, from 0.
        num_readers: the number of readers of all training processes.
    """
    order = list(range(len(all_units)))
    rng = random.Random(seed_key)  # noqa: S311 - which image comes next is no secret
    rng.shuffle(order)
    first = (reader_id + rng.randrange(num_readers)) % num_readers  # the smaller share changes hands each epoch
    return all_units[order[first::num_readers]]


class ShuffledRows:
    """The rows of a source that one reader reads, endlessly, each with its own random generator.

    Args:
        store: where the shards are.
        source_index: names the shards and their row groups.
        seed_key: seed of this source: the manifest's seed and the source's index in it.
        reader_id: which of the readers, from 0.
        num_readers: the number of readers of all training processes.
        cursor: the position to start at.
    """

    def __init__(
        self,
        store: ShardStore,
        source_index: SourceIndex,
        *,
        seed_key: str,
        reader_id: int,
        num_readers: int,
        cursor: Cursor = START,
    ) -> None:
        self._store, self._source_index, self._seed_key = store, source_index, seed_key
        self._reader_id, self._num_readers = reader_id, num_readers
        self._units = split_into_units(source_index, num_readers)
        self._epoch, self._unit, self._row = cursor
        self._assigned_units = self._select_units()
        self._group = (-1, -1)
        self._samples: list[Sample] = []
        self._unit_samples: list[tuple[Sample, str]] = []
        if self._unit < len(self._assigned_units) and self._row:
            self._unit_samples = self._load_unit()

    @property
    def cursor(self) -> Cursor:
        """The current position. A `ShuffledRows` that starts there gives the same next rows."""
        return Cursor(self._epoch, self._unit, self._row)

    def __iter__(self) -> Iterator[tuple[Sample, random.Random]]:
        return self

    def __next__(self) -> tuple[Sample, random.Random]:
        while self._row >= len(self._unit_samples):
            if self._row:
                self._unit += 1
                self._row = 0
            while self._unit >= len(
                self._assigned_units
            ):  # with more readers than rows, this one has no rows in some epochs
                self._epoch += 1
                self._unit = 0
                self._assigned_units = self._select_units()
            self._unit_samples = self._load_unit()
        sample, key = self._unit_samples[self._row]
        self._row += 1
        return sample, random.Random(key)  # noqa: S311

    def _select_units(self) -> NDArray[np.int32]:
        return select_reader_units(self._units, f"{self._seed_key}/{self._epoch}", self._reader_id, self._num_readers)

    def _load_unit(self) -> list[tuple[Sample, str]]:
        """The rows of the current unit in the order of this epoch, and the seed of their generators."""
        place, group, first, end = self._assigned_units[self._unit].tolist()
        shard = self._source_index.shards[place]
        key = f"{self._seed_key}/{self._epoch}/{shard.index}/{group}"
        if self._group != (place, group):  # units of one row group may follow each other
            self._samples, self._unit_samples = [], []  # release the old row group first
            self._samples = list(self._store.read_samples(shard, [group]))
            self._group = place, group
        order = list(range(first, end))
        random.Random(f"{key}/{first}").shuffle(order)  # noqa: S311
        return [(self._samples[row], f"{key}/{row}") for row in order]


class SequentialRows:
    """All rows of a source by number, for evaluation. Keeps the last row group.

    Args:
        store: the store that has the source's shards.
        source_index: the shards and row groups of the source.
    """

    def __init__(self, store: ShardStore, source_index: SourceIndex) -> None:
        self._store, self._source_index = store, source_index
        self._ends = np.cumsum(source_index.row_groups[:, 2], dtype=np.int64)
        self._group = -1
        self._group_samples: list[Sample] = []

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: int) -> Sample:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group != self._group:
            place, number, _ = self._source_index.row_groups[group].tolist()
            self._group_samples = list(self._store.read_samples(self._source_index.shards[place], [number]))
            self._group = group
        return self._group_samples[row - int(self._ends[group]) + len(self._group_samples)]


class ImageCache:
    """Reads images from files and caches the last used ones, decoded, up to a number of bytes.

    Args:
        cache_bytes: the limit of all cached images, in bytes; 0 = nothing is cached.
    """

    def __init__(self, cache_bytes: int = 0) -> None:
        self._capacity_bytes, self._used_bytes = cache_bytes, 0
        self._images: OrderedDict[tuple[Path, str, int, int], NDArray[np.uint8]] = OrderedDict()

    def load(self, folder: Path, sample: Sample) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], RGB; read-only.

        Args:
            folder: the image folder.
            sample: names the file, and gives its size in pixels; 0 = unknown.

        Raises:
            ImageError: it cannot be read, or its size differs from the sample's.
        """
        key = (folder, sample.file_name, sample.height, sample.width)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        image = load_rgb(find_image(folder, sample.file_name), sample.height, sample.width)
        image.flags.writeable = False
        if image.nbytes <= self._capacity_bytes:
            self._images[key] = image
            self._used_bytes += image.nbytes
        while self._used_bytes > self._capacity_bytes:
            self._used_bytes -= self._images.popitem(last=False)[1].nbytes
        return image
