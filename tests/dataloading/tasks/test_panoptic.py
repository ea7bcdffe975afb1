"""Panoptic targets: one per thing, one per stuff category, crowds ignored."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fakes.ascii_samples import (
    ascii_rows,
    ascii_sample,
    boxed_annotation,
    letter_mask,
    masked_annotation,
    rle_to_ascii,
)
from fakes.task_targets import PARK, make_target, park_sample, target_names

from synthgen.dataloading.tasks import instance, panoptic, semantic
from synthgen.records.rle import encode_mask

CATEGORIES = ("person", "dog", "sky", "sky-other")


def test_two_of_one_box_and_different_masks_are_two():
    chess = "ab\nba"
    sample = ascii_sample(
        chess, [masked_annotation(chess, letter, i, "dog", flags=("duplicate",)) for i, letter in enumerate("ab")]
    )
    assert sample.annotations[0].bbox == sample.annotations[1].bbox
    assert make_target(instance, sample).annotation_ids == make_target(panoptic, sample).annotation_ids == ((0,), (1,))
    bare = boxed_annotation(3, sample.annotations[0].bbox, "dog", flags=("duplicate",))
    three = replace(sample, annotations=(*sample.annotations, bare))
    assert make_target(instance, three).annotation_ids == ((0, 3), (1,)), "what has no mask is the first"
    first, second = sample.annotations
    between = [replace(first, id=5), boxed_annotation(7, (0, 0, 1, 1), "dog"), replace(second, id=9)]
    assert make_target(instance, ascii_sample(chess, between)).annotation_ids == ((5,), (7,), (9,)), (
        "in the order of their ids"
    )
    other = replace(sample.annotations[1], category="person", segmentation=sample.annotations[0].segmentation)
    assert len(make_target(instance, ascii_sample(chess, [sample.annotations[0], other])).labels) == 2, (
        "of another category"
    )


TWO_SKIES = """
ss..tt
ss..tt
pp..pp
"""


def test_panoptic_learns_things_one_by_one_and_stuff_as_one():
    sample = ascii_sample(
        TWO_SKIES,
        [
            masked_annotation(TWO_SKIES, "s", 1, "sky", isthing=False),
            masked_annotation(TWO_SKIES, "p", 2, "person"),
            masked_annotation(TWO_SKIES, "t", 3, "sky", isthing=False),
        ],
    )
    target = make_target(panoptic, sample)
    assert target_names(target) == ["person", "sky"] and target.annotation_ids == ((2,), (1, 3))
    assert rle_to_ascii(target.masks[1]) == ascii_rows("##..##", "##..##", "......")
    assert target.boxes_xyxy.tolist() == [[0, 2, 6, 3], [0, 0, 6, 2]]
    assert target.texts == CATEGORIES
    assert target.ignore is None, "pixels of no segment are background"

    thin = replace(sample.annotations[2], bbox=(0.0, 0.0, 6.0, 3.0))
    odd = make_target(panoptic, replace(sample, annotations=(*sample.annotations[:2], thin)))
    assert odd.ignore is None, "a box is larger than its mask, and that is no gap"

    one = replace(sample.annotations[2], segmentation=None)
    short = make_target(panoptic, replace(sample, annotations=(*sample.annotations[:2], one)))
    assert rle_to_ascii(short.masks[1]) == ascii_rows("##....", "##....", "......")
    assert rle_to_ascii(short.ignore) == ascii_rows("....##", "....##", "......"), "there, the sky's mask is short"
    assert short.boxes_xyxy.tolist() == target.boxes_xyxy.tolist()

    bare = tuple(replace(a, segmentation=None) for a in sample.annotations)
    none = make_target(panoptic, replace(sample, annotations=bare))
    assert none.masks == (None, None) and target_names(none) == ["person", "sky"] and none.ignore is None


def test_panoptic_ignores_crowds_and_what_has_no_name_of_things_and_stuff():
    assert rle_to_ascii(make_target(panoptic, park_sample()).ignore) == rle_to_ascii(
        encode_mask(letter_mask(PARK, "c"))
    )
    sample = park_sample(s={"category": ""})
    target = make_target(panoptic, sample)
    assert target_names(target) == ["person", "dog"] and target.texts == CATEGORIES
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c") | letter_mask(PARK, "s")))


@pytest.mark.parametrize("task", [panoptic, semantic])
def test_parts_belong_to_their_objects(task):
    target = make_target(task, park_sample(d={"flags": ("part",)}))
    assert "dog" not in target.texts and set(target_names(target)) == {"person", "sky"}
    assert (
        task.target(
            ascii_sample(PARK, [masked_annotation(PARK, "d", 1, "dog", flags=("part",))]), CATEGORIES, random.Random(0)
        )
        is None
    )
