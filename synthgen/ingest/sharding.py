"""A dataset's stream, sorted by image, audited, and cut into shards: of any size and in any order, in little memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, ImageBatch
from synthgen.ingest.external_sort import EMPTY_RUN, ExternalSorter, SortedRun
from synthgen.ingest.image_table import ImageTable
from synthgen.records.box_checks import flag_boxes
from synthgen.records.box_table import BoxColumns

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ShardSlice:
    """The slice of a dataset that makes one shard.

    Attributes:
        index, num_shards: which shard of how many.
        total_images: images in the whole dataset.
        category_names: the file's category names, sorted, each once.
        columns: the slice's images and boxes, audited.
        payloads: one an annotation; empty where the layer has none.
    """

    index: int
    num_shards: int
    total_images: int
    category_names: list[str]
    columns: BoxColumns
    payloads: list[bytes | None]


def split_into_shards(
    batches: Iterable[ImageBatch | AnnotationBatch | Categories],
    dataset_name: str,
    scratch: Path,
    *,
    expected_bytes: int = 0,
    shard_size: int = 0,
) -> Iterator[ShardSlice]:
    """Yield a dataset's shards, in order, once its stream has ended.

    Images come in the order of their ids, annotations in that of theirs. Nothing is lost: an image id that only
    annotations have, or that two images have, makes a row with an error. Memory holds the images' names and numbers
    (some 100 bytes an image) and a few times `spill.BOUND`, or the annotations of the one image that has more.

    Args:
        dataset_name: what the store calls the dataset; for the keys of images that are nobody else's.
        scratch: an empty folder; 64 bytes an annotation, and its payload, are written there.
        expected_bytes: bytes that the stream comes from, as far as known.
        shard_size: images a shard; 0 = a 64th of all, at least 16 and at most 1000.

    Raises:
        SynthgenError: there are no images.
    """
    images, spill, categories, unlisted = (
        ImageTable(),
        ExternalSorter(scratch, expected_bytes),
        Categories({}),
        _IdSet(),
    )
    for batch in batches:
        if isinstance(batch, ImageBatch):
            images.add(batch)
        elif isinstance(batch, AnnotationBatch):
            spill.add(batch, images.sorted_ids())
            unlisted.add(images.find_unlisted(batch.image_id))
        else:
            categories = Categories(categories.names | batch.names, categories.stuff | batch.stuff)
    images.add_unlisted(images.find_unlisted(unlisted.unique()), dataset_name)
    rows, ids = images.sort_by_id()
    total = len(rows)
    if not total:
        raise SynthgenError(f"the files of {dataset_name} list no images; are they the right ones?")
    again = np.append(False, np.diff(ids) == 0)
    codes = _CategoryCodes(categories)
    size = shard_size or min(max(-(-total // 64), 16), 1000)
    runs = spill.sorted_runs(images.sorted_ids())
    ahead = EMPTY_RUN
    for index, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        while not len(ahead.image_id) or ahead.image_id[-1] <= ids[stop - 1]:
            run = next(runs, None)
            if run is None:
                break
            ahead += run
        # All annotations of the last image, even if the next shard begins with a second image of its id.
        end = int(np.searchsorted(ahead.image_id, ids[stop - 1], side="right"))
        run, ahead = ahead.select_rows(0, end), ahead.select_rows(end, len(ahead.image_id))
        columns = _build_columns(images, rows[start:stop], again[start:stop], run, codes, spill.flags, dataset_name)
        yield ShardSlice(index, -(-total // size), total, codes.category_names, columns, run.payloads)
    if codes.num_unnamed:
        log.warning(
            "%s: %d category ids in lists of categories that images lack, or have more of, are left out: the file "
            "does not name them",
            dataset_name,
            codes.num_unnamed,
        )


def _build_columns(
    images: ImageTable,
    rows: NDArray[np.int64],
    again: NDArray[np.bool_],
    run: SortedRun,
    codes: _CategoryCodes,
    flags: dict[str, int],
    name: str,
) -> BoxColumns:
    """The columns of one shard: its images are `rows`, its annotations `run`."""
    image_id, height, width = images.ids_and_sizes(rows)
    owner = np.searchsorted(image_id, run.image_id)
    records = run.records
    bits = records["bits"]
    given = {flag: (bits >> np.uint32(bit) & 1).astype(np.bool_) for flag, bit in flags.items()}
    bbox = np.ascontiguousarray(records["bbox"])
    if "no_box" in given:  # whatever a reader put there for want of a box
        bbox[given["no_box"] & ~np.isfinite(bbox).all(axis=1)] = 0.0
    category, known, isthing = codes.encode(records["category"])
    iscrowd = (bits & 1).astype(np.bool_)
    file_name = images.file_name.take(rows)
    keys = zip(images.image_key.take(rows), file_name, strict=True)
    image_key = [key if key and key[0] != "/" else f"{name}{key or '/' + file}" for key, file in keys]
    return BoxColumns(
        image_id=image_id,
        image_key=image_key,
        file_name=file_name,
        height=height,
        width=width,
        error=images.row_errors(rows, again, file_name),
        offsets=np.append(0, np.cumsum(np.bincount(owner, minlength=len(rows)))).astype(np.int32),
        id=np.ascontiguousarray(records["id"]),
        bbox=bbox,
        category=category,
        categories=codes.names_with_unknown,
        iscrowd=iscrowd,
        isthing=isthing,
        flags=flag_boxes(
            bbox,
            height=height[owner],
            width=width[owner],
            image_index=owner,
            category_index=records["category"],
            iscrowd=iscrowd,
            has_category_name=known,
            source_flags=given,
        ),
        neg_categories=codes.decode_lists(images.neg_categories.take(rows)),
        not_exhaustive_categories=codes.decode_lists(images.not_exhaustive_categories.take(rows)),
    )


class _IdSet:
    """A set of ids that arrives in pieces, mostly the same ones again."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._waiting = 0

    def add(self, ids: NDArray[np.int64]) -> None:
        if len(ids):
            self._parts.append(ids)
        self._waiting += len(ids)
        if self._waiting > 2**21 + len(self._parts[0]):
            self._parts, self._waiting = [self.unique()], 0

    def unique(self) -> NDArray[np.int64]:
        return np.unique(np.concatenate(self._parts))


class _CategoryCodes:
    """Category ids of the file -> indices into its names.

    Attributes:
        category_names: sorted, each once; names_with_unknown: the same, and "" at the end for a category that the
            file does not name.
        num_unnamed: ids in lists of absent or incomplete categories that the file does not name, so far.
    """

    def __init__(self, categories: Categories) -> None:
        self._names, self.num_unnamed = categories.names, 0
        self.category_names = sorted({name for name in categories.names.values() if name})
        self.names_with_unknown = [*self.category_names, ""]
        code = {name: i for i, name in enumerate(self.names_with_unknown)}
        # With a last row that no id reaches, so that every search lands on a row.
        ids = sorted(categories.names)
        self._ids = np.array([*ids, 2**63 - 1], np.int64)
        self._codes = np.array([*(code[categories.names[i]] for i in ids), len(self.category_names)], np.int32)
        self._known = np.array([True] * len(ids) + [False])
        self._isthing = np.array([*(i not in categories.stuff for i in ids), True])

    def encode(self, category: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
        """(index into `names_with_unknown`, whether the file lists the category, whether it is a thing)."""
        place = np.searchsorted(self._ids, category)
        place[self._ids[place] != category] = len(self._ids) - 1
        return self._codes[place], self._known[place], self._isthing[place]

    def decode_lists(self, lists: list[Sequence[int]] | None) -> list[list[str]] | None:
        """Lists of ids as lists of names; ids that the file does not name are counted and left out."""
        if lists is None:
            return None
        names = [[self._names.get(i, "") for i in ids] for ids in lists]
        self.num_unnamed += sum(name == "" for found in names for name in found)
        return [[name for name in found if name] for found in names]
