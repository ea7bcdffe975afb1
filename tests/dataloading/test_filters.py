"""Filters by score: masks and captions below a threshold go, annotations stay."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import train_layers
from fakes.train_layers import annotation, phrase, row

from synthgen.dataloading.filters import apply_filters

SAM = {"mask_source": "sam vit_b"}


@pytest.mark.parametrize(
    ("limits", "scores", "reason"),
    [
        ({}, {**SAM, "predicted_iou": 0.0}, None),
        ({"min_predicted_iou": 0.88}, {**SAM, "predicted_iou": 0.88}, None),
        ({"min_predicted_iou": 0.88}, {**SAM, "predicted_iou": 0.8799}, "predicted_iou"),
        ({"min_predicted_iou": 0.88}, {**SAM, "predicted_iou": None}, "no_score"),
        ({"min_predicted_iou": 0.0}, {**SAM, "predicted_iou": math.nan}, "no_score"),
        ({"min_predicted_iou": 0.88}, {"mask_source": "human"}, None),
        ({"min_predicted_iou": 0.88}, {**SAM, "provenance": "reviewed"}, None),
        ({"min_predicted_iou": 0.88}, {"mask_source": "human", "provenance": "machine"}, "no_score"),
        ({"min_predicted_iou": 0.88}, {"mask_source": None, "predicted_iou": 0.5}, "predicted_iou"),
        ({"min_stability_score": 0.9}, {**SAM, "stability_score": 0.5}, "stability_score"),
        ({"min_soft_iou": 0.9}, {**SAM, "soft_iou": 0.5}, "soft_iou"),
        ({"min_soft_iou": 0.9}, {**SAM, "soft_iou": None}, "no_score"),
        ({"min_box_iou": 0.9}, {**SAM, "box_iou": 0.5, "predicted_iou": 1.0}, "box_iou"),
        ({"min_predicted_iou": 0.5, "min_box_iou": 0.9}, {**SAM, "predicted_iou": 0.1, "box_iou": 0.1},
         "predicted_iou"),
        ({"min_predicted_iou": 0.5, "min_box_iou": 0.9}, {**SAM, "predicted_iou": 0.9}, "no_score"),
    ],
)  # fmt: skip
def test_a_mask_that_fails_goes_and_its_annotation_stays(limits: dict, scores: dict, reason: str | None) -> None:
    sample = row(1, annotation(1, **scores), annotation(2, segmentation=None, mask_source=None))
    kept, refused = apply_filters(sample, train_layers.source(Path(), **limits))
    assert refused == ({f"mask/{reason}": 1} if reason else {})
    expected = sample.annotations[0] if reason is None else replace(sample.annotations[0], segmentation=None)
    # By text: since Python 3.13 a dataclass with NaN is unlike its own copy.
    assert repr(kept) == repr(replace(sample, annotations=(expected, sample.annotations[1])))


@pytest.mark.parametrize(
    ("wanted", "caption", "reason"),
    [
        ({}, {"source": "ofa", "score": -9.0, "category_match": False, "reasons": ("repeats",)}, None),
        ({"min_caption_score": -1.0}, {"source": "ofa", "score": -1.0}, None),
        ({"min_caption_score": -1.0}, {"source": "ofa", "score": -1.1}, "score"),
        ({"min_caption_score": -1.0}, {"source": "ofa", "score": None}, "no_score"),
        ({"min_caption_score": -1.0}, {"source": "human", "score": None}, None),
        ({"require_category_match": True}, {"source": "ofa", "category_match": True}, None),
        ({"require_category_match": True}, {"source": "ofa", "category_match": False}, "category"),
        ({"require_category_match": True}, {"source": "ofa", "category_match": None}, "category_unknown"),
        ({"require_category_match": True}, {"source": "human", "category_match": None}, None),
        ({"drop_reasons": ("repeats",)}, {"source": "ofa", "reasons": ("low_score",)}, None),
        ({"drop_reasons": ("repeats",)}, {"source": "human", "reasons": ("low_score", "repeats")}, "repeats"),
        ({"caption_sources": ("human", "ofa base")}, {"source": "ofa base"}, None),
        ({"caption_sources": ("human",)}, {"source": "ofa base"}, "source"),
    ],
)
def test_a_caption_that_fails_goes_and_the_others_stay(wanted: dict, caption: dict, reason: str | None) -> None:
    good = phrase("a cat")
    one = phrase("the cat", **caption)
    sample = row(1, annotation(1, captions=(one, good)), annotation(2))
    kept, refused = apply_filters(sample, train_layers.source(Path(), **wanted))
    assert refused == ({f"caption/{reason}": 1} if reason else {})
    assert kept.annotations[0].captions == ((one, good) if reason is None else (good,))
    assert kept.annotations[1] == sample.annotations[1]


def test_thresholds_change_nothing_but_masks_and_captions() -> None:
    rng = random.Random(0)
    bad = annotation(3, iscrowd=True, flags=("crowd",), captions=(phrase("x", source="ofa"),), **SAM)
    sample = row(1, annotation(1), bad, annotation(2))
    limits = train_layers.source(Path(), min_box_iou=rng.random(), min_caption_score=0.0)
    kept, refused = apply_filters(sample, limits)
    assert refused == {"mask/no_score": 1, "caption/no_score": 1}
    assert kept == replace(
        sample, annotations=(annotation(1), replace(bad, segmentation=None, captions=()), annotation(2))
    )
