"""Foreground targets: all masks as one region, and absence where it is known."""

from __future__ import annotations

import random

import numpy as np
from fakes.ascii_samples import (
    ascii_sample,
    boxed_annotation,
    letter_mask,
    rle_to_ascii,
)
from fakes.task_targets import PARK, make_target, park_sample

from synthgen.dataloading.tasks import foreground
from synthgen.records.rle import encode_mask


def test_foreground_is_all_masks_as_one():
    target = make_target(foreground, park_sample())
    assert target.texts == ("foreground",) and target.labels.tolist() == [0]
    assert target.annotation_ids == ((1, 2, 3, 4),) and target.ignore is None
    assert rle_to_ascii(target.masks[0]) == rle_to_ascii(encode_mask(~letter_mask(PARK, ".")))
    assert target.boxes_xyxy.tolist() == [[0, 0, 6, 5]]


def test_foreground_ignores_the_box_of_what_lost_its_mask():
    target = make_target(foreground, park_sample(s={"segmentation": None}))
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "s")))
    bare = make_target(foreground, ascii_sample(PARK, [boxed_annotation(1, (1, 1, 2, 2), "foreground")]))
    assert bare.masks == (None,) and bare.ignore is None and bare.boxes_xyxy.tolist() == [[1, 1, 3, 3]]


def test_foreground_learns_absence_only_where_it_is_known():
    empty = encode_mask(np.zeros((5, 6), bool))
    for sample in (
        ascii_sample(PARK, []),
        ascii_sample(PARK, [boxed_annotation(1, (0, 0, 0, 0), "foreground", segmentation=empty)]),
    ):
        target = make_target(foreground, sample)
        assert target.texts == ("foreground",) and target.masks == () and target.ignore is None
        assert target.boxes_xyxy.shape == (0, 4) and target.labels.shape == target.mask_weights.shape == (0,)
    unread = boxed_annotation(1, (float("nan"),) * 4, "foreground", flags=("bad_segmentation", "no_box"))
    for sample in (ascii_sample(PARK, [unread]), ascii_sample(PARK, [], error="its mask cannot be read")):
        assert foreground.target(sample, (), random.Random(0)) is None
