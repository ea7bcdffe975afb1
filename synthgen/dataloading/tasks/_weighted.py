"""How much each object's mask counts, by the score that its segmenter or its box gives it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from synthgen.dataloading.tasks import Target
from synthgen.records.geometry import rle_area
from synthgen.records.sample import Annotation, Sample


def weight_masks(target: Target, sample: Sample, score_name: Literal["predicted_iou", "box_iou"]) -> Target:
    """The target with `mask_weights` of its masks' scores; objects without a mask keep theirs, as no loss uses it.

    A mask that a person drew counts 1. So does a machine's mask without that score, as nothing is known against it: a
    segmenter that gives no scores (or, as HQ-SAM, none of the mask itself) would otherwise teach no mask at all. An
    object of several annotations counts the mean of their masks' scores by area.

    Args:
        sample: the one that `target` was made from.
    """
    scored: dict[int, tuple[float, int]] = {}  # by id: score and area
    for annotation in sample.annotations:
        if annotation.segmentation is not None and (area := rle_area(annotation.segmentation)):
            scored[annotation.id] = _mask_score(annotation, score_name), area
    weights = target.mask_weights.copy()
    for index, (mask, ids) in enumerate(zip(target.masks, target.annotation_ids, strict=True)):
        own = [scored[i] for i in ids if i in scored]
        if mask is not None and own:
            weights[index] = np.average([score for score, _ in own], weights=[area for _, area in own])
    return replace(target, mask_weights=weights)


def _mask_score(annotation: Annotation, score_name: Literal["predicted_iou", "box_iou"]) -> float:
    """In [0, 1]."""
    score = annotation.predicted_iou if score_name == "predicted_iou" else annotation.box_iou
    if annotation.mask_source == "human" or score is None or math.isnan(score):
        return 1.0
    return min(max(score, 0.0), 1.0)
