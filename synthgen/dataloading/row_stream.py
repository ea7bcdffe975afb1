"""One source's rows, in an order of each reader's own: all readers together see every row once an epoch.

A layer is read by units, which are its row groups, or slices of them where it has few. Each epoch shuffles the units
anew; each of R readers takes every R-th of them, and the rows of each in an order drawn anew. So where a reader
is, is three whole numbers, and no reader holds more than one row group. Every number drawn follows from the manifest's
seed and from what it is drawn for, and nothing from what was drawn before it: a stream goes on where it stopped.
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

from synthgen.dataloading.source_config import Reading, Source
from synthgen.errors import SynthgenError
from synthgen.images.decode import find, load_rgb
from synthgen.records.sample import Sample
from synthgen.storage.run_log import images_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: A layer is cut so that there are so many units for each reader: their shares of an epoch are nearly alike then.
UNITS_A_READER = 4


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a source takes of its layer, looked up once and handed to all readers.

    Attributes:
        name: "dataset/split/layer".
        shards: in order.
        groups: int32 [G, 3]: place in `shards`, row group in that, rows of it.
        categories: the layer's names, without repetition.
        images: the folder of its images.
    """

    name: str
    shards: tuple[Shard, ...]
    groups: NDArray[np.int32]
    categories: tuple[str, ...]
    images: Path

    @property
    def rows(self) -> int:
        return int(self.groups[:, 2].sum())


class Place(NamedTuple):
    """Where a reader is in a source: the epoch, which of its units, which of that unit's rows comes next."""

    epoch: int = 0
    unit: int = 0
    row: int = 0


START = Place()


def take(store: ShardStore, source: Reading) -> Taken:
    """Look up what a source takes, from the headers of its shards: about a millisecond each.

    Raises:
        SynthgenError: there is no such layer, it holds no images, or nobody knows where these are.
    """
    name = source.shards
    shards = store.layer(*source.parts)
    if isinstance(source, Source):
        shards = source.taken(shards)
    if not shards:
        raise SynthgenError(f"no shards of {name} in {store.root}; `synthgen status` lists what is there")
    groups: list[tuple[int, int, int]] = []
    categories: dict[str, None] = {}
    for place, shard in enumerate(shards):
        footer, rows = store.row_groups(shard)
        groups += [(place, group, count) for group, count in enumerate(rows) if count]
        categories.update(dict.fromkeys(footer.get("categories", ())))
    if not groups:
        raise SynthgenError(f"{name} holds no images; take it out of the manifest, or name another layer")
    folder = source.images or images_folder(store, *source.parts)
    if folder is None:
        raise SynthgenError(f"where are the images of {name}? Add images: FOLDER to it in the manifest")
    return Taken(name, tuple(shards), np.array(groups, np.int32), tuple(categories), folder)


def units(taken: Taken, readers: int) -> NDArray[np.int32]:
    """int32 [U, 4]: place of the shard, row group, first row in it, end; at least `UNITS_A_READER` for each reader, as
    far as there are rows.
    """
    most = max(1, taken.rows // (UNITS_A_READER * readers))  # rows a unit
    place, group, rows = taken.groups.T.astype(np.int64)
    pieces = -(-rows // most)
    if (pieces == 1).all():
        return np.stack([place, group, np.zeros_like(rows), rows], axis=1).astype(np.int32)
    of = np.repeat(np.arange(len(rows)), pieces)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first, end = (which * rows[of] // pieces[of] for which in (nth, nth + 1))
    return np.stack([place[of], group[of], first, end], axis=1).astype(np.int32)


def own(cut: NDArray[np.int32], key: str, reader: int, readers: int) -> NDArray[np.int32]:
    """A reader's units of an epoch, in order: int32 [u, 4]; those of all readers are disjoint, their union is `cut`.

    Args:
        key: what the order follows from: the epoch, and whose it is.
    """
    order = list(range(len(cut)))
    rng = random.Random(key)  # noqa: S311 - which image comes next is no secret
    rng.shuffle(order)
    first = (reader + rng.randrange(readers)) % readers  # whose share is smaller changes with the epoch
    return cut[order[first::readers]]


class Rows:
    """The rows of a source that one reader sees, endlessly, each with the random generator that is its own.

    Args:
        key: what tells this source's draws from others': the manifest's seed, and the source's place in it.
        at: where to begin.
    """

    def __init__(
        self, store: ShardStore, taken: Taken, *, key: str, reader: int, readers: int, at: Place = START
    ) -> None:
        self._store, self._taken, self._key = store, taken, key
        self._reader, self._readers = reader, readers
        self._units = units(taken, readers)
        self._epoch, self._unit, self._row = at
        self._mine = self._shuffled()
        self._group = (-1, -1)
        self._samples: list[Sample] = []
        self._held: list[tuple[Sample, str]] = []
        if self._unit < len(self._mine) and self._row:
            self._held = self._unit_rows()

    @property
    def place(self) -> Place:
        """Where this reader is: a `Rows` that begins there gives the rows that this one gives next."""
        return Place(self._epoch, self._unit, self._row)

    def __iter__(self) -> Iterator[tuple[Sample, random.Random]]:
        return self

    def __next__(self) -> tuple[Sample, random.Random]:
        while self._row >= len(self._held):
            if self._row:
                self._unit += 1
                self._row = 0
            while self._unit >= len(self._mine):  # with more readers than rows, some epochs have nothing for this one
                self._epoch += 1
                self._unit = 0
                self._mine = self._shuffled()
            self._held = self._unit_rows()
        sample, key = self._held[self._row]
        self._row += 1
        return sample, random.Random(key)  # noqa: S311

    def _shuffled(self) -> NDArray[np.int32]:
        return own(self._units, f"{self._key}/{self._epoch}", self._reader, self._readers)

    def _unit_rows(self) -> list[tuple[Sample, str]]:
        """The rows of the present unit in the order of this epoch, and what their generators are seeded with."""
        place, group, first, end = self._mine[self._unit].tolist()
        shard = self._taken.shards[place]
        key = f"{self._key}/{self._epoch}/{shard.index}/{group}"
        if self._group != (place, group):  # in a layer of one row group, units follow each other in it
            self._samples, self._held = [], []  # no two at a time
            self._samples = list(self._store.read(shard, [group]))
            self._group = place, group
        order = list(range(first, end))
        random.Random(f"{key}/{first}").shuffle(order)  # noqa: S311
        return [(self._samples[row], f"{key}/{row}") for row in order]


class InOrder:
    """All rows of a source by their number, as an evaluation reads them; the row group last read is kept."""

    def __init__(self, store: ShardStore, taken: Taken) -> None:
        self._store, self._taken = store, taken
        self._ends = np.cumsum(taken.groups[:, 2], dtype=np.int64)
        self._group = -1
        self._held: list[Sample] = []

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: int) -> Sample:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group != self._group:
            place, number, _ = self._taken.groups[group].tolist()
            self._held = list(self._store.read(self._taken.shards[place], [number]))
            self._group = group
        return self._held[row - int(self._ends[group]) + len(self._held)]


class Pixels:
    """Images from their files; those last used are kept, decoded, up to so many bytes."""

    def __init__(self, cache_bytes: int = 0) -> None:
        self._most, self._bytes = cache_bytes, 0
        self._kept: OrderedDict[tuple[Path, str, int, int], NDArray[np.uint8]] = OrderedDict()

    def load(self, folder: Path, sample: Sample) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], RGB; not to be written to.

        Raises:
            ImageError: it cannot be read, or is of another size than the sample says.
        """
        key = (folder, sample.file_name, sample.height, sample.width)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = load_rgb(find(folder, sample.file_name), sample.height, sample.width)
        image.flags.writeable = False
        if image.nbytes <= self._most:
            self._kept[key] = image
            self._bytes += image.nbytes
        while self._bytes > self._most:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return image
