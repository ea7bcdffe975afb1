"""External sort of annotations by image id: partitions on disk by ranges of ids, each range sorted in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers import AnnotationBatch

#: A range with at most this many bytes on disk is sorted in memory; a larger one is split. So memory holds a few times
#: this, or a few times the annotations of one image with more.
MAX_RUN_BYTES = 32 * 2**20

_MAX_RANGES = 64  # ranges at a time; each has two open files
_BLOCK_RECORDS = 100_000  # records read at a time to split a range
_NO_PAYLOAD = -1  # payload length that stands for no payload

_RECORD_DTYPE = np.dtype(
    [
        ("image_id", "<i8"),
        ("id", "<i8"),
        ("bbox", "<f8", (4,)),
        ("category", "<i8"),
        ("area", "<f8"),
        ("bits", "<u4"),
        ("payload", "<i4"),  # its length in bytes
    ]
)


class SortedRun(NamedTuple):
    """Annotations sorted by (image_id, id); equal ones keep their order.

    Attributes:
        image_id: int64 [M].
        records: [M] of fields id int64, bbox float64 [4], category int64, area float64 (NaN = not given), bits uint32
            (see `ExternalSorter.flags`), and others.
        payloads: one per annotation; empty if the layer has none.
    """

    image_id: NDArray[np.int64]
    records: NDArray[Any]
    payloads: list[bytes | None]

    def __add__(self, other: SortedRun) -> SortedRun:  # type: ignore[override]
        """This run followed by the other."""
        if not len(self.records):
            return other
        return SortedRun(
            np.concatenate([self.image_id, other.image_id]),
            np.concatenate([self.records, other.records]),
            self.payloads + other.payloads,
        )

    def select_rows(self, start: int, end: int) -> SortedRun:
        """Rows [start, end)."""
        return SortedRun(self.image_id[start:end], self.records[start:end], self.payloads[start:end])


#: No annotations.
EMPTY_RUN = SortedRun(np.empty(0, np.int64), np.empty(0, _RECORD_DTYPE), [])


class ExternalSorter:
    """Takes annotations in any order and gives them back sorted by image.

    Attributes:
        flags: flag -> its bit in `records["bits"]`; bit 0 is iscrowd.
        count: number of annotations added.
    """

    def __init__(self, folder: Path, expected_bytes: int = 0) -> None:
        """`folder`: a scratch folder that exists; `expected_bytes`: an estimate of all bytes."""
        self.folder, self.expected_bytes = folder, expected_bytes
        self.flags: dict[str, int] = {}
        self.count = 0
        self._edges: NDArray[np.int64] | None = None  # range r is of the ids in [edges[r - 1], edges[r])
        self._ranges: list[_RangeFile] = []
        self._has_payloads = False

    def add(self, batch: AnnotationBatch, image_ids: NDArray[np.int64]) -> None:
        """Add a batch. The first batch sets the ranges, from the image ids known so far.

        Args:
            batch: annotations of any images.
            image_ids: int64 [N], sorted: ids of the images known so far.
        """
        if self._edges is None:
            number = min(_MAX_RANGES, 1 + 2 * self.expected_bytes // MAX_RUN_BYTES, max(1, len(image_ids)))
            places = np.linspace(0, len(image_ids), number, endpoint=False).astype(np.int64)[1:]
            self._edges = np.unique(image_ids[places])
            self._ranges = self._new_ranges(self.folder / "range", len(self._edges) + 1)
        records = np.empty(len(batch.id), _RECORD_DTYPE)
        for field in ("image_id", "id", "bbox", "category"):
            records[field] = getattr(batch, field)
        records["area"] = math.nan if batch.area is None else batch.area
        bits = batch.iscrowd.astype(np.uint32)
        for flag, given in batch.flags.items():
            bits |= given.astype(np.uint32) << np.uint32(self.flags.setdefault(flag, len(self.flags) + 1))
        records["bits"] = bits
        payloads = batch.payload or []
        records["payload"] = [_NO_PAYLOAD if p is None else len(p) for p in payloads] if len(payloads) else _NO_PAYLOAD
        self.count += len(records)
        self._has_payloads = self._has_payloads or batch.payload is not None
        _partition(records, payloads, self._edges, self._ranges)

    def sorted_runs(self, image_ids: NDArray[np.int64]) -> Iterator[SortedRun]:
        """Yield all annotations in order, once, one range at a time.

        Args:
            image_ids: int64 [N], sorted, unique: ids of all images.
        """
        for part in self._ranges:
            part.close()
        for part in self._ranges:
            for small in self._split_large_range(part, image_ids):
                run = small.read_sorted(payloads=self._has_payloads)
                small.delete()
                yield run

    def _split_large_range(self, part: _RangeFile, image_ids: NDArray[np.int64]) -> Iterator[_RangeFile]:
        """The range, or smaller ranges if it has more than `MAX_RUN_BYTES` bytes and more than one image."""
        if part.num_bytes <= MAX_RUN_BYTES:
            yield part
            return
        sizes = np.zeros(len(image_ids), np.int64)
        for block in part.iter_blocks(payloads=self._has_payloads):
            size = _RECORD_DTYPE.itemsize + np.maximum(block.records["payload"], 0).astype(np.int64)
            np.add.at(sizes, np.searchsorted(image_ids, block.image_id), size)
        here = np.flatnonzero(sizes)
        before = np.cumsum(sizes[here]) - sizes[here]
        group = before // max(MAX_RUN_BYTES, -(-part.num_bytes // _MAX_RANGES))
        edges = image_ids[here[1:]][np.diff(group) > 0]
        if not len(edges):
            yield part
            return
        smaller = self._new_ranges(part.path, len(edges) + 1)
        for block in part.iter_blocks(payloads=self._has_payloads):
            _partition(block.records, block.payloads, edges, smaller)
        part.delete()
        for one in smaller:
            one.close()
        for one in smaller:
            yield from self._split_large_range(one, image_ids)

    def _new_ranges(self, path: Path, number: int) -> list[_RangeFile]:
        return [_RangeFile(path.with_name(f"{path.name}-{i}")) for i in range(number)]


class _RangeFile:
    """Records of one range of image ids on disk, unsorted, with their payloads in a second file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.payload_path = path.with_name(f"{path.name}.payloads")
        self.num_bytes = 0
        self._files = (path.open("wb", buffering=2**16), self.payload_path.open("wb", buffering=2**16))

    def write(self, records: NDArray[Any], payloads: Sequence[bytes | None]) -> None:
        text = b"".join(p for p in payloads if p is not None)
        self._files[0].write(records.tobytes())
        self._files[1].write(text)
        self.num_bytes += records.nbytes + len(text)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def iter_blocks(self, number: int = _BLOCK_RECORDS, *, payloads: bool) -> Iterator[SortedRun]:
        with self.path.open("rb") as file, self.payload_path.open("rb") as payload_file:
            while len(records := np.fromfile(file, _RECORD_DTYPE, number)):
                text = payload_file.read(_total_payload_bytes(records))
                cut = _split_payloads(text, records) if payloads else []
                yield SortedRun(np.ascontiguousarray(records["image_id"]), records, cut)

    def read_sorted(self, *, payloads: bool) -> SortedRun:
        run = next(self.iter_blocks(-1, payloads=payloads), EMPTY_RUN)
        order = _sort_order(run.image_id, run.records["id"])
        moved = [run.payloads[i] for i in order.tolist()] if payloads else []
        return SortedRun(run.image_id[order], np.take(run.records, order), moved)

    def delete(self) -> None:
        self.path.unlink()
        self.payload_path.unlink()


def _partition(
    records: NDArray[Any], payloads: Sequence[bytes | None], edges: NDArray[np.int64], ranges: list[_RangeFile]
) -> None:
    """Append each record to the file of its range, keeping the order."""
    which = np.searchsorted(edges, records["image_id"], side="right").astype(np.uint16)
    order = np.argsort(which, kind="stable")
    records = np.take(records, order)  # 14 times as fast as records[order]
    if len(payloads):
        payloads = [payloads[i] for i in order.tolist()]
    ends = np.cumsum(np.bincount(which, minlength=len(ranges))).tolist()
    for part, start, end in zip(ranges, [0, *ends[:-1]], ends, strict=True):
        if start < end:
            part.write(records[start:end], payloads[start:end])


def _sort_order(image_id: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stable sort order by (image_id, number)."""
    if len(image_id):
        low, high = (int(image_id.min()), int(number.min())), (int(image_id.max()), int(number.max()))
        span = high[1] - low[1] + 1
        if (high[0] - low[0] + 1) * span < 2**63:  # one sort by both takes half the time of two sorts
            return np.argsort((image_id - low[0]) * span + (number - low[1]), kind="stable")
    return np.lexsort((number, image_id))


def _total_payload_bytes(records: NDArray[Any]) -> int:
    return int(np.maximum(records["payload"], 0).sum(dtype=np.int64))


def _split_payloads(text: bytes, records: NDArray[Any]) -> list[bytes | None]:
    lengths = records["payload"]
    ends = np.cumsum(np.maximum(lengths, 0), dtype=np.int64).tolist()
    return [
        None if length == _NO_PAYLOAD else text[end - length : end]
        for length, end in zip(lengths.tolist(), ends, strict=True)
    ]
