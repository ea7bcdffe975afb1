"""Foreground segmentation: maximum F-measure and mean absolute error, as in salient object detection.

F weighs precision more than recall (beta^2 = 0.3). It is computed for each image at 255 thresholds, and the curves are
averaged over images before the best threshold is chosen (Achanta et al. 2009; PySODMetrics, which also stretches each
map to [0, 1], unlike this module).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthgen.evaluation.metrics import ForegroundMap, GroundTruth, ImageResult, Scores
from synthgen.records.rle import decode_mask

TAKES = "foreground"
MAIN = "maxF"

_BETA_SQUARED = 0.3


def compare(ground_truth: GroundTruth, prediction: ForegroundMap) -> ImageResult:
    """Compare one image; keeps F at the thresholds 1/255 to 255/255, float32 [255], and the mean absolute error.

    Without foreground, F is undefined and only the error counts. Ignored pixels do not count.

    Args:
        ground_truth: the ground truth of the image.
        prediction: the foreground probabilities of the image.
    """
    target = ground_truth.target
    truth = np.zeros(prediction.probabilities.shape, np.bool_)
    for mask in target.masks:
        if mask is not None:
            truth |= decode_mask(mask)
    known = ~decode_mask(target.ignore) if target.ignore is not None else np.ones_like(truth)
    truth, likely = truth[known], prediction.probabilities[known]
    error = float(np.abs(likely - truth).mean(dtype=np.float64)) if likely.size else None
    if not truth.any():
        return ImageResult((None, error))
    levels = np.rint(likely * 255).astype(np.uint8)
    # The number of pixels at or above a threshold, of the foreground and of all.
    true_positive, positive = (
        np.bincount(some, minlength=256)[::-1].cumsum()[::-1][1:] for some in (levels[truth], levels)
    )
    precision, recall = true_positive / np.maximum(positive, 1), true_positive / truth.sum()
    weighted = np.maximum(_BETA_SQUARED * precision + recall, np.finfo(np.float64).tiny)
    return ImageResult((((1 + _BETA_SQUARED) * precision * recall / weighted).astype(np.float32), error))


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """maxF, the mean of F over thresholds (meanF), and MAE, over `image_results`; all in percent."""
    curves = [one.stats[0] for one in image_results if one.stats[0] is not None]
    errors = [one.stats[1] for one in image_results if one.stats[1] is not None]
    values: dict[str, float] = {}
    if curves:
        mean = np.mean(curves, axis=0, dtype=np.float64)
        values |= {"maxF": 100 * float(mean.max()), "meanF": 100 * float(mean.mean())}
    if errors:
        values["MAE"] = 100 * float(np.mean(errors))
    return Scores(values, {})
