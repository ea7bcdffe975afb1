"""A dataset's stream, sorted by image, audited, and cut into shards: of any size and in any order, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.generate.audit import audit
from synthgen.generate.datasets import Annotations, Categories, Images
from synthgen.generate.spill import EMPTY, Run, Spill
from synthgen.records.schema import BoxColumns

_LARGEST_TABLE = 2**26  # image ids of the known releases are below 2**23

_UNLISTED = "the annotation file lists no image of this id; only annotations have it"
_SAME_ID = "another image of the file has the same id; the annotations are with the first"
_NO_NAME = "the annotation file gives no file name for this image"

#: Every error of a row that is not the reader's own (`Images.error`).
ERRORS = frozenset({_UNLISTED, _SAME_ID, _NO_NAME})


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The slice of a dataset that makes one shard.

    Attributes:
        index, count: which shard of how many.
        total: images in the whole dataset.
        names: the file's category names, sorted, each once.
        columns: the slice's images and boxes, audited.
        payloads: one an annotation; empty where the layer has none.
    """

    index: int
    count: int
    total: int
    names: list[str]
    columns: BoxColumns
    payloads: list[bytes | None]


def cut(
    batches: Iterable[Images | Annotations | Categories],
    name: str,
    scratch: Path,
    *,
    expect: int = 0,
    shard_size: int = 0,
) -> Iterator[Cut]:
    """Yield a dataset's shards, in order, once its stream has ended.

    Images come in the order of their ids, annotations in that of theirs. Nothing is lost: an image id that only
    annotations have, or that two images have, makes a row with an error. Memory holds the images' names and numbers
    (some 100 bytes an image) and a few times `spill.BOUND`, or the annotations of the one image that has more.

    Args:
        name: what the store calls the dataset; for the keys of images that are nobody else's.
        scratch: an empty folder; 64 bytes an annotation, and its payload, are written there.
        expect: bytes that the stream comes from, as far as known.
        shard_size: images a shard; 0 = a 64th of all, at least 16 and at most 1000.

    Raises:
        SynthgenError: there are no images.
    """
    images, spill, categories, unlisted = _Images(), Spill(scratch, expect), Categories({}), _Ids()
    for batch in batches:
        if isinstance(batch, Images):
            images.add(batch)
        elif isinstance(batch, Annotations):
            spill.add(batch, images.ids())
            unlisted.add(images.without(batch.image_id))
        else:
            categories = Categories(categories.names | batch.names, categories.stuff | batch.stuff)
    images.add_unlisted(images.without(unlisted.all()), name)
    rows, ids = images.order()
    total = len(rows)
    if not total:
        raise SynthgenError(f"the files of {name} list no images; are they the right ones?")
    again = np.append(False, np.diff(ids) == 0)
    codes = _Codes(categories)
    size = shard_size or min(max(-(-total // 64), 16), 1000)
    runs = spill.runs(images.ids())
    ahead = EMPTY
    for index, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        while not len(ahead.image_id) or ahead.image_id[-1] <= ids[stop - 1]:
            run = next(runs, None)
            if run is None:
                break
            ahead += run
        # All annotations of the last image, even if the next shard begins with a second image of its id.
        end = int(np.searchsorted(ahead.image_id, ids[stop - 1], side="right"))
        run, ahead = ahead.part(0, end), ahead.part(end, len(ahead.image_id))
        columns = _columns(images, rows[start:stop], again[start:stop], run, codes, spill.flags, name)
        yield Cut(index, -(-total // size), total, codes.names, columns, run.payloads)


def _columns(
    images: _Images,
    rows: NDArray[np.int64],
    again: NDArray[np.bool_],
    run: Run,
    codes: _Codes,
    flags: dict[str, int],
    name: str,
) -> BoxColumns:
    """The columns of one shard: its images are `rows`, its annotations `run`."""
    image_id, height, width = images.numbers(rows)
    owner = np.searchsorted(image_id, run.image_id)
    records = run.records
    bits = records["bits"]
    given = {flag: (bits >> np.uint32(bit) & 1).astype(np.bool_) for flag, bit in flags.items()}
    bbox = np.ascontiguousarray(records["bbox"])
    if "no_box" in given:  # whatever a reader put there for want of a box
        bbox[given["no_box"] & ~np.isfinite(bbox).all(axis=1)] = 0.0
    category, known, isthing = codes.of(records["category"])
    iscrowd = (bits & 1).astype(np.bool_)
    file_name = images.file_name.take(rows)
    image_key = [key or f"{name}/{file}" for key, file in zip(images.image_key.take(rows), file_name, strict=True)]
    return BoxColumns(
        image_id=image_id,
        image_key=image_key,
        file_name=file_name,
        height=height,
        width=width,
        error=images.errors(rows, again, file_name),
        offsets=np.append(0, np.cumsum(np.bincount(owner, minlength=len(rows)))).astype(np.int32),
        id=np.ascontiguousarray(records["id"]),
        bbox=bbox,
        category=category,
        categories=codes.texts,
        iscrowd=iscrowd,
        isthing=isthing,
        flags=audit(
            bbox,
            height=height[owner],
            width=width[owner],
            image=owner,
            category=records["category"],
            iscrowd=iscrowd,
            known=known,
            given=given,
        ),
    )


class _Images:
    """All images of a dataset, as one array and two long texts: 1.7 M of them take some 200 MB."""

    def __init__(self) -> None:
        self.file_name, self.image_key = _Texts(), _Texts()
        self._parts: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]  # [N, 3]: image_id, height, width
        self._ids: NDArray[np.int64] | None = None
        self._there: NDArray[np.bool_] | None = None  # by id, from the lowest on; None if that were a large table
        self._listed: int | None = None  # rows from here on are not the file's own
        self._errors: dict[int, str] = {}  # what the reader says of a row
        self._count = 0

    def add(self, batch: Images) -> None:
        self._parts.append(np.column_stack([batch.image_id, batch.height, batch.width]).astype(np.int64))
        self.file_name.extend(batch.file_name)
        self.image_key.extend(batch.image_key)
        self._errors |= {self._count + row: error for row, error in enumerate(batch.error or ()) if error}
        self._count += len(batch.image_id)
        self._ids = None

    def add_unlisted(self, image_id: NDArray[np.int64], name: str) -> None:
        self._listed = len(self._table())
        size = np.zeros(len(image_id), np.int32)
        keys = [f"{name}/unlisted/{i}" for i in image_id.tolist()]
        self.add(Images(image_id, [""] * len(keys), keys, size, size))

    def ids(self) -> NDArray[np.int64]:
        """The ids, sorted, each once."""
        if self._ids is None:
            ids = self._ids = np.unique(self._table()[:, 0])
            self._there = None
            if len(ids) and int(ids[-1]) - int(ids[0]) < _LARGEST_TABLE:
                self._there = np.zeros(int(ids[-1]) - int(ids[0]) + 1, np.bool_)
                self._there[ids - ids[0]] = True
        return self._ids

    def without(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `ids` that no image has, sorted, each once."""
        listed = self.ids()
        if not len(listed) or not len(ids):
            return np.unique(ids)
        if self._there is not None:  # nearly always, and it is a hundred times as fast as a search
            inside = (ids >= listed[0]) & (ids <= listed[-1])
            return np.unique(ids[~(inside & self._there[np.where(inside, ids - listed[0], 0)])])
        ids = np.unique(ids)
        found: NDArray[np.int64] = ids[listed[np.minimum(np.searchsorted(listed, ids), len(listed) - 1)] != ids]
        return found

    def order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows in the order of their ids, equal ones as they came; and the ids in that order."""
        ids = self._table()[:, 0]
        rows = np.argsort(ids, kind="stable")
        return rows, ids[rows]

    def numbers(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """image_id, height, width of some rows."""
        found = self._table()[rows]
        return np.ascontiguousarray(found[:, 0]), found[:, 1].astype(np.int32), found[:, 2].astype(np.int32)

    def errors(self, rows: NDArray[np.int64], again: NDArray[np.bool_], file_name: Sequence[str]) -> list[str | None]:
        """What is wrong with some rows; `again`: whether an earlier one has the same id."""
        listed = len(self._table()) if self._listed is None else self._listed
        return [
            _UNLISTED if row >= listed else _SAME_ID if second else self._errors.get(row) if file else _NO_NAME
            for row, second, file in zip(rows.tolist(), again.tolist(), file_name, strict=True)
        ]

    def _table(self) -> NDArray[np.int64]:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]


class _Texts:
    """Many short texts: their bytes end to end, and where each begins."""

    def __init__(self) -> None:
        self._text, self._starts = bytearray(), array("q", [0])

    def extend(self, texts: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "replace") for text in texts]
        self._starts.extend(list(accumulate(map(len, encoded), initial=len(self._text)))[1:])
        self._text += b"".join(encoded)

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        starts = self._starts
        return [self._text[starts[row] : starts[row + 1]].decode() for row in rows.tolist()]


class _Ids:
    """A set of ids that arrives in pieces, mostly the same ones again."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._waiting = 0

    def add(self, ids: NDArray[np.int64]) -> None:
        if len(ids):
            self._parts.append(ids)
        self._waiting += len(ids)
        if self._waiting > 2**21 + len(self._parts[0]):
            self._parts, self._waiting = [self.all()], 0

    def all(self) -> NDArray[np.int64]:
        return np.unique(np.concatenate(self._parts))


class _Codes:
    """Category ids of the file -> indices into its names.

    Attributes:
        names: sorted, each once; texts: the same, and "" at the end for a category that the file does not name.
    """

    def __init__(self, categories: Categories) -> None:
        self.names = sorted({name for name in categories.names.values() if name})
        self.texts = [*self.names, ""]
        code = {name: i for i, name in enumerate(self.texts)}
        # With a last row that no id reaches, so that every search lands on a row.
        ids = sorted(categories.names)
        self._ids = np.array([*ids, 2**63 - 1], np.int64)
        self._codes = np.array([*(code[categories.names[i]] for i in ids), len(self.names)], np.int32)
        self._known = np.array([True] * len(ids) + [False])
        self._isthing = np.array([*(i not in categories.stuff for i in ids), True])

    def of(self, category: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
        """(index into `texts`, whether the file lists the category, whether it is a thing)."""
        place = np.searchsorted(self._ids, category)
        place[self._ids[place] != category] = len(self._ids) - 1
        return self._codes[place], self._known[place], self._isthing[place]
