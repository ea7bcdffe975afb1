"""The rows of a layer by their position: which shard and row group holds an image, and reading it."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.records.sample import Sample
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: What is kept of a footer.
_KEPT_MEMBERS = ("categories", "category_records", "licenses", "recipe", "counts")


@dataclass(frozen=True, slots=True)
class _ShardRows:
    """The rows of one shard.

    Attributes:
        start: the position of its first row in the layer.
        group_starts: the position of the first row of each row group in the shard, and the number of rows.
    """

    shard: Shard
    start: int
    group_starts: tuple[int, ...]


class LayerRows:
    """The committed shards of a layer, in order. Footers are read at the first use; rows when they are asked for.

    Attributes:
        shards: the shards.
        place: (dataset, split, layer).

    Args:
        store: the store that has the shards.
        shards: the committed shards of one layer, in order; at least one.
        images: the folder of the images; None = it is not known.
    """

    def __init__(self, store: ShardStore, shards: Sequence[Shard], images: Path | None) -> None:
        self.store, self.shards = store, tuple(shards)
        self.place = shards[0].dataset, shards[0].split, shards[0].layer
        self._images = images
        self._last: tuple[tuple[int, int], tuple[Sample, ...]] | None = None  # the row group that was read last

    @cached_property
    def _footers(self) -> tuple[list[_ShardRows], list[dict[str, Any]]]:
        rows, footers, start = [], [], 0
        for shard in self.shards:
            footer, sizes = self.store.read_row_group_sizes(shard)
            group_starts = tuple(itertools.accumulate(sizes, initial=0))
            rows.append(_ShardRows(shard, start, group_starts))
            footers.append({name: footer.get(name) for name in _KEPT_MEMBERS})
            start += group_starts[-1]
        return rows, footers

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The names of categories in the footers, in order, each once."""
        names = itertools.chain.from_iterable(footer["categories"] or () for footer in self._footers[1])
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))

    def source_records(self, member: str) -> list[dict[str, Any]]:
        """The records under a member of all footers, each id once.

        Args:
            member: "category_records" or "licenses".
        """
        found: dict[int, dict[str, Any]] = {}
        for record in itertools.chain.from_iterable(footer[member] or () for footer in self._footers[1]):
            if isinstance(record, dict) and isinstance(record.get("id"), int):
                found.setdefault(record["id"], record)
        return list(found.values())

    def count_flag(self, flag: str) -> int:
        """The number of annotations with a flag, by the footers.

        Args:
            flag: a key of `ANNOTATION_FLAGS`.
        """
        return sum(((footer["counts"] or {}).get("flags") or {}).get(flag, 0) for footer in self._footers[1])

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of the first shard."""
        return dict(self._footers[1][0]["recipe"] or {})

    @cached_property
    def image_folder(self) -> Path | None:
        """The folder of the images: that of the user, else that of the runs on the layer; None = not known."""
        return self._images or find_image_folder(self.store, *self.place)

    def __len__(self) -> int:
        last = self._footers[0][-1]
        return last.start + last.group_starts[-1]

    def read(self, row: int) -> Sample:
        """One row. Its row group stays in memory until a row of another one is read."""
        shards = self._footers[0]
        number = bisect_right(shards, row, key=lambda one: one.start) - 1
        # An empty shard begins where the next one does; the last one that begins there has the row.
        found = shards[number]
        group = bisect_right(found.group_starts, row - found.start) - 1
        last = self._last  # once, as another thread may replace it meanwhile
        if last is None or last[0] != (number, group):
            last = (number, group), tuple(self.store.read_samples(found.shard, [group]))
            self._last = last
        place = row - found.start - found.group_starts[group]
        if place >= len(last[1]):
            raise _changed_error(found.shard)
        return last[1][place]

    def stream(self, rows: range) -> Iterator[Sample]:
        """The rows of a range, one row group in memory at a time. Row groups without one of them are not read."""
        if rows.step < 0:
            yield from map(self.read, rows)
            return
        for one in self._footers[0]:
            own = range_between(rows, one.start, one.start + one.group_starts[-1])
            if not own:
                continue
            groups = [
                group
                for group, (first, end) in enumerate(itertools.pairwise(one.group_starts))
                if range_between(own, one.start + first, one.start + end)
            ]
            places = (
                place
                for group in groups
                for place in range(one.start + one.group_starts[group], one.start + one.group_starts[group + 1])
            )
            samples = self.store.read_samples(one.shard, groups)
            for place in places:
                if (sample := next(samples, None)) is None:
                    raise _changed_error(one.shard)
                if place in own:
                    yield sample

    def stream_keys(self, rows: range) -> Iterator[str]:
        """The image keys of the rows of a range, in ascending order. Only their column is read.

        Args:
            rows: positions in the layer.
        """
        rows = rows[::-1] if rows.step < 0 else rows
        for one in self._footers[0]:
            end = one.start + one.group_starts[-1]
            if not range_between(rows, one.start, end):
                continue
            place = one.start
            for batch in self.store.read_columns(one.shard, ["image_key"]):
                keys = batch.column(0).to_pylist()
                yield from (keys[row - place] for row in range_between(rows, place, place + len(keys)))
                place += len(keys)


def _changed_error(shard: Shard) -> SynthgenError:
    return SynthgenError(f"{shard} was made again since the layer was opened; open the layer again")


def range_between(rows: range, first: int, end: int) -> range:
    """The numbers of an ascending range, `rows`, in [first, end)."""
    low = max(0, -(-(first - rows.start) // rows.step))
    high = max(low, -(-(end - rows.start) // rows.step))
    return rows[low:high]
