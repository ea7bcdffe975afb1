"""Panoptic quality with panopticapi's rules: of things, of stuff, of all.

A segment is found if a prediction of the same name overlaps it by an IoU above 0.5, void excluded; otherwise it is
missed. An unmatched prediction is wrong, unless more than half of it is void or a crowd of its name. Panopticapi uses
only the last crowd of each name in an image (COCO has at most one); here all of them count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.evaluation.metrics import GroundTruth, ImageResult, PanopticMap, Scores
from synthgen.records.rle import decode_mask, rle_area
from synthgen.records.sample import Rle

TAKES = "panoptic"
MAIN = "PQ"


def compare(ground_truth: GroundTruth, prediction: PanopticMap) -> ImageResult:
    """Compare one image; keeps for each name: whether it is a thing, the sum of IoUs, and the numbers of TP, FP and FN.

    Overlapping ground-truth masks, as those of instances, are stacked with small ones on top; completely covered ones
    are left out. Unnamed regions, objects without a mask, and parts of objects are void.

    Args:
        ground_truth: the ground truth of the image.
        prediction: the segments of the image.
    """
    target, texts = ground_truth.target, ground_truth.target.texts
    there = [
        (texts[label], False, mask)
        for label, mask in zip(target.labels, target.masks, strict=True) if mask is not None
    ]  # fmt: skip
    taken = {number for ids in target.annotation_ids for number in ids}
    there += [
        (a.category, True, a.segmentation)
        for a in ground_truth.sample.annotations
        if a.iscrowd and a.category and a.id not in taken and a.segmentation is not None and "part" not in a.flags
    ]
    truth = _label_map([mask for _, _, mask in there], prediction.segment_ids.shape)
    width = len(prediction.segments) + 1
    common = np.bincount((truth * width + prediction.segment_ids).ravel(), minlength=(len(there) + 1) * width)
    common = common.reshape(-1, width)  # pixels of each ground-truth segment (0 = void) in each predicted segment
    predicted_area, truth_area = common.sum(axis=0), common.sum(axis=1)
    counts: dict[str, list[float]] = {}
    right: list[tuple[bool, int]] = []
    matched = set()
    for g, (name, is_crowd, _) in enumerate(there, 1):
        if is_crowd or not truth_area[g]:
            continue
        row = counts.setdefault(name, [0.0, 0, 0, 0])
        for p, segment in enumerate(prediction.segments, 1):
            union = predicted_area[p] + truth_area[g] - common[g, p] - common[0, p]
            if texts[segment.label] == name and common[g, p] > 0.5 * union:
                row[0] += float(common[g, p] / union)
                row[1] += 1
                matched.add(p)
                right += [(name not in ground_truth.stuff_names, query) for query in segment.queries]
                break
        else:
            row[3] += 1
    crowds = [(g, name) for g, (name, is_crowd, _) in enumerate(there, 1) if is_crowd]
    for p, segment in enumerate(prediction.segments, 1):
        name = texts[segment.label]
        free = common[0, p] + sum(common[g, p] for g, other in crowds if other == name)
        if p not in matched and predicted_area[p] and free <= 0.5 * predicted_area[p]:
            counts.setdefault(name, [0.0, 0, 0, 0])[2] += 1
    return ImageResult(
        {name: (name not in ground_truth.stuff_names, *row) for name, row in counts.items()}, tuple(right)
    )


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """PQ, SQ and RQ of `image_results`: means over names that are present or predicted."""
    total: dict[str, NDArray[np.float64]] = {}
    things: dict[str, bool] = {}
    for one in image_results:
        for name, (is_thing, *row) in one.stats.items():
            total[name] = total.get(name, 0) + np.array(row, np.float64)
            things[name] = is_thing
    quality = {name: _pq_sq_rq(*row) for name, row in total.items()}
    values: dict[str, float] = {}
    for ending, kinds in (("", (True, False)), ("_things", (True,)), ("_stuff", (False,))):
        if own := [quality[name] for name in sorted(quality) if things[name] in kinds]:
            means = 100 * np.mean(own, axis=0)
            values |= {f"{key}{ending}": float(mean) for key, mean in zip(("PQ", "SQ", "RQ"), means, strict=True)}
    return Scores(values, {name: 100 * quality[name][0] for name in sorted(quality)})


def _pq_sq_rq(
    iou_sum: float, true_positives: float, false_positives: float, false_negatives: float
) -> tuple[float, float, float]:
    """(PQ, SQ, RQ) of one name."""
    asked = true_positives + 0.5 * false_positives + 0.5 * false_negatives
    return (
        float(iou_sum / asked),
        float(iou_sum / true_positives) if true_positives else 0.0,
        float(true_positives / asked),
    )


def _label_map(masks: Sequence[Rle], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """int32 [H, W]: the 1-based index of the mask of each pixel; 0 = none. Small masks cover large ones."""
    label_map = np.zeros(shape, np.int32)
    for i in sorted(range(len(masks)), key=lambda i: -rle_area(masks[i])):
        label_map[decode_mask(masks[i])] = i + 1
    return label_map
