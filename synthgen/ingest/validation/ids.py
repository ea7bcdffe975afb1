"""What occurs twice in a dataset, and what belongs to nothing: ids of images and annotations, and file names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers import Annotations, Images
from synthgen.ingest.image_table import ERRORS
from synthgen.ingest.validation.boxes import box_example
from synthgen.ingest.validation.diagnosis import EXAMPLES, Example, Findings
from synthgen.records.box_table import BoxColumns

_ANNOTATION_ID = "same_annotation_id_elsewhere"


class Ids:
    """All ids of a split, 8 bytes a box and 16 an image; once the file has been read, only those that occur twice."""

    def __init__(self) -> None:
        self._all: dict[str, list[NDArray[np.int64]]] = {"same_image_id": [], "same_file_name": [], _ANNOTATION_ID: []}
        self._listed = np.zeros(0, np.int64)
        self._twice: dict[str, NDArray[np.int64]] = {}
        self._again: dict[str, int] = {}  # how many have a value that was there before
        self._places: defaultdict[str, list[Example]] = defaultdict(list)

    def add(self, part: Images | Annotations) -> None:
        """Take the ids of a batch while the file is read."""
        # Copies: a reader's array may be a view that keeps all of a batch in memory.
        if isinstance(part, Images):
            self._all["same_image_id"].append(part.image_id.copy())
            self._all["same_file_name"].append(_digests([name for name in part.file_name if name]))
        else:
            self._all[_ANNOTATION_ID].append(part.id.copy())

    def close(self) -> None:
        """The file has been read: find what occurs twice, and let go of the rest."""
        for code, arrays in self._all.items():
            values = np.concatenate([np.zeros(0, np.int64), *arrays])
            arrays.clear()
            values.sort()
            if code == "same_image_id":
                self._listed = np.unique(values)
            again = values[1:][np.diff(values) == 0]
            self._twice[code], self._again[code] = np.unique(again), len(again)

    def inspect(self, columns: BoxColumns, found: Findings) -> None:
        """Find the places of these ids in one shard, and what in it belongs to no image or to no file."""
        for code, twice in self._twice.items():
            wanted = EXAMPLES - len(self._places[code])
            if self._again[code] and wanted > 0:
                rows = np.flatnonzero(np.isin(self._values(code, columns), twice))[:wanted].tolist()
                self._places[code] += [_place(code, columns, row) for row in rows]
        unlisted = ~np.isin(columns.image_id, self._listed)
        rows = np.flatnonzero(np.repeat(unlisted, np.diff(columns.offsets))).tolist()
        examples = (box_example(columns, row, "its image is not in the file's list") for row in rows)
        found.add("unlisted_image", "boxes", len(rows), examples, images=int(unlisted.sum()))
        nameless = [i for i in np.flatnonzero(~unlisted).tolist() if not columns.file_name[i]]
        examples = (Example(f"image id {columns.image_id[i]}", "no file name") for i in nameless)
        found.add("no_file_name", "images", len(nameless), examples)
        said = [(i, error) for i, error in enumerate(columns.error) if error is not None and error not in ERRORS]
        found.add("no_labels", "images", len(said), (Example(columns.file_name[i], error) for i, error in said))

    def tell(self, found: Findings) -> None:
        """All shards have been seen: count what occurs twice."""
        for code, again in self._again.items():
            # An id that is there twice in one image was already found among the boxes of the image.
            count = again - found.count("same_annotation_id") if code == _ANNOTATION_ID else again
            found.add(code, "boxes" if code == _ANNOTATION_ID else "images", count, self._places[code])

    @staticmethod
    def _values(code: str, columns: BoxColumns) -> NDArray[np.int64]:
        if code == "same_file_name":
            return _digests(columns.file_name)
        return columns.image_id if code == "same_image_id" else columns.id


def _place(code: str, columns: BoxColumns, row: int) -> Example:
    if code == _ANNOTATION_ID:
        return box_example(columns, row, "not the only one of this id")
    return Example(columns.file_name[row], f"image id {columns.image_id[row]}")


def _digests(texts: Sequence[str]) -> NDArray[np.int64]:
    """64 bits of each text, which are enough to tell 1.7 M file names apart."""
    found = (blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(found), np.int64)
