"""Weights of masks: predicted IoU of machines, one for people, mean by area."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.ascii_samples import (
    letter_mask,
)
from fakes.task_targets import PARK, make_target, park_sample, target_names

from synthgen.dataloading.tasks import instance, panoptic, semantic
from synthgen.dataloading.tasks._weighted import weight_masks


def test_masks_weigh_what_their_segmenter_says_and_human_ones_weigh_one():
    sample = park_sample(
        p={"mask_source": "sam vit_h", "predicted_iou": 0.75, "box_iou": 0.5, "soft_iou": 0.625},
        d={"predicted_iou": 0.25},
        s={"mask_source": "grabcut", "box_iou": 2.0},
    )
    target = make_target(panoptic, sample)
    assert weight_masks(target, sample, "predicted_iou").mask_weights.tolist() == [0.75, 1, 1]
    assert weight_masks(target, sample, "box_iou").mask_weights.tolist() == [0.5, 1, 1], "a score beyond 1 is 1"
    assert weight_masks(target, sample, "soft_iou").mask_weights.tolist() == [0.625, 1, 1]
    assert target.mask_weights.tolist() == [1, 1, 1]
    for field in ("texts", "labels", "masks", "ignore", "annotation_ids"):
        assert getattr(weight_masks(target, sample, "box_iou"), field) is getattr(target, field)


@pytest.mark.parametrize(("score", "weight"), [(None, 1), (float("nan"), 1), (-1.0, 0), (0.0, 0), (1.5, 1)])
def test_odd_scores(score, weight):
    sample = park_sample(p={"mask_source": "sam vit_h", "predicted_iou": score})
    assert weight_masks(make_target(instance, sample), sample, "predicted_iou").mask_weights.tolist() == [weight, 1]


def test_one_of_several_masks_weighs_by_their_areas():
    sample = park_sample(
        p={"mask_source": "sam", "box_iou": 0.25}, c={"mask_source": "sam", "box_iou": 0.75}, d={"segmentation": None}
    )
    assert (letter_mask(PARK, "p").sum(), letter_mask(PARK, "c").sum()) == (4, 6)
    target = weight_masks(make_target(semantic, sample), sample, "box_iou")
    assert target_names(target) == ["person", "dog", "sky"]
    assert target.mask_weights.tolist() == [np.float32((4 * 0.25 + 6 * 0.75) / 10), 1, 1]
