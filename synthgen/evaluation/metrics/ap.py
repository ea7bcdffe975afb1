"""Average precision of masks (COCO)."""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.evaluation.metrics import Detection, GroundTruth, ImageResult, _coco
from synthgen.evaluation.metrics._coco import scores

__all__ = ["MAIN", "TAKES", "compare", "scores"]

TAKES = "instances"
MAIN = _coco.MAIN


def compare(ground_truth: GroundTruth, detections: Sequence[Detection]) -> ImageResult:
    """One image; see `_coco`.

    Args:
        ground_truth: the ground truth of the image.
        detections: the detections in the image, with masks.
    """
    return _coco.compare(ground_truth, detections, iou_type="segm")
