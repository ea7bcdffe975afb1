"""Box findings of one shard: flags, near-duplicates, sizes, and boxes in a wrong format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.ingest.validation.box_conventions import ConventionSums
from synthgen.ingest.validation.diagnosis import BoxSizeStats, FindingCollector, FindingExample
from synthgen.records.box_checks import flag_boxes
from synthgen.records.box_table import BoxColumns
from synthgen.records.boxes import paired_box_iou, xywh_to_xyxy
from synthgen.records.sample import UNPROMPTED_FLAGS

#: Two boxes with at least this IoU, in one image and category, are near-duplicates.
NEAR_DUPLICATE_IOU = 0.95

#: A box is compared with at most this many others of its image and category, those nearest in area.
_MAX_NEIGHBORS = 64


@dataclass
class BoxStats:
    """Sums over all boxes of a split, updated per shard.

    Attributes:
        small, medium, large: as in `BoxSizeStats`.
        prompted: boxes that a job can give to a segmenter; crowds: annotations of groups.
        conventions: what shows whether boxes are x, y, width, height in pixels.
        boxes_per_image: boxes of each image, one int32 [N] per shard.
    """

    small: int = 0
    medium: int = 0
    large: int = 0
    prompted: int = 0
    crowds: int = 0
    conventions: ConventionSums = field(default_factory=ConventionSums)
    boxes_per_image: list[NDArray[np.int32]] = field(default_factory=list)

    def size_stats(self) -> BoxSizeStats:
        """The sums as `diagnosis.BoxSizeStats`."""
        per_image = np.concatenate(self.boxes_per_image) if self.boxes_per_image else np.zeros(1, np.int32)
        return BoxSizeStats(
            self.small, self.medium, self.large, float(np.median(per_image)), int(per_image.max(initial=0))
        )


def inspect_boxes(columns: BoxColumns, findings: FindingCollector, stats: BoxStats) -> None:
    """Add all findings about the boxes of one shard.

    Args:
        columns: images and boxes of the shard.
        findings: gets the findings.
        stats: gets the sizes and counts of the boxes.
    """
    per_image = np.diff(columns.offsets)
    image = np.repeat(np.arange(len(columns.image_id)), per_image)
    stats.boxes_per_image.append(per_image)

    def add(code: str, rows: NDArray[np.int64], what: Callable[[int], str]) -> None:
        examples = (make_box_example(columns, int(row), what(int(row))) for row in rows)
        findings.add(code, "boxes", len(rows), examples, images=len(np.unique(image[rows])))

    for flag, there in columns.flags.items():
        add(flag, np.flatnonzero(there), partial(_describe_problem, flag, columns))
    with np.errstate(invalid="ignore", over="ignore"):  # hostile files have numbers near the end of float64
        twin, first, iou = _near_duplicates(columns, image)
    near = dict(zip(twin.tolist(), zip(first.tolist(), iou.tolist(), strict=True), strict=True))
    add("near_duplicate", twin, lambda row: f"IoU {near[row][1]:.3f} with annotation {columns.id[near[row][0]]}")
    order = np.lexsort((columns.id, image))
    same = (np.diff(columns.id[order]) == 0) & (np.diff(image[order]) == 0)
    add("same_annotation_id", np.sort(order[1:][same]), lambda row: columns.categories[columns.category[row]])
    empty = [i for i in np.flatnonzero(per_image == 0).tolist() if columns.error[i] is None]
    findings.add("no_boxes", "images", len(empty), (FindingExample(columns.file_name[i], "no box") for i in empty))
    _update_stats(columns, image, stats)


def apply_image_sizes(columns: BoxColumns, height: NDArray[np.int32], width: NDArray[np.int32]) -> BoxColumns:
    """The shard with the real image sizes where annotations gave none, with flags set again.

    Args:
        columns: images and annotations of the shard.
        height: int32 [N], of each image of the shard, pixels; 0 = unknown.
        width: int32 [N], of each image of the shard, pixels; 0 = unknown.
    """
    if (height == columns.height).all() and (width == columns.width).all():
        return columns
    image = np.repeat(np.arange(len(height)), np.diff(columns.offsets))
    again = flag_boxes(
        columns.bbox,
        height=height[image],
        width=width[image],
        image_index=image,
        category_index=columns.category,
        iscrowd=columns.iscrowd,
        has_category_name=~columns.flags["unknown_category"],
    )
    flags = columns.flags | {flag: again[flag] for flag in ("degenerate", "outside", "clipped")}
    return replace(columns, height=height, width=width, flags=flags)


def _update_stats(columns: BoxColumns, image: NDArray[np.int64], sums: BoxStats) -> None:
    """Count sizes, and what the boxes tell about their convention."""
    none = np.zeros(len(columns.id), np.bool_)
    unprompted = np.logical_or.reduce([columns.flags.get(flag, none) for flag in sorted(UNPROMPTED_FLAGS)])
    sums.prompted += int((~unprompted).sum())
    sums.crowds += int(columns.iscrowd.sum())
    sums.conventions.add(columns.bbox, columns.height[image], columns.width[image])
    w, h = columns.bbox[:, 2:].T
    with np.errstate(invalid="ignore", over="ignore"):
        area = np.where((w > 0) & (h > 0), w * h, 0.0)
        sums.small += int(((area > 0) & (area < 32**2)).sum())
        sums.medium += int(((area >= 32**2) & (area < 96**2)).sum())
        sums.large += int((area >= 96**2).sum())


def _near_duplicates(
    columns: BoxColumns, image: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(later box, earlier box, IoU) of each box that nearly equals an earlier one of its image and category.

    IoU >= 0.95 needs areas within 5 %, so only neighbours in the order of area are compared. Exact duplicates and
    crowds are skipped. A box is reported once, with its earliest near-duplicate among the neighbours.
    """
    count = len(columns.id)
    left_out = columns.flags.get("duplicate", np.zeros(count, np.bool_)) | columns.iscrowd
    area = columns.bbox[:, 2] * columns.bbox[:, 3]
    sound = (columns.bbox[:, 2:] > 0).all(axis=1) & np.isfinite(columns.bbox).all(axis=1) & np.isfinite(area)
    rows = np.flatnonzero(sound & ~left_out)
    rows = rows[np.lexsort((area[rows], columns.category[rows], image[rows]))]
    boxes, area, group = xywh_to_xyxy(columns.bbox[rows]), area[rows], _run_numbers(image[rows], columns.category[rows])
    first = np.full(count, count)  # the earliest near-duplicate of each box; `count` = none
    here = np.arange(len(rows))
    for step in range(1, _MAX_NEIGHBORS + 1):
        here = here[here + step < len(rows)]
        here = here[(group[here] == group[here + step]) & (area[here] >= NEAR_DUPLICATE_IOU * area[here + step])]
        twins = here[paired_box_iou(boxes[here], boxes[here + step]) >= NEAR_DUPLICATE_IOU]
        a, b = rows[twins], rows[twins + step]
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
    later = np.flatnonzero(first < count)
    earlier = first[later]
    return later, earlier, paired_box_iou(xywh_to_xyxy(columns.bbox[later]), xywh_to_xyxy(columns.bbox[earlier]))


def _run_numbers(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """The number of the run of equal keys at each position."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    changes = np.zeros(len(keys[0]) - 1, np.bool_)
    for key in keys:
        changes |= np.diff(key) != 0
    return np.append(0, np.cumsum(changes))


def make_box_example(columns: BoxColumns, row: int, what: str) -> FindingExample:
    """Row `row` of a shard as an example.

    Args:
        columns: the boxes and images of the shard.
        row: the row of the box in `columns`, from 0.
        what: what is wrong with the box.
    """
    x, y, w, h = (float(v) if np.isfinite(v) else None for v in columns.bbox[row])
    return FindingExample(columns.file_name[_image_index(columns, row)], what, int(columns.id[row]), (x, y, w, h))


def _describe_problem(flag: str, columns: BoxColumns, row: int) -> str:
    """The problem of one box, with its numbers."""
    image = _image_index(columns, row)
    x, y, w, h = (float(v) for v in columns.bbox[row])
    height, width = int(columns.height[image]), int(columns.width[image])
    if flag == "clipped":
        beyond = {"left": -x, "top": -y, "right": x + w - width, "bottom": y + h - height}
        return (
            f"beyond {', '.join(f'{side} by {by:.6g}' for side, by in beyond.items() if by > 0)} of {width} x {height}"
        )
    if flag == "outside":
        return f"the image is {width} x {height}"
    if flag == "degenerate":
        return f"width {w:g}, height {h:g}"
    if flag == "duplicate":
        start = int(columns.offsets[image])
        same = (columns.bbox[start:row] == columns.bbox[row]).all(axis=1)
        same &= columns.category[start:row] == columns.category[row]
        return f"as annotation {columns.id[start + int(np.argmax(same))]}" if same.any() else "as an earlier one"
    return columns.categories[columns.category[row]] or "no name"


def _image_index(columns: BoxColumns, row: int) -> int:
    return int(np.searchsorted(columns.offsets, row, side="right")) - 1
