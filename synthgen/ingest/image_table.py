"""All images of a dataset in little memory: numbers in arrays, names in two long byte strings."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers import ImageBatch
from synthgen.records.box_table import NO_ID

_MAX_BITMAP_SIZE = 2**26  # image ids of the known releases are below 2**23

_UNLISTED = "the annotation file lists no image of this id; only annotations have it"
_SAME_ID = "another image of the file has the same id; the annotations are with the first"
_NO_NAME = "the annotation file gives no file name for this image"

#: Errors of rows that do not come from the reader (`ImageBatch.error`).
IMAGE_ERRORS = frozenset({_UNLISTED, _SAME_ID, _NO_NAME})


class ImageTable:
    """All images of a dataset: 1.7 M of them take some 200 MB.

    Attributes:
        file_name, image_key: by row.
        neg_categories, not_exhaustive_categories: by row, for datasets that have them.
        id_text: by row, the id as the file spells it if that is a text, else "".
    """

    def __init__(self) -> None:
        self.file_name, self.image_key, self.id_text = StringColumn(), StringColumn(), StringColumn()
        self.neg_categories, self.not_exhaustive_categories = _IntListColumn(), _IntListColumn()
        self._parts: list[NDArray[np.int64]] = [np.empty((0, 4), np.int64)]  # image_id, height, width, license_id
        self._ids: NDArray[np.int64] | None = None
        self._id_bitmap: NDArray[np.bool_] | None = None  # by id, from the lowest on; None if it would be large
        self._num_listed: int | None = None  # later rows are not in the file
        self._reader_errors: dict[int, str] = {}  # by row
        self._count = 0

    def add(self, batch: ImageBatch) -> None:
        """Add a batch: its images are the next rows."""
        license_id = np.full(len(batch.image_id), NO_ID) if batch.license_id is None else batch.license_id
        self._parts.append(np.column_stack([batch.image_id, batch.height, batch.width, license_id]).astype(np.int64))
        self.file_name.extend(batch.file_name)
        self.image_key.extend(batch.image_key)
        self.id_text.extend(batch.id_text or [""] * len(batch.image_id))
        self.neg_categories.extend(batch.neg_categories, self._count)
        self.not_exhaustive_categories.extend(batch.not_exhaustive_categories, self._count)
        self._reader_errors |= {self._count + row: error for row, error in enumerate(batch.error or ()) if error}
        self._count += len(batch.image_id)
        self._ids = None

    def add_unlisted(self, image_id: NDArray[np.int64], dataset_name: str) -> None:
        """Add images that occur only in annotations. No batch may follow.

        Args:
            image_id: int64 [N], the new ids.
            dataset_name: name in the store, for the image keys.
        """
        self._num_listed = len(self._table())
        size = np.zeros(len(image_id), np.int32)
        keys = [f"{dataset_name}/unlisted/{i}" for i in image_id.tolist()]
        self.add(ImageBatch(image_id, [""] * len(keys), keys, size, size))

    def sorted_ids(self) -> NDArray[np.int64]:
        """The unique ids, sorted."""
        if self._ids is None:
            ids = self._ids = np.unique(self._table()[:, 0])
            self._id_bitmap = None
            if len(ids) and int(ids[-1]) - int(ids[0]) < _MAX_BITMAP_SIZE:
                self._id_bitmap = np.zeros(int(ids[-1]) - int(ids[0]) + 1, np.bool_)
                self._id_bitmap[ids - ids[0]] = True
        return self._ids

    def find_unlisted(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids without an image, sorted, unique: int64 [K].

        Args:
            ids: int64 [M], in any order, with repetitions.
        """
        listed = self.sorted_ids()
        if not len(listed) or not len(ids):
            return np.unique(ids)
        if self._id_bitmap is not None:  # the usual case, 100 times as fast as a search
            inside = (ids >= listed[0]) & (ids <= listed[-1])
            return np.unique(ids[~(inside & self._id_bitmap[np.where(inside, ids - listed[0], 0)])])
        ids = np.unique(ids)
        found: NDArray[np.int64] = ids[listed[np.minimum(np.searchsorted(listed, ids), len(listed) - 1)] != ids]
        return found

    def sort_by_id(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The row order by id (stable), and the ids in that order."""
        ids = self._table()[:, 0]
        rows = np.argsort(ids, kind="stable")
        return rows, ids[rows]

    def ids_and_sizes(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """image_id, height, width of some rows: int64, int32 and int32 [N], sizes in pixels.

        Args:
            rows: int64 [N], rows of the table.
        """
        found = self._table()[rows]
        return np.ascontiguousarray(found[:, 0]), found[:, 1].astype(np.int32), found[:, 2].astype(np.int32)

    def license_ids(self, rows: NDArray[np.int64]) -> list[int | None] | None:
        """The numbers of the licences of some rows; None = none of them has one.

        Args:
            rows: int64 [N], rows of the table.
        """
        found = self._table()[rows, 3]
        return [None if i == NO_ID else i for i in found.tolist()] if (found != NO_ID).any() else None

    def row_errors(
        self, rows: NDArray[np.int64], is_repeated_id: NDArray[np.bool_], file_name: Sequence[str]
    ) -> list[str | None]:
        """The errors of some rows; None = the row has none.

        Args:
            rows: int64 [N], rows of the table.
            is_repeated_id: bool [N], whether an earlier row has the same id.
            file_name: N file names; "" = the file gives none.
        """
        listed = len(self._table()) if self._num_listed is None else self._num_listed
        return [
            _UNLISTED if row >= listed else _SAME_ID if second else self._reader_errors.get(row) if file else _NO_NAME
            for row, second, file in zip(rows.tolist(), is_repeated_id.tolist(), file_name, strict=True)
        ]

    def _table(self) -> NDArray[np.int64]:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]


class StringColumn:
    """Many short strings: their bytes concatenated, and the offset of each."""

    def __init__(self) -> None:
        self._text, self._starts = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def extend(self, texts: Sequence[str]) -> None:
        """Append `texts`; what UTF-8 cannot encode becomes a question mark."""
        encoded = [text.encode("utf-8", "replace") for text in texts]
        self._starts.extend(list(accumulate(map(len, encoded), initial=len(self._text)))[1:])
        self._text += b"".join(encoded)

    def digest(self) -> str:
        """SHA-256 of all strings in their order, in hexadecimal."""
        found = sha256(self._text)
        found.update(self._starts)
        return found.hexdigest()

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """The strings of some rows.

        Args:
            rows: int64 [N], which strings.
        """
        starts = self._starts
        return [self._text[starts[row] : starts[row + 1]].decode() for row in rows.tolist()]


class _IntListColumn:
    """A short list of integers per row, if any row has one."""

    def __init__(self) -> None:
        self._of: dict[int, array[int]] = {}

    def extend(self, lists: Iterable[Sequence[int]] | None, start: int) -> None:
        """Add the lists of the rows from `start` on; None = these rows have none."""
        if lists is not None:
            self._of.update((row, array("q", numbers)) for row, numbers in enumerate(lists, start))

    def take(self, rows: NDArray[np.int64]) -> list[Sequence[int]] | None:
        """The lists of some rows, empty for a row without one; None if no row has a list."""
        return [self._of.get(row, ()) for row in rows.tolist()] if self._of else None
