"""Findings about duplicate ids, duplicate file names, and annotations or images without a partner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers import AnnotationBatch, ImageBatch
from synthgen.ingest.image_table import IMAGE_ERRORS
from synthgen.ingest.validation.boxes import make_box_example
from synthgen.ingest.validation.diagnosis import MAX_EXAMPLES, FindingCollector, FindingExample
from synthgen.records.box_table import BoxColumns

_ANNOTATION_ID = "same_annotation_id_elsewhere"


class DuplicateIdFinder:
    """Finds duplicate ids of a split: 8 bytes per box and 16 per image; after reading, only the duplicates."""

    def __init__(self) -> None:
        self._all: dict[str, list[NDArray[np.int64]]] = {"same_file_name": [], _ANNOTATION_ID: []}
        self._listed_parts: list[NDArray[np.int64]] = []
        self._listed_ids = np.zeros(0, np.int64)
        self._duplicate_values: dict[str, NDArray[np.int64]] = {}
        self._duplicate_counts: dict[str, int] = {}  # number of repeated values
        self._examples: defaultdict[str, list[FindingExample]] = defaultdict(list)

    def add(self, batch: ImageBatch | AnnotationBatch) -> None:
        """Add the ids of a batch while the file is read."""
        # Copy: a reader's array may be a view that keeps a whole batch in memory.
        if isinstance(batch, ImageBatch):
            self._listed_parts.append(batch.image_id.copy())
            self._all["same_file_name"].append(_hash_texts([name for name in batch.file_name if name]))
        else:
            self._all[_ANNOTATION_ID].append(batch.id.copy())

    def finish_reading(self) -> None:
        """Find the duplicates after the file was read, and release the rest."""
        self._listed_ids = np.unique(np.concatenate([np.zeros(0, np.int64), *self._listed_parts]))
        self._listed_parts.clear()
        for code, arrays in self._all.items():
            values = np.concatenate([np.zeros(0, np.int64), *arrays])
            arrays.clear()
            values.sort()
            again = values[1:][np.diff(values) == 0]
            self._duplicate_values[code], self._duplicate_counts[code] = np.unique(again), len(again)

    def inspect_shard(self, columns: BoxColumns, findings: FindingCollector) -> None:
        """Find where the duplicates are in one shard, and what in it has no image or no file.

        Args:
            columns: the boxes and images of the shard.
            findings: takes what has no image or no file.
        """
        for code, twice in self._duplicate_values.items():
            wanted = MAX_EXAMPLES - len(self._examples[code])
            if self._duplicate_counts[code] and wanted > 0:
                rows = np.flatnonzero(np.isin(self._values(code, columns), twice))[:wanted].tolist()
                self._examples[code] += [_make_example(code, columns, row) for row in rows]
        unlisted = ~np.isin(columns.image_id, self._listed_ids)
        rows = np.flatnonzero(np.repeat(unlisted, np.diff(columns.offsets))).tolist()
        examples = (make_box_example(columns, row, "its image is not in the file's list") for row in rows)
        findings.add("unlisted_image", "boxes", len(rows), examples, images=int(unlisted.sum()))
        nameless = [i for i in np.flatnonzero(~unlisted).tolist() if not columns.file_name[i]]
        examples = (FindingExample(f"image id {columns.image_id[i]}", "no file name") for i in nameless)
        findings.add("no_file_name", "images", len(nameless), examples)
        without_labels = [
            (i, error) for i, error in enumerate(columns.error) if error is not None and error not in IMAGE_ERRORS
        ]
        findings.add(
            "no_labels",
            "images",
            len(without_labels),
            (FindingExample(columns.file_name[i], error) for i, error in without_labels),
        )

    def report_duplicates(self, findings: FindingCollector) -> None:
        """Count the duplicates after all shards were inspected.

        Args:
            findings: takes the counts; it has the duplicates within single images.
        """
        for code, again in self._duplicate_counts.items():
            # Two equal ids in one image were already found among the boxes of the image, and an image that is listed
            # again has its own name.
            known = "same_annotation_id" if code == _ANNOTATION_ID else "repeated_image"
            count = again - findings.count(known)
            findings.add(code, "boxes" if code == _ANNOTATION_ID else "images", count, self._examples[code])

    @staticmethod
    def _values(code: str, columns: BoxColumns) -> NDArray[np.int64]:
        if code == "same_file_name":
            return _hash_texts(columns.file_name)
        return columns.id


def _make_example(code: str, columns: BoxColumns, row: int) -> FindingExample:
    if code == _ANNOTATION_ID:
        return make_box_example(columns, row, "not the only one of this id")
    return FindingExample(columns.file_name[row], f"image id {columns.image_id[row]}")


def _hash_texts(texts: Sequence[str]) -> NDArray[np.int64]:
    """64-bit hashes of texts, enough to distinguish 1.7 M file names."""
    found = (blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(found), np.int64)
