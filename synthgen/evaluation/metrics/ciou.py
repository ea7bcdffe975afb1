"""Referring segmentation: the mask of each phrase against the mask of the object it refers to (REFER)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthgen.evaluation.metrics import Detection, GroundTruth, ImageResult, Scores
from synthgen.records.rle import rle_area
from synthgen.records.rle_ops import rle_difference
from synthgen.records.sample import Rle

TAKES = "referring"
MAIN = "mIoU"

#: IoU thresholds of P@50 and so on.
_IOU_THRESHOLDS_PERCENT = (50, 60, 70, 80, 90)


def compare(ground_truth: GroundTruth, detections: Sequence[Detection]) -> ImageResult:
    """Compare one image; keeps intersection and union in pixels for each phrase with a mask.

    Args:
        ground_truth: of the image; `target` has one object per phrase.
        detections: one for each text.
    """
    target = ground_truth.target
    by_label = {one.label: one for one in detections}
    kept, right = [], []
    for label, mask in zip(target.labels.tolist(), target.masks, strict=True):
        if mask is None:
            continue
        one = by_label.get(label)
        both, either = _intersection_and_union(mask, one.mask if one is not None else None)
        kept.append((both, either))
        if one is not None and 2 * both > either:
            right.append((True, one.query))
    return ImageResult(kept, tuple(right))


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """mIoU over phrases; cIoU over all pixels; and the share of phrases above each IoU threshold. All are of
    `image_results`.
    """
    pixels = np.array([row for one in image_results for row in one.stats], np.float64)
    if not len(pixels):
        return Scores({}, {})
    iou = pixels[:, 0] / pixels[:, 1]
    values = {"mIoU": iou.mean(), "cIoU": pixels[:, 0].sum() / pixels[:, 1].sum()}
    values |= {f"P@{share}": (iou > share / 100).mean() for share in _IOU_THRESHOLDS_PERCENT}
    return Scores({key: 100 * float(value) for key, value in values.items()}, {})


def _intersection_and_union(a: Rle, b: Rle | None) -> tuple[int, int]:
    """Pixels of the intersection and of the union."""
    if b is None:
        return 0, rle_area(a)
    only_a = rle_area(rle_difference(a, [b]))
    both = rle_area(a) - only_a
    return both, only_a + rle_area(b)
