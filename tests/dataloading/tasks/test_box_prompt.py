"""Box-prompted targets: objects with masks, and the boxes that people drew around them."""

from __future__ import annotations

import random

import pytest
from fakes.ascii_samples import ascii_sample, boxed_annotation, masked_annotation
from fakes.caption_truth import DRAWN

from synthgen.dataloading.tasks import Target, box_prompt
from synthgen.records.sample import Sample

pytestmark = pytest.mark.usefixtures("one_thread")


def learn(sample: Sample, *, seed: int = 0, most: int = 365) -> Target | None:
    return box_prompt.target(sample, ("cat",), random.Random(seed), max_texts=most)


def test_each_object_with_a_mask_is_learned_with_its_annotated_box() -> None:
    sample = ascii_sample(
        DRAWN,
        [
            masked_annotation(DRAWN, "a", 1, "cat", bbox=(0.0, 0.0, 3.0, 3.0)),
            masked_annotation(DRAWN, "b", 2, "sky", isthing=False),
            boxed_annotation(3, (0, 0, 2, 2), "cat"),
            masked_annotation(DRAWN, "c", 4, "cat", iscrowd=True),
            masked_annotation(DRAWN, "c", 5, ""),
        ],
    )
    target = learn(sample)
    assert target is not None
    assert target.annotation_ids == ((1,), (2,), (5,))
    assert [target.texts[label] for label in target.labels] == ["cat", "sky", "object"]
    assert target.boxes_xyxy[0].tolist() == [0, 0, 3, 3], "the annotated box, which is larger than the mask"
    assert target.box_prompted == (0, 1, 2) and target.ignore is None
    assert all(mask is not None for mask in target.masks)


def test_a_mask_without_a_box_is_prompted_with_its_own_box() -> None:
    sample = ascii_sample(DRAWN, [masked_annotation(DRAWN, "a", 1, "cat", bbox=(0.0, 0.0, 0.0, 0.0))])
    target = learn(sample)
    assert target is not None and target.box_prompted == ()
    x1, y1, x2, y2 = target.boxes_xyxy[0].tolist()
    assert x2 > x1 and y2 > y1


def test_of_many_objects_some_are_drawn_and_all_in_turn() -> None:
    letters = "abc"
    sample = ascii_sample(DRAWN, [masked_annotation(DRAWN, one, i, "cat") for i, one in enumerate(letters)])
    drawn = [learn(sample, seed=seed, most=1) for seed in range(60)]
    assert all(target is not None and len(target.labels) == 1 for target in drawn)
    assert {target.annotation_ids[0] for target in drawn if target} == {(i,) for i in range(len(letters))}


def test_an_image_without_masks_teaches_nothing() -> None:
    assert learn(ascii_sample(DRAWN, [boxed_annotation(1, (0, 0, 2, 2), "cat")])) is None
