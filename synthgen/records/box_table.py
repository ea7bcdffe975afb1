"""Samples with boxes only, as arrays: millions of boxes become a table without one object per box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthgen.records.parquet_schema import SCHEMA, annotations_array, boxes_array

#: Stands for a missing id. Files do not contain it: many JSON parsers stop at 2**53.
NO_ID = -(2**63)


@dataclass(frozen=True, slots=True, eq=False)
class BoxColumns:
    """Many samples with boxes only, as arrays. Ingest writes 25 M boxes this way without 25 M Python objects.

    Attributes:
        image_id: int64 [N].
        image_key: N texts.
        file_name: N texts.
        height: int32 [N], of each image, pixels.
        width: int32 [N], of each image, pixels.
        error: N texts or None.
        offsets: int32 [N + 1]; the annotations of image i are [offsets[i], offsets[i + 1]).
        id: int64 [M], of each annotation.
        bbox: float64 [M, 4] XYWH, absolute pixels, original image.
        category: int32 [M], index into `categories`.
        categories: names of categories.
        iscrowd: bool [M].
        isthing: bool [M].
        flags: flag name -> bool [M].
        neg_categories: N times that of a `Sample`; None = each has a sample's default.
        not_exhaustive_categories: N times that of a `Sample`; None = each has a sample's default.
        category_id: int64 [M], the source's own numbers, `NO_ID` = not given; None = none is given.
        area: float64 [M], of the source's own masks, pixels, NaN = not given; None = none is given.
        license_id: N numbers or None; None = no image has one.
    """

    image_id: NDArray[np.int64]
    image_key: Sequence[str]
    file_name: Sequence[str]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    error: Sequence[str | None]
    offsets: NDArray[np.int32]
    id: NDArray[np.int64]
    bbox: NDArray[np.float64]
    category: NDArray[np.int32]
    categories: Sequence[str]
    iscrowd: NDArray[np.bool_]
    isthing: NDArray[np.bool_]
    flags: dict[str, NDArray[np.bool_]]
    neg_categories: Sequence[Sequence[str] | None] | None = None
    not_exhaustive_categories: Sequence[Sequence[str]] | None = None
    category_id: NDArray[np.int64] | None = None
    area: NDArray[np.float64] | None = None
    license_id: Sequence[int | None] | None = None


def table_from_columns(columns: BoxColumns) -> pa.Table:
    """The table of `SCHEMA` for samples that have boxes only.

    Args:
        columns: the images and boxes, sorted by image.
    """
    images, count = len(columns.image_id), len(columns.id)
    # There are few combinations of flags; each is built once and looked up per box.
    bits = np.zeros(count, np.int64)
    names = sorted(columns.flags)
    for place, name in enumerate(names):
        bits |= columns.flags[name].astype(np.int64) << place
    combinations, which = np.unique(bits, return_inverse=True)
    lists = [[name for place, name in enumerate(names) if int(c) >> place & 1] for c in combinations]
    fields: dict[str, pa.Array] = {
        "id": pa.array(columns.id, pa.int64()),
        "bbox": boxes_array(columns.bbox),
        "category": pa.array(list(columns.categories), pa.string()).take(pa.array(columns.category)),
        "iscrowd": pa.array(columns.iscrowd),
        "isthing": pa.array(columns.isthing),
        "flags": pa.array(lists or [[]], pa.list_(pa.string())).take(pa.array(which)),
    }
    if columns.category_id is not None:
        fields["category_id"] = pa.array(columns.category_id, mask=columns.category_id == NO_ID)
    if columns.area is not None:
        fields["area"] = pa.array(columns.area, mask=np.isnan(columns.area))
    return pa.table(
        [
            pa.array(columns.image_id, pa.int64()),
            pa.array(columns.image_key, pa.string()),
            pa.array(columns.file_name, pa.string()),
            pa.array(columns.height, pa.int32()),
            pa.array(columns.width, pa.int32()),
            annotations_array(fields, columns.offsets, count),
            pa.array(columns.error, pa.string()),
            pa.array(columns.neg_categories or [None] * images, pa.list_(pa.string())),
            pa.array(columns.not_exhaustive_categories or [()] * images, pa.list_(pa.string())),
            pa.array(columns.license_id or [None] * images, pa.int64()),
        ],
        schema=SCHEMA,
    )
