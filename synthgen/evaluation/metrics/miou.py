"""Mean IoU of a label map over labelled pixels (detectron2's SemSegEvaluator)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.evaluation.metrics import GroundTruth, ImageResult, Scores, SemanticMap
from synthgen.records.rle import decode_mask, rle_area

TAKES = "semantic"
MAIN = "mIoU"

#: IoU from which a name counts as found in an image, for the shares of query kinds.
_MATCH_IOU = 0.5


def compare(ground_truth: GroundTruth, prediction: SemanticMap) -> ImageResult:
    """Compare one image; keeps for each name the labelled pixels of intersection, ground truth and prediction.

    Where ground-truth masks overlap, the smaller one counts; pixels without a mask are ignored.

    Args:
        ground_truth: the ground truth of the image.
        prediction: the label of each pixel.
    """
    target, texts = ground_truth.target, ground_truth.target.texts
    truth = np.zeros(prediction.labels.shape, np.int32)  # 1-based
    masks = [(label, mask) for label, mask in zip(target.labels, target.masks, strict=True) if mask is not None]
    for label, mask in sorted(masks, key=lambda one: -rle_area(one[1])):
        truth[decode_mask(mask)] = label + 1
    labelled = truth > 0
    predicted, expected = prediction.labels[labelled], truth[labelled] - 1
    pixels = [
        np.bincount(some, minlength=len(texts)) for some in (predicted[predicted == expected], expected, predicted)
    ]
    kept = {
        texts[i]: (right, num_true, num_predicted)
        for i, (right, num_true, num_predicted) in enumerate(zip(*(p.tolist() for p in pixels), strict=True))
        if num_true or num_predicted
    }
    right = tuple(
        (texts[i] not in ground_truth.stuff_names, query)
        for i, query in sorted(prediction.query_by_label.items())
        if texts[i] in kept and _iou(*kept[texts[i]]) > _MATCH_IOU
    )
    return ImageResult(kept, right)


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """mIoU, frequency-weighted IoU (fwIoU), mean accuracy (mAcc) and pixel accuracy (pAcc), over names that are
    present.

    Args:
        image_results: the comparisons of all images, in any order.
    """
    total: dict[str, NDArray[np.int64]] = {}
    for one in image_results:
        for name, row in one.stats.items():
            total[name] = total.get(name, 0) + np.array(row, np.int64)
    names = sorted(name for name, (_, expected, _) in total.items() if expected)
    if not names:
        return Scores({}, {})
    correct, expected, predicted = np.array([total[name] for name in names], np.float64).T
    iou = correct / (expected + predicted - correct)
    values = {
        "mIoU": iou.mean(),
        "fwIoU": (iou * expected / expected.sum()).sum(),
        "mAcc": (correct / expected).mean(),
        "pAcc": correct.sum() / expected.sum(),
    }
    by_name = dict(zip(names, (100 * iou).tolist(), strict=True))
    return Scores({key: 100 * float(value) for key, value in values.items()}, by_name)


def _iou(intersection: int, truth_pixels: int, predicted_pixels: int) -> float:
    return intersection / (truth_pixels + predicted_pixels - intersection)
