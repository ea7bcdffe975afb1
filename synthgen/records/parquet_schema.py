"""The Parquet schema, one row per image, and the conversion between `Sample` and tables.

Additions to the schema are nullable and keep the version. Any other change raises `SCHEMA_VERSION`; readers refuse a
newer version with a message. `tests/golden/` has a golden shard of every version.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.records.sample import Annotation, Caption, Rle, Sample

SCHEMA_VERSION = 1

#: Nullable columns that were added to this version later. Older shards lack them; they are read as None (a list as
#: empty).
_OPTIONAL_COLUMNS: dict[str, pa.DataType] = {
    "sam_predicted_iou": pa.float64(),
    "soft_iou": pa.float64(),
    "reasons": pa.list_(pa.string()),
    "category_id": pa.int64(),
    "area": pa.float64(),
    "provenance": pa.string(),
    "license_id": pa.int64(),
    "neg_categories": pa.list_(pa.string()),
    "not_exhaustive_categories": pa.list_(pa.string()),
}

# `size` always holds two numbers, but a fixed-size list cannot be null for a missing mask (pyarrow < 22).
_RLE = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.binary())])
_CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("source", pa.string()),
        ("score", pa.float64()),
        ("category_match", pa.bool_()),
        ("reasons", _OPTIONAL_COLUMNS["reasons"]),
    ]
)
_ANNOTATION = pa.struct(
    [
        ("id", pa.int64()),
        ("bbox", pa.list_(pa.float64(), 4)),
        ("category", pa.string()),
        ("iscrowd", pa.bool_()),
        ("isthing", pa.bool_()),
        ("flags", pa.list_(pa.string())),
        ("segmentation", _RLE),
        ("mask_source", pa.string()),
        ("predicted_iou", pa.float64()),
        ("stability_score", pa.float64()),
        ("box_iou", pa.float64()),
        ("sam_predicted_iou", _OPTIONAL_COLUMNS["sam_predicted_iou"]),
        ("soft_iou", _OPTIONAL_COLUMNS["soft_iou"]),
        ("captions", pa.list_(_CAPTION)),
        *((name, _OPTIONAL_COLUMNS[name]) for name in ("category_id", "area", "provenance")),
    ]
)
SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("image_key", pa.string()),
        ("file_name", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("annotations", pa.list_(_ANNOTATION)),
        ("error", pa.string()),
        *((name, _OPTIONAL_COLUMNS[name]) for name in ("neg_categories", "not_exhaustive_categories", "license_id")),
    ]
)

#: Samples that `table_from_stream` converts at once.
_STREAM_CHUNK = 256

#: From `mask_source` on, in the order of `Annotation`.
_MASK_COLUMNS = ("mask_source", "predicted_iou", "stability_score", "box_iou", "sam_predicted_iou", "soft_iou")

#: From `category_id` on, in the order of `Annotation`.
_SOURCE_COLUMNS = ("category_id", "area", "provenance")

#: Columns with few distinct values, as Parquet names them. Dictionaries of other columns cost time and save nothing.
DICTIONARY_COLUMNS = [
    "annotations.list.element.category",
    "annotations.list.element.flags.list.element",
    "annotations.list.element.segmentation.size.list.element",
    "annotations.list.element.mask_source",
    "annotations.list.element.category_id",
    "annotations.list.element.provenance",
    "annotations.list.element.captions.list.element.source",
    "annotations.list.element.captions.list.element.reasons.list.element",
    "error",
    "neg_categories.list.element",
    "not_exhaustive_categories.list.element",
    "license_id",
]


def table_from_samples(samples: Sequence[Sample]) -> pa.Table:
    """The table of `SCHEMA` for samples. It goes field by field: `dataclasses.asdict` per row is ten times slower."""
    flat = [annotation for sample in samples for annotation in sample.annotations]
    rles = [a.segmentation for a in flat]
    captions = [caption for a in flat for caption in a.captions]
    fields: dict[str, pa.Array] = {
        "id": pa.array([a.id for a in flat], pa.int64()),
        "bbox": boxes_array(np.asarray([a.bbox for a in flat], np.float64).reshape(-1, 4)),
        "category": pa.array([a.category for a in flat], pa.string()),
        "iscrowd": pa.array([a.iscrowd for a in flat], pa.bool_()),
        "isthing": pa.array([a.isthing for a in flat], pa.bool_()),
        "flags": pa.array([a.flags for a in flat], pa.list_(pa.string())),
        "segmentation": pa.StructArray.from_arrays(
            [
                pa.array([None if r is None else r.size for r in rles], pa.list_(pa.int32())),
                pa.array([None if r is None else r.counts for r in rles], pa.binary()),
            ],
            fields=list(_RLE),
            mask=pa.array([r is None for r in rles], pa.bool_()),
        ),
        "mask_source": pa.array([a.mask_source for a in flat], pa.string()),
        "predicted_iou": pa.array([a.predicted_iou for a in flat], pa.float64()),
        "stability_score": pa.array([a.stability_score for a in flat], pa.float64()),
        "box_iou": pa.array([a.box_iou for a in flat], pa.float64()),
        "sam_predicted_iou": pa.array([a.sam_predicted_iou for a in flat], pa.float64()),
        "soft_iou": pa.array([a.soft_iou for a in flat], pa.float64()),
        "captions": pa.ListArray.from_arrays(
            _offsets([len(a.captions) for a in flat]),
            pa.StructArray.from_arrays(
                [
                    pa.array([c.text for c in captions], pa.string()),
                    pa.array([c.source for c in captions], pa.string()),
                    pa.array([c.score for c in captions], pa.float64()),
                    pa.array([c.category_match for c in captions], pa.bool_()),
                    pa.array([c.reasons for c in captions], pa.list_(pa.string())),
                ],
                fields=list(_CAPTION),
            ),
        ),
        "category_id": pa.array([a.category_id for a in flat], pa.int64()),
        "area": pa.array([a.area for a in flat], pa.float64()),
        "provenance": pa.array([a.provenance for a in flat], pa.string()),
    }
    return pa.table(
        [
            pa.array([s.image_id for s in samples], pa.int64()),
            pa.array([s.image_key for s in samples], pa.string()),
            pa.array([s.file_name for s in samples], pa.string()),
            pa.array([s.height for s in samples], pa.int32()),
            pa.array([s.width for s in samples], pa.int32()),
            annotations_array(fields, _offsets([len(s.annotations) for s in samples]), len(flat)),
            pa.array([s.error for s in samples], pa.string()),
            pa.array([s.neg_categories for s in samples], pa.list_(pa.string())),
            pa.array([s.not_exhaustive_categories for s in samples], pa.list_(pa.string())),
            pa.array([s.license_id for s in samples], pa.int64()),
        ],
        schema=SCHEMA,
    )


def table_from_stream(samples: Iterable[Sample]) -> pa.Table:
    """The table of `SCHEMA` for any number of samples, which are in memory only a chunk at a time."""
    stream, tables = iter(samples), [SCHEMA.empty_table()]
    while chunk := list(itertools.islice(stream, _STREAM_CHUNK)):
        tables.append(table_from_samples(chunk))
    return pa.concat_tables(tables)


def samples_from_batch(batch: pa.RecordBatch) -> Iterator[Sample]:
    """The samples of one record batch of `SCHEMA`, in order.

    Columns that are not in `SCHEMA` are ignored: a later release added them to this version.

    Args:
        batch: rows of a shard, with at least the columns of `SCHEMA` that are not optional.

    Raises:
        ArrowInvalid: a column is missing.
    """
    if batch.num_rows == 0:
        return iter(())
    lists = _column_or_nulls(batch, "annotations")
    objects = lists.flatten()
    field = {name: _column_or_nulls(objects, name) for name in _ANNOTATION.names}
    bbox = _to_numpy(field["bbox"].flatten()).reshape(-1, 4)
    annotations = list(
        map(
            Annotation,
            field["id"].to_pylist(),
            zip(*bbox.T.tolist(), strict=True),
            *(field[name].to_pylist() for name in ("category", "iscrowd", "isthing")),
            _to_tuples(field["flags"], _to_strings),
            _parse_rles(field["segmentation"]),
            *(field[name].to_pylist() for name in _MASK_COLUMNS),
            _to_tuples(field["captions"], _parse_captions),
            *(field[name].to_pylist() for name in _SOURCE_COLUMNS),
        )
    )
    ends = (_to_numpy(lists.offsets) - lists.offsets[0].as_py()).tolist()
    own = (tuple(annotations[a:b]) for a, b in itertools.pairwise(ends))
    head = (
        _column_or_nulls(batch, name).to_pylist() for name in ("image_id", "image_key", "file_name", "height", "width")
    )
    absent = _column_or_nulls(batch, "neg_categories")
    known = absent.is_valid().to_pylist()
    return map(
        Sample,
        *head,
        own,
        _column_or_nulls(batch, "error").to_pylist(),
        (names if there else None for names, there in zip(_to_tuples(absent, _to_strings), known, strict=True)),
        _to_tuples(_column_or_nulls(batch, "not_exhaustive_categories"), _to_strings),
        _column_or_nulls(batch, "license_id").to_pylist(),
    )


def check_version(version: int, where: str) -> None:
    """Refuse a shard of a newer schema.

    Args:
        version: schema version in the shard's footer.
        where: names the shard in the error message.

    Raises:
        SynthgenError: with the two versions.
    """
    if version > SCHEMA_VERSION:
        raise SynthgenError(
            f"{where} has schema version {version}, this synthgen reads up to {SCHEMA_VERSION}; upgrade synthgen"
        )


def check_types(schema: pa.Schema) -> None:
    """Check that the columns of a shard have the types of `SCHEMA`. Other columns are of a later release.

    Args:
        schema: of the file, as pyarrow reads it.

    Raises:
        ArrowInvalid: a column has another type, or is missing.
    """
    _check_fields(schema, SCHEMA, "")


def _check_fields(found: pa.Schema | pa.StructType, expected: pa.Schema | pa.StructType, prefix: str) -> None:
    names = set(found.names)
    for field in expected:
        if field.name in names:
            _check_type(found.field(field.name).type, field.type, f"{prefix}{field.name}")
        elif field.name not in _OPTIONAL_COLUMNS:
            raise pa.ArrowInvalid(f"it has no column '{field.name}'")


def _check_type(found: pa.DataType, expected: pa.DataType, path: str) -> None:
    """Names of list elements differ between writers and do not matter."""
    if pa.types.is_struct(expected) and pa.types.is_struct(found):
        _check_fields(found, expected, f"{path}.")
    elif found.id == expected.id and getattr(found, "list_size", None) == getattr(expected, "list_size", None):
        if pa.types.is_list(expected) or pa.types.is_fixed_size_list(expected):
            _check_type(found.value_type, expected.value_type, path)
    else:
        raise pa.ArrowInvalid(f"its column '{path}' is of the type {found}, not {expected}")


def _column_or_nulls(rows: pa.RecordBatch | pa.StructArray, name: str) -> pa.Array:
    """A column of a batch or a field of a struct; nulls if the shard is too old to have it."""
    kinds = rows.schema if isinstance(rows, pa.RecordBatch) else rows.type
    if name in kinds.names:
        return rows.column(name) if isinstance(rows, pa.RecordBatch) else rows.field(name)
    if name not in _OPTIONAL_COLUMNS:
        raise pa.ArrowInvalid(f"it has no column '{name}'")
    return pa.nulls(len(rows), _OPTIONAL_COLUMNS[name])


def _parse_rles(segmentation: pa.StructArray) -> Iterator[Rle | None]:
    size, counts = segmentation.flatten()  # null wherever the struct is
    numbers = _to_numpy(size.flatten())
    if len(numbers) != 2 * (len(counts) - counts.null_count):
        raise pa.ArrowInvalid("a mask is without its height and width")
    sizes = zip(*numbers.reshape(-1, 2).T.tolist(), strict=True)
    return (None if text is None else Rle(next(sizes), text) for text in counts.to_pylist())


def _parse_captions(flat: pa.StructArray) -> list[Caption]:
    *plain, reasons = (_column_or_nulls(flat, name) for name in _CAPTION.names)
    codes = _to_tuples(reasons, _to_strings)
    return list(map(Caption, *(field.to_pylist() for field in plain), codes))


def _to_strings(flat: pa.StringArray) -> list[str]:
    texts: list[str] = flat.to_pylist()
    return texts


def _to_tuples(lists: pa.ListArray, convert: Callable[[pa.Array], list[Any]]) -> list[tuple[Any, ...]]:
    """Each list of a column as a tuple; `convert` turns the elements of all lists into Python objects at once."""
    lengths = np.diff(_to_numpy(lists.offsets))
    if lists.null_count:
        lengths = lengths * np.array(lists.is_valid().to_pylist(), np.int64)
    if not lengths.any():  # the usual case, and several times as fast
        return [()] * len(lists)
    flat = convert(lists.flatten())
    ends = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    return [tuple(flat[a:b]) for a, b in itertools.pairwise(ends)]


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def boxes_array(bbox: NDArray[np.float64]) -> pa.Array:
    """The column "bbox" from float64 [M, 4] XYWH, absolute pixels."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(bbox).reshape(-1)), 4)


def annotations_array(fields: dict[str, pa.Array], offsets: Any, count: int) -> pa.Array:
    """The column "annotations" from its leaves; a leaf that is not given is null (or an empty list) everywhere.

    Args:
        fields: name of a field of an annotation -> its values for all annotations.
        offsets: int32 [N + 1]; the annotations of image i are [offsets[i], offsets[i + 1]).
        count: annotations in all.
    """
    leaves = []
    for kind in _ANNOTATION:
        if kind.name in fields:
            leaves.append(fields[kind.name])
        elif pa.types.is_list(kind.type):
            leaves.append(pa.ListArray.from_arrays(_offsets([0] * count), pa.array([], kind.type.value_type)))
        else:
            leaves.append(pa.nulls(count, kind.type))
    struct = pa.StructArray.from_arrays(leaves, fields=list(_ANNOTATION))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)


def _to_numpy(array: pa.Array) -> NDArray[Any]:
    """The array in numpy. pyarrow's own conversion imports pandas if it is installed: 0.25 s, 50 MiB."""
    return np.from_dlpack(array) if not array.null_count else array.to_numpy(zero_copy_only=False)
