"""All tasks: types of targets, metrics, invalid masks and sizes; negatives among many category names."""

from __future__ import annotations

import inspect
import random
from dataclasses import replace

import numpy as np
import pytest
from fakes.ascii_samples import (
    ascii_sample,
    boxed_annotation,
    masked_annotation,
)
from fakes.task_targets import PARK, make_target, park_sample, target_names

from synthgen import plugins
from synthgen.dataloading.tasks import detection, instance, panoptic, referring, semantic
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.errors import SynthgenError
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Rle

CATEGORIES = ("person", "dog", "sky", "sky-other")

TASKS = {
    name: plugins.load_plugin("dataloading.tasks", name)
    for name in ("box_prompt", "captioning", "detection", "foreground", "instance", "panoptic", "referring", "semantic")
}

METRICS = {"ap", "box_ap", "pq", "miou", "ciou", "maxf", "cider", "mask_iou"}


def test_these_tasks_exist():
    assert plugins.list_plugins("dataloading.tasks") == sorted(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_offers_what_its_protocol_says(name):
    task = TASKS[name]
    assert task.METRIC in METRICS
    assert task.AUGMENTATION in {"jitter", "semantic", "whole", "foreground", "square"}
    parameters = inspect.signature(task.target).parameters
    assert list(parameters) == ["sample", "categories", "rng", "max_texts"]
    assert parameters["max_texts"].default == MAX_TEXTS == 365
    assert parameters["max_texts"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", TASKS)
def test_a_target_has_the_types_it_says(name):
    target = make_target(TASKS[name], park_sample())
    n = len(target.labels)
    assert n > 0
    assert (target.labels.dtype, target.labels.shape) == (np.int64, (n,))
    assert (target.boxes_xyxy.dtype, target.boxes_xyxy.shape) == (np.float32, (n, 4))
    assert (target.mask_weights.dtype, target.mask_weights.tolist()) == (np.float32, [1] * n)
    assert len(target.masks) == len(target.annotation_ids) == n


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"foreground"}))
def test_nothing_teaches_nothing(name):
    for sample in (
        ascii_sample(PARK, []),
        ascii_sample(PARK, [], height=0, width=0),
        ascii_sample(PARK, [boxed_annotation(1, (0, 0, 0, 0), "person")]),
    ):
        assert TASKS[name].target(sample, CATEGORIES, random.Random(0)) is None


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("rle", "wrong"),
    [
        (Rle((5, 6), b"12"), "runs cover 3"),
        (Rle((5, 6), b""), "runs cover 0"),
        (Rle((5, 6), b"\xff"), "not a COCO run-length text"),
        (encode_mask(np.ones((6, 5), bool)), "a mask of 6 x 5 in an image of 5 x 6"),
    ],
)
def test_an_invalid_mask_is_reported_with_its_place(name, rle, wrong):
    with pytest.raises(SynthgenError, match=rf"image 1 \(1.png\), annotation 2: .*{wrong}.*; make its layer again"):
        TASKS[name].target(park_sample(d={"segmentation": rle}), CATEGORIES, random.Random(0))


@pytest.mark.parametrize("name", TASKS)
def test_an_image_of_no_size_is_reported(name):
    with pytest.raises(SynthgenError, match=r"image 1 \(1.png\) has no size"):
        TASKS[name].target(replace(park_sample(), height=0), CATEGORIES, random.Random(0))


def test_boxes_with_masks_by_machines_are_distinguished():
    """The people's own box serves then, whatever became of the mask; not where the box was read off a mask."""
    drawn = {"mask_source": "sam vit_h"}
    sample = park_sample(p=drawn, d={"mask_source": "human"}, c=drawn, s=drawn)
    target = make_target(instance, sample)
    assert target_names(target) == ["person", "dog"] and target.box_prompted == (0,)
    assert make_target(panoptic, sample).box_prompted == (0, 2), "the sky is of one annotation"
    two = ascii_sample(PARK, [*sample.annotations, replace(sample.annotations[3], id=9)])
    assert make_target(panoptic, two).box_prompted == (0,), "and now of two"
    assert make_target(detection, sample).box_prompted == (), "no mask is learned"
    assert make_target(referring, sample).box_prompted == tuple(
        i for i, ids in enumerate(make_target(referring, sample).annotation_ids) if ids == (1,)
    )
    assert make_target(instance, park_sample(p={**drawn, "flags": ("degenerate",)})).box_prompted == ()
    assert make_target(instance, park_sample(p={**drawn, "segmentation": None})).box_prompted == ()
    assert make_target(instance, park_sample(p={"mask_source": None})).box_prompted == (), "nobody knows who drew it"
    person = sample.annotations[0]
    twice = ascii_sample(PARK, [person, replace(person, id=9, segmentation=None, mask_source=None)])
    assert make_target(instance, twice).box_prompted == (0,)


MANY = tuple(f"name {i:05d}" for i in range(1000))


@pytest.mark.parametrize("task", [instance, detection, panoptic, semantic])
def test_all_names_in_their_order_where_they_are_few(task):
    names = ("dog", *reversed(MANY[:362]))
    sample = park_sample(s={"isthing": True})
    texts = task.target(sample, names, random.Random(0)).texts
    assert texts == (*names, "person", "sky"), "the same for every image, so that embeddings can be kept"
    assert len(texts) == MAX_TEXTS
    fewer = task.target(sample, names, random.Random(0), max_texts=MAX_TEXTS - 1).texts
    assert len(fewer) == MAX_TEXTS - 1 and set(fewer) < set(texts)


@pytest.mark.parametrize("task", [instance, detection, panoptic, semantic])
def test_positives_and_a_draw_where_names_are_many(task):
    draws = []
    for seed in range(3):
        target = task.target(park_sample(), MANY, random.Random(seed))
        positives = set(target_names(target))
        assert len(target.texts) == MAX_TEXTS and list(target.texts) == sorted(target.texts)
        assert positives <= set(target.texts) <= {*MANY, *positives}
        draws.append(set(target.texts) - positives)
    assert draws[0] != draws[1] != draws[2]


def test_every_name_is_as_likely_a_negative_as_any_other():
    sample = ascii_sample("a", [masked_annotation("a", "a", 1, "name 00003")])
    counts = dict.fromkeys(MANY[:20], 0)
    for seed in range(2000):
        for text in instance.target(sample, MANY[:20], random.Random(seed), max_texts=6).texts:
            counts[text] += 1
    assert counts.pop("name 00003") == 2000
    assert sum(counts.values()) == 5 * 2000
    assert max(counts.values()) - min(counts.values()) < 150, "526 each, with a deviation of 20"


def test_positives_are_never_left_out():
    sample = ascii_sample("abc", [masked_annotation("abc", letter, ord(letter), f"name {letter}") for letter in "abc"])
    for most in (0, 1, 2, 3, 4):
        texts = instance.target(sample, MANY, random.Random(0), max_texts=most).texts
        assert {"name a", "name b", "name c"} <= set(texts) and len(texts) == max(3, most)


def test_the_names_of_what_is_unsure_are_not_drawn():
    names = ("sky", *MANY[:6])
    for seed in range(50):
        assert "sky" not in instance.target(park_sample(), names, random.Random(seed), max_texts=7).texts


@pytest.mark.parametrize("task", [instance, detection, panoptic, semantic])
def test_only_what_was_looked_for_is_a_negative(task):
    sample = replace(
        park_sample(), neg_categories=("wall", "dog", "cup", "sea"), not_exhaustive_categories=("person", "sea")
    )
    texts = {"person", "dog", "wall", "cup"} | ({"sky"} if task in (panoptic, semantic) else set())
    assert task.target(sample, MANY, random.Random(0)).texts == tuple(sorted(texts)), "dog is there after all"
    nothing = task.target(replace(sample, neg_categories=()), MANY, random.Random(0))
    assert set(nothing.texts) == set(target_names(nothing)), "of nothing is it known that it is absent"
    many = replace(sample, neg_categories=MANY)
    drawn = task.target(many, CATEGORIES, random.Random(0), max_texts=9).texts
    assert len(drawn) == 9 and len(set(drawn) & set(MANY)) == 9 - len(texts & {"person", "dog", "sky"})


def test_of_a_name_with_more_objects_than_annotations_those_are_learned():
    given = replace(park_sample(), not_exhaustive_categories=("dog", "sky-other"))
    target = make_target(instance, given)
    assert target_names(target) == ["person", "dog"] and target.texts == ("person", "dog"), "sky-other is somewhere"
