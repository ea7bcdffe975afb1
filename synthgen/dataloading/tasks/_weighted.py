"""Weights of mask losses from the scores of the masks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from synthgen.dataloading.tasks import Target
from synthgen.records.rle import rle_area
from synthgen.records.sample import Annotation, Sample, is_checked_by_person


def weight_masks(target: Target, sample: Sample, score_name: str) -> Target:
    """The target with `mask_weights` from the masks' scores. Objects without a mask are unchanged; no loss uses them.

    A human mask counts 1. So does a generated mask without that score; otherwise a segmenter without scores (or HQ-SAM,
    which does not score its own mask) would train no masks at all. An object of several annotations counts the mean of
    their scores, weighted by area.

    Args:
        target: its `mask_weights` are replaced.
        sample: the sample of `target`.
        score_name: one of `filters.MASK_SCORES`.
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


def _mask_score(annotation: Annotation, score_name: str) -> float:
    """The score in [0, 1]."""
    score: float | None = getattr(annotation, score_name)
    if is_checked_by_person(annotation) or score is None or math.isnan(score):
        return 1.0
    return min(max(score, 0.0), 1.0)
