"""Semantic targets: one region per category, and ignored pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fakes.ascii_samples import (
    ascii_sample,
    letter_mask,
    masked_annotation,
    rle_to_ascii,
)
from fakes.task_targets import PARK, make_target, park_sample, target_names

from synthgen.dataloading.tasks import semantic
from synthgen.records.rle import encode_mask

CATEGORIES = ("person", "dog", "sky", "sky-other")


def test_semantic_unites_a_category_crowds_included_and_ignores_the_rest():
    target = make_target(semantic, park_sample())
    assert target_names(target) == ["person", "dog", "sky"] and target.texts == CATEGORIES
    assert target.annotation_ids == ((1, 3), (2,), (4,))
    assert rle_to_ascii(target.masks[0]) == rle_to_ascii(encode_mask(letter_mask(PARK, "p") | letter_mask(PARK, "c")))
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, ".")))


def test_semantic_ignores_what_has_no_name_or_no_mask():
    target = make_target(semantic, park_sample(s={"category": ""}, d={"segmentation": None}))
    assert target_names(target) == ["person", "dog"] and target.masks[1] is None
    assert target.boxes_xyxy[1].tolist() == [0, 4, 2, 5]
    assert rle_to_ascii(target.ignore) == rle_to_ascii(
        encode_mask(np.isin(letter_mask(PARK, "p") | letter_mask(PARK, "c"), False))
    )


def test_a_wholly_labelled_image_has_nothing_to_ignore():
    assert (
        make_target(
            semantic,
            ascii_sample("aab", [masked_annotation("aab", "a", 1, "dog"), masked_annotation("aab", "b", 2, "sky")]),
        ).ignore
        is None
    )


def test_overlaps_of_instances_are_in_both_regions():
    person, dog, *_ = park_sample().annotations
    over = replace(person, segmentation=encode_mask(letter_mask(PARK, "p") | letter_mask(PARK, "d")))
    target = make_target(semantic, ascii_sample(PARK, [over, dog]))
    assert target.masks == (over.segmentation, dog.segmentation)
