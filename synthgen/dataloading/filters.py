"""Filters of masks and captions by score, applied when reading. The annotation stays with its class and box."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from synthgen.dataloading.source_config import TrainSource
from synthgen.records.sample import Annotation, Caption, Sample, is_checked_by_person

#: The scores of a mask that a source may filter by, in the order of the checks.
MASK_SCORES = ("predicted_iou", "stability_score", "box_iou", "soft_iou")


def apply_filters(sample: Sample, source: TrainSource) -> tuple[Sample, Counter[str]]:
    """The sample without the masks and captions that its source rejects, and the reasons.

    A rejected mask becomes None; its annotation stays. A rejected caption is removed. Human masks and captions pass
    every score filter. A generated one that lacks the score is rejected.

    Args:
        sample: of the layer of `source`.
        source: holds the thresholds and other filters.

    Returns:
        The sample, and the number of rejections by reason: "mask/no_score", "mask/" and one of `MASK_SCORES`;
        "caption/source", "caption/no_score", "caption/score", "caption/category", "caption/category_unknown" (a match
        is required and not decidable), and "caption/" with one of the reasons that the source drops.
    """
    limits = [(name, least) for name in MASK_SCORES if (least := getattr(source, f"min_{name}")) is not None]
    of_captions = (
        source.min_caption_score is not None
        or source.require_category_match
        or bool(source.drop_reasons)
        or source.caption_sources is not None
    )
    refused: Counter[str] = Counter()
    if not limits and not of_captions:
        return sample, refused
    annotations = []
    for annotation in sample.annotations:
        if limits and (reason := _mask_rejection_reason(annotation, limits)):
            refused[f"mask/{reason}"] += 1
            annotation = replace(annotation, segmentation=None)
        if of_captions and annotation.captions:
            reasons = [_caption_rejection_reason(caption, source) for caption in annotation.captions]
            refused.update(f"caption/{reason}" for reason in reasons if reason)
            kept = tuple(c for c, reason in zip(annotation.captions, reasons, strict=True) if not reason)
            annotation = replace(annotation, captions=kept)
        annotations.append(annotation)
    return replace(sample, annotations=tuple(annotations)), refused


def _mask_rejection_reason(annotation: Annotation, limits: list[tuple[str, float]]) -> str | None:
    """Why an annotation's mask is rejected; None = it is accepted, or there is none."""
    if annotation.segmentation is None or is_checked_by_person(annotation):
        return None
    for name, least in limits:
        score = getattr(annotation, name)
        if score is None or math.isnan(score):
            return "no_score"
        if score < least:
            return name
    return None


def _caption_rejection_reason(caption: Caption, source: TrainSource) -> str | None:
    """Why a caption is rejected; None = it is accepted."""
    if source.caption_sources is not None and caption.source not in source.caption_sources:
        return "source"
    if reason := next((reason for reason in source.drop_reasons if reason in caption.reasons), None):
        return reason
    if caption.source == "human":
        return None
    if source.min_caption_score is not None:
        if caption.score is None or math.isnan(caption.score):
            return "no_score"
        if caption.score < source.min_caption_score:
            return "score"
    if source.require_category_match and not caption.category_match:
        return "category" if caption.category_match is False else "category_unknown"
    return None
