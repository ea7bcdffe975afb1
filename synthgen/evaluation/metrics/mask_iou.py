"""Box-prompted segmentation: the mask of each box against the object's mask, and what the masks' scores are worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.evaluation.metrics import Detection, GroundTruth, ImageResult, Scores
from synthgen.records.rle import rle_area, rle_iou

TAKES = "box_prompted"
MAIN = "mIoU"

#: COCO's sizes: areas of human masks in pixels, from and below.
_SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}


def compare(ground_truth: GroundTruth, detections: Sequence[Detection]) -> ImageResult:
    """Compare one image; keeps (IoU, area of the human mask in pixels, score, category) for each object with a mask.

    Args:
        ground_truth: of the image; its boxes were the prompts.
        detections: one for each object, in order.
    """
    target = ground_truth.target
    rows = [
        (float(rle_iou([found.mask], [mask])[0, 0]), rle_area(mask), found.score, target.texts[label])
        for label, mask, found in zip(target.labels.tolist(), target.masks, detections, strict=True)
        if mask is not None and found.mask is not None
    ]
    return ImageResult(rows)


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """The mean IoU over objects of `image_results`, also by COCO's sizes and by category, and the rank correlation of
    score and IoU.
    """
    rows = [row for one in image_results for row in one.stats]
    if not rows:
        return Scores({}, {})
    iou, area, score = (np.array([row[i] for row in rows], np.float64) for i in range(3))
    values = {"mIoU": float(iou.mean())}
    for name, (least, most) in _SIZES.items():
        if (own := (area >= least) & (area < most)).any():
            values[f"mIoU_{name}"] = float(iou[own].mean())
    correlation = _rank_correlation(score, iou)
    if correlation is not None:
        values["score_correlation"] = correlation
    by_name: defaultdict[str, list[float]] = defaultdict(list)
    for own, *_, name in rows:
        by_name[name].append(own)
    return Scores(
        {key: 100 * value for key, value in values.items()},
        {name: 100 * float(np.mean(own)) for name, own in sorted(by_name.items())},
    )


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation; equal values share their mean rank. None if all values of one are equal."""
    ranks = [_mean_ranks(values) for values in (a, b)]
    if any(np.ptp(own) == 0 for own in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
