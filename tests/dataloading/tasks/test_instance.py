"""Instance targets: objects, crowds, duplicates, unusable boxes, names that are no negatives."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from fakes.ascii_samples import (
    ascii_rows,
    ascii_sample,
    letter_mask,
    rle_to_ascii,
)
from fakes.task_targets import PARK, make_target, park_sample, target_names

from synthgen.dataloading.tasks import instance
from synthgen.records.rle import encode_mask

CATEGORIES = ("person", "dog", "sky", "sky-other")


def test_instance_learns_things_one_by_one_and_ignores_the_crowd():
    target = make_target(instance, park_sample())
    assert target_names(target) == ["person", "dog"]
    assert target.annotation_ids == ((1,), (2,))
    assert [rle_to_ascii(mask) for mask in target.masks] == [
        rle_to_ascii(encode_mask(letter_mask(PARK, letter))) for letter in "pd"
    ]
    assert target.boxes_xyxy.tolist() == [[0, 2, 2, 4], [0, 4, 2, 5]]
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))


def test_the_names_of_an_images_own_stuff_are_no_negatives_of_it():
    assert make_target(instance, park_sample()).texts == ("person", "dog", "sky-other")
    without = replace(park_sample(), annotations=park_sample().annotations[:3])
    assert make_target(instance, without).texts == CATEGORIES


def test_a_name_of_a_thing_and_of_stuff_is_the_things_and_the_stuff_is_ignored():
    target = make_target(instance, park_sample(s={"category": "dog"}))
    assert target_names(target) == ["person", "dog"] and target.annotation_ids == ((1,), (2,))
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "s") | letter_mask(PARK, "c")))


def test_a_crowd_without_a_mask_is_its_box_but_never_the_person_in_it():
    crowd = {"segmentation": None, "bbox": (0.5, 2.0, 5.5, 2.5)}
    assert rle_to_ascii(make_target(instance, park_sample(c=crowd)).ignore) == ascii_rows(
        "......", "......", "..####", "..####", "..####"
    )


def test_a_rejected_mask_still_trains_class_and_box():
    target = make_target(instance, park_sample(d={"segmentation": None, "bbox": (-3.0, 3.5, 5.0, 9.0)}))
    assert target_names(target) == ["person", "dog"]
    assert target.masks[1] is None
    assert target.boxes_xyxy[1].tolist() == [0, 3.5, 2, 5], "clipped to the image"


def test_an_empty_mask_is_no_mask():
    empty = encode_mask(np.zeros((5, 6), bool))
    assert make_target(instance, park_sample(d={"segmentation": empty})).masks[1] is None


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": (0.0, 4.0, 0.0, 1.0), "flags": ("degenerate",)},
        {"bbox": (float("nan"),) * 4, "flags": ("degenerate", "no_box")},
        {"bbox": (9.0, 9.0, 2.0, 2.0), "flags": ("outside",)},
        {"bbox": (5.0, 4.0, -2.0, 2.0)},
        {"bbox": (1e8, 4.0, 1e-30, 2.0)},
        {"bbox": (1.0, 4.0, 1e308, float("inf"))},
        {"bbox": (0.1, 4.0, 1e-12, 1.0)},
    ],
)
def test_an_unusable_box_is_the_masks_and_without_a_mask_the_annotation_is_skipped(change):
    target = make_target(instance, park_sample(d=change))
    assert target.boxes_xyxy[1].tolist() == [0, 4, 2, 5]
    bare = make_target(instance, park_sample(d={**change, "segmentation": None}))
    assert target_names(bare) == ["person"]
    assert "dog" not in bare.texts, "somebody saw a dog, so it is no negative"


def test_what_has_no_name_is_neither_positive_nor_negative():
    target = make_target(instance, park_sample(d={"category": "", "flags": ("unknown_category",)}))
    assert target_names(target) == ["person"] and "" not in target.texts
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c") | letter_mask(PARK, "d")))


def test_two_of_one_box_category_and_mask_are_one_object():
    first = park_sample().annotations[0]
    twice = replace(first, id=9, flags=("duplicate",), captions=())
    for again in (twice, replace(twice, segmentation=None)):
        target = make_target(instance, ascii_sample(PARK, [first, again]))
        assert target.annotation_ids == ((1, 9),) and target.masks == (first.segmentation,)
    bare = [replace(a, segmentation=None) for a in (first, twice)]
    assert make_target(instance, ascii_sample(PARK, bare)).annotation_ids == ((1, 9),)
    late = make_target(instance, ascii_sample(PARK, [bare[0], twice]))
    assert late.annotation_ids == ((1, 9),) and late.masks == (twice.segmentation,), "the first has no mask"


@pytest.mark.parametrize("flag", ["fake", "reflected", "clipped", "part", "no_caption"])
def test_depictions_mirror_images_and_parts_are_objects(flag):
    assert target_names(make_target(instance, park_sample(d={"flags": (flag,)}))) == ["person", "dog"]


def test_names_are_left_as_they_are_spelt():
    sample = park_sample(p={"category": "wall-other-merged"}, d={"category": "wall-other"})
    target = make_target(instance, sample)
    assert target_names(target) == ["wall-other-merged", "wall-other"]
    assert target.texts == ("person", "dog", "sky-other", "wall-other", "wall-other-merged")


def test_only_crowds_teach_nothing():
    sample = ascii_sample(PARK, [park_sample().annotations[2]])
    assert instance.target(sample, CATEGORIES, random.Random(0)) is None
