"""Splits a dataset's stream into shards, sorted by image and checked; for any size and order, in little memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetPart, ImageBatch, Licenses, SourceFinding
from synthgen.ingest.external_sort import EMPTY_RUN, ExternalSorter, SortedRun
from synthgen.ingest.image_table import ImageTable, StringColumn
from synthgen.ingest.repeated_ids import settle_repeated_ids
from synthgen.ingest.text_limits import check_category_names, shorten_file_names
from synthgen.ingest.validation.diagnosis import format_count
from synthgen.ingest.validation.finding_codes import FINDING_CODES
from synthgen.records.box_checks import flag_boxes
from synthgen.records.box_table import BoxColumns

log = logging.getLogger(__name__)

#: Images of a shard to which updates add, at most; more if shards of twice the layer's shard size are larger.
MAX_GROWN_IMAGES = 4_000


@dataclass(frozen=True, slots=True, eq=False)
class ShardSlice:
    """The images and annotations of one shard.

    Attributes:
        index, num_shards: which shard of how many.
        total_images: images in the whole dataset.
        category_names: the file's unique category names, sorted.
        category_records: id, name and supercategory of each, in the order of the file, if its ids are kept.
        licenses: id, name and URL of each licence that the file lists.
        columns: its images and boxes, with flags.
        payloads: one per annotation; empty if the layer has none.
    """

    index: int
    num_shards: int
    total_images: int
    category_names: list[str]
    columns: BoxColumns
    payloads: list[bytes | None]
    category_records: list[dict[str, Any]] = field(default_factory=list)
    licenses: list[dict[str, Any]] = field(default_factory=list)


def split_into_shards(
    batches: Iterable[DatasetPart],
    dataset_name: str,
    scratch: Path,
    *,
    where: str = "",
    expected_bytes: int = 0,
    shard_size: int = 0,
    first_ids: Sequence[int] | None = None,
    resolve_names: Callable[[StringColumn], StringColumn] | None = None,
    report: Callable[[SourceFinding], None] | None = None,
) -> Iterator[ShardSlice]:
    """Yield the shards of a dataset in order, after its stream has ended.

    Images are sorted by id, and so are the annotations of an image. Nothing is lost: an image id that only annotations
    have becomes a row with an error. An image that is listed again with the same id and file name is one row. A
    category that is only the `supercategory` of others and has no annotation is left out of the names. Memory holds the
    images' names and numbers (some 100 bytes per image) and a few times `external_sort.MAX_RUN_BYTES`, or the
    annotations of one image with more.

    Args:
        batches: what a reader yields.
        dataset_name: the dataset's name in the store; for the keys of images that only this dataset has.
        scratch: an empty folder for 64 bytes per annotation and its payload.
        where: the stream's files, for errors.
        expected_bytes: an estimate of the bytes of the stream's files.
        shard_size: images per shard; 0 = a 64th of all, at least 16 and at most 1000.
        first_ids: the least image id of each shard but the first, in order, where the shards exist already; None = cut
            by `shard_size`. A shard may get no image.
        resolve_names: gets the file names of all images once, and returns those to use.
        report: gets what was found in the whole stream, instead of the log. With it, two images of one id are reported,
            and the second is a row with an error.

    Raises:
        SynthgenError: there are no images; a category name is too long; two images with different file names have one
            id, and there is no `report`; too many images belong in one shard by `first_ids`.
    """
    tell = report or partial(_log_finding, dataset_name)
    images, spill, categories, unlisted = (
        ImageTable(),
        ExternalSorter(scratch, expected_bytes),
        Categories({}),
        _IdSet(),
    )
    used, licenses = _UsedCategories(), Licenses(())
    for batch in batches:
        if isinstance(batch, ImageBatch):
            images.add(shorten_file_names(batch))
        elif isinstance(batch, AnnotationBatch):
            spill.add(batch, images.sorted_ids())
            unlisted.add(images.find_unlisted(batch.image_id))
            used.add(batch.category)
        elif isinstance(batch, SourceFinding):
            if report is None:  # else `report` belongs to one who sees the stream
                tell(batch)
        elif isinstance(batch, Licenses):
            licenses = Licenses(licenses.records + batch.records)
        else:
            check_category_names(batch, where or dataset_name)
            categories = Categories(
                categories.names | batch.names,
                categories.stuff | batch.stuff,
                parents=categories.parents | batch.parents,
                has_file_ids=categories.has_file_ids or batch.has_file_ids,
                supercategories=categories.supercategories | batch.supercategories,
            )
    images.add_unlisted(images.find_unlisted(unlisted.unique()), dataset_name)
    if resolve_names is not None:
        images.file_name = resolve_names(images.file_name)
    rows, ids = images.sort_by_id()
    if not len(rows):
        raise SynthgenError(f"the files of {dataset_name} list no images; are they the right ones?")
    rows, ids, again = settle_repeated_ids(images, rows, ids, where or dataset_name, tell, refuse=report is None)
    total = len(rows)
    categories = _without_parents(categories, used, tell)
    codes = _CategoryCodes(categories)
    category_records, license_records = _make_category_records(categories), _make_license_records(licenses)
    size = shard_size or min(max(-(-total // 64), 16), 1000)
    starts = list(range(0, total, size)) if first_ids is None else _find_starts(ids, first_ids, size, where)
    runs = spill.sorted_runs(images.sorted_ids())
    ahead = EMPTY_RUN
    for index, (start, stop) in enumerate(pairwise([*starts, total])):
        while start < stop and (not len(ahead.image_id) or ahead.image_id[-1] <= ids[stop - 1]):
            run = next(runs, None)
            if run is None:
                break
            ahead += run
        # Include all annotations of the last image, even if the next shard starts with an image of the same id.
        end = int(np.searchsorted(ahead.image_id, ids[stop - 1], side="right")) if start < stop else 0
        run, ahead = ahead.select_rows(0, end), ahead.select_rows(end, len(ahead.image_id))
        columns = _build_columns(images, rows[start:stop], again[start:stop], run, codes, spill.flags, dataset_name)
        if not categories.has_file_ids:
            columns = replace(columns, category_id=None)
        yield ShardSlice(
            index,
            len(starts),
            total,
            codes.category_names,
            columns,
            run.payloads,
            category_records,
            license_records,
        )
    if codes.num_unnamed:
        log.warning(
            "%s: %d category ids in lists of categories that images lack, or have more of, are left out: the file "
            "does not name them",
            dataset_name,
            codes.num_unnamed,
        )


def _find_starts(ids: NDArray[np.int64], first_ids: Sequence[int], size: int, where: str) -> list[int]:
    """The row at which each shard starts, for shards that exist already.

    Args:
        ids: int64 [N], the ids of all images, sorted.
        first_ids: the least id of each shard but the first.
        size: the number of images that a new shard gets.
        where: the files, for the error.

    Raises:
        SynthgenError: a shard would become too large.
    """
    starts = [0, *np.searchsorted(ids, np.array(first_ids, np.int64)).tolist()]
    limit = max(MAX_GROWN_IMAGES, 2 * size)
    largest = max(stop - start for start, stop in pairwise([*starts, len(ids)]))
    if largest > limit:
        raise SynthgenError(
            f"{where}: {largest:,} images belong in one shard by their ids, and it takes {limit:,} at most; ingest the "
            "new images as a dataset of their own, or delete the layer with `synthgen rm` and ingest all images again"
        )
    return starts


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
    if "no_box" in given:  # the values of a missing box are arbitrary
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
        category_id=np.ascontiguousarray(records["category"]),
        area=np.ascontiguousarray(records["area"]),
        license_id=images.license_ids(rows),
        neg_categories=codes.decode_lists(images.neg_categories.take(rows)),
        not_exhaustive_categories=codes.decode_lists(images.not_exhaustive_categories.take(rows)),
    )


def treat_crowds_as_objects(batches: Iterable[DatasetPart]) -> Iterator[DatasetPart]:
    """The same stream without `iscrowd`, for files that set it for every mask in RLE, as CVAT's do.

    Args:
        batches: what a reader yields.
    """
    for batch in batches:
        if isinstance(batch, AnnotationBatch):
            yield replace(batch, iscrowd=np.zeros(len(batch.id), np.bool_))
        else:
            yield batch


def _log_finding(dataset_name: str, finding: SourceFinding) -> None:
    examples = "; ".join(f"{where}: {what}" for where, what in finding.examples[:1])
    what = FINDING_CODES.get(finding.code, finding.code)
    count = format_count(finding.count, finding.unit)
    log.warning("%s: %s: %s%s", dataset_name, count, what, f" (e.g. {examples})" if examples else "")


def _without_parents(
    categories: Categories, used: _UsedCategories, tell: Callable[[SourceFinding], None]
) -> Categories:
    """The categories without those that are only the `supercategory` of others."""
    empty = [i for i in categories.names if i in categories.parents and not used.has(i)]
    if not empty:
        return categories
    examples = tuple((categories.names[i], "no box, and others name it as their supercategory") for i in empty[:3])
    tell(SourceFinding("root_category", "categories", len(empty), examples))
    left = set(empty)
    return replace(categories, names={i: name for i, name in categories.names.items() if i not in left})


def _make_category_records(categories: Categories) -> list[dict[str, Any]]:
    """COCO's records of the categories, if their ids are those of the file."""
    if not categories.has_file_ids:
        return []
    parents = categories.supercategories
    return [
        {"id": i, "name": name, **({"supercategory": parents[i]} if i in parents else {})}
        for i, name in categories.names.items()
    ]


def _make_license_records(licenses: Licenses) -> list[dict[str, Any]]:
    """COCO's records of the licences, each once."""
    return [{"id": i, "name": name, "url": url} for i, name, url in dict.fromkeys(licenses.records)]


class _UsedCategories:
    """The category ids that annotations have: a table of small ids, which nearly all files have, and a set."""

    _TABLE_SIZE = 2**16

    def __init__(self) -> None:
        self._table = np.zeros(self._TABLE_SIZE, np.bool_)
        self._others = _IdSet()

    def add(self, category: NDArray[np.int64]) -> None:
        small = (category >= 0) & (category < self._TABLE_SIZE)
        if small.all():
            self._table[category] = True
        else:
            self._table[category[small]] = True
            self._others.add(np.unique(category[~small]))

    def has(self, category: int) -> bool:
        if 0 <= category < self._TABLE_SIZE:
            return bool(self._table[category])
        others = self._others.unique()
        place = int(np.searchsorted(others, category))
        return place < len(others) and int(others[place]) == category


class _IdSet:
    """A set of ids that arrive in batches with many repetitions."""

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
    """Maps category ids of the file to indices into its names.

    Attributes:
        category_names: sorted, unique; names_with_unknown: the same, and "" at the end for a category that the
            file does not name.
        num_unnamed: ids in lists of absent or incomplete categories that the file does not name, so far.

    Args:
        categories: all of the dataset.
    """

    def __init__(self, categories: Categories) -> None:
        self._names, self.num_unnamed = categories.names, 0
        self.category_names = sorted({name for name in categories.names.values() if name})
        self.names_with_unknown = [*self.category_names, ""]
        code = {name: i for i, name in enumerate(self.names_with_unknown)}
        # A sentinel row at the end, so that every search gives a row.
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
        """Lists of ids as lists of names. Ids without a name are counted and dropped."""
        if lists is None:
            return None
        names = [[self._names.get(i, "") for i in ids] for ids in lists]
        self.num_unnamed += sum(name == "" for found in names for name in found)
        return [[name for name in found if name] for found in names]
