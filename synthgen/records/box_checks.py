"""Box checks: sets the flags of wrong or unusual boxes, for millions of boxes at once or for one sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthgen.records.sample import Sample

#: A box may reach this far beyond its image, in pixels, before it is "clipped": this is rounding, not an error.
CLIP_TOLERANCE = 0.01

#: Flags that depend only on the box and the size of its image.
_GEOMETRY_FLAGS = ("degenerate", "outside", "clipped")


def flag_boxes(
    bbox: NDArray[np.float64],
    *,
    height: ArrayLike,
    width: ArrayLike,
    image_index: NDArray[np.integer],
    category_index: NDArray[np.integer],
    iscrowd: NDArray[np.bool_],
    has_category_name: NDArray[np.bool_],
    source_flags: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Flag boxes; the flags are those of `records.sample.ANNOTATION_FLAGS`.

    With a box (x, y, w, h) in COCO's continuous coordinates, in which the image is [0, width] x [0, height]:

    degenerate: a number is not finite, or w <= 0, or h <= 0, or nothing is left of the box in float32, as prompts are.
    outside: not degenerate, the image's size is known, and box and image have no area in common.
    clipped: neither of these, the size is known, and an edge lies beyond the image by more than `CLIP_TOLERANCE`.
    duplicate: an earlier row of the same image has the same four numbers and the same category. Objects without a box
        (the source's flag "no_box", and degenerate) are not compared: they may be different objects.
    crowd, unknown_category: as given by `iscrowd` and `has_category_name`.

    Args:
        bbox: float64 [M, 4] XYWH, absolute pixels, original image; within an image in the order of the ids.
        height: of each box's image, pixels; integer [M] or scalar; 0 = unknown.
        width: of each box's image, pixels; integer [M] or scalar; 0 = unknown.
        image_index: integer [M], which image.
        category_index: integer [M], which category.
        iscrowd: bool [M], whether the source marks the box as a group of objects.
        has_category_name: bool [M], whether the category has a name.
        source_flags: flag -> bool [M]: flags that the source itself gives; they are passed on.

    Returns:
        flag -> bool [M], for all of the above.
    """
    flags = dict(zip(_GEOMETRY_FLAGS, _geometry_flags(bbox, np.asarray(height), np.asarray(width)), strict=True))
    flags["duplicate"] = _find_duplicates(bbox, image_index, category_index)
    if source_flags is not None and "no_box" in source_flags:
        flags["duplicate"] &= ~(source_flags["no_box"] & flags["degenerate"])
    flags["crowd"] = iscrowd
    flags["unknown_category"] = ~has_category_name
    return {**flags, **(source_flags or {})}


def flag_sample_boxes(sample: Sample) -> Sample:
    """The sample with the flags of its boxes set again, after its size or its boxes became known."""
    bbox = np.array([a.bbox for a in sample.annotations], np.float64).reshape(-1, 4)
    columns = np.stack(_geometry_flags(bbox, np.asarray(sample.height), np.asarray(sample.width)), axis=1).tolist()
    annotations = []
    for annotation, row in zip(sample.annotations, columns, strict=True):
        found = {flag for flag, there in zip(_GEOMETRY_FLAGS, row, strict=True) if there}
        flags = tuple(sorted(found.union(annotation.flags).difference(set(_GEOMETRY_FLAGS) - found)))
        annotations.append(annotation if flags == annotation.flags else replace(annotation, flags=flags))
    return replace(sample, annotations=tuple(annotations))


def _geometry_flags(
    bbox: NDArray[np.float64], height: NDArray[np.integer], width: NDArray[np.integer]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """The flags degenerate, outside and clipped: bool [M] each."""
    x, y, w, h = bbox.T
    known = (height > 0) & (width > 0)
    right, bottom = np.where(known, width, np.inf), np.where(known, height, np.inf)
    least = np.where(known, 0.0, -np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        x2, y2 = x + w, y + h
        box = np.isfinite(bbox).all(axis=1) & (x2 > x) & (y2 > y)
        inside = np.maximum(x, least), np.minimum(x2, right), np.maximum(y, least), np.minimum(y2, bottom)
        outside = box & known & ((inside[1] <= inside[0]) | (inside[3] <= inside[2]))
        left_, right_, top_, bottom_ = (edge.astype(np.float32) for edge in inside)
        degenerate = ~box | (~outside & ((right_ <= left_) | (bottom_ <= top_)))
        beyond = (
            (x < -CLIP_TOLERANCE)
            | (y < -CLIP_TOLERANCE)
            | (x2 > right + CLIP_TOLERANCE)
            | (y2 > bottom + CLIP_TOLERANCE)
        )
    return degenerate, outside, known & beyond & ~degenerate & ~outside


def _find_duplicates(
    bbox: NDArray[np.float64], image: NDArray[np.integer], category: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Whether an earlier row has the same values: bool [M]."""
    # Compare bits, so that NaN equals NaN; + 0.0 turns -0.0 into 0.0.
    numbers = np.ascontiguousarray(bbox + 0.0).view(np.int64)
    keys = np.column_stack([image.astype(np.int64), category.astype(np.int64), numbers])
    # Equal rows have equal digests, so only rows with equal digests are sorted by all six numbers.
    with np.errstate(over="ignore"):
        digest = np.zeros(len(keys), np.uint64)
        for column in keys.T:
            digest = (digest ^ column.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            digest ^= digest >> np.uint64(29)
    order = np.argsort(digest, kind="stable")
    again = np.flatnonzero(np.diff(digest[order]) == 0)
    result = np.zeros(len(keys), np.bool_)
    if len(again):
        rows = np.sort(order[np.union1d(again, again + 1)])
        rows = rows[np.lexsort(keys[rows].T)]
        result[rows[1:][(np.diff(keys[rows], axis=0) == 0).all(axis=1)]] = True
    return result
