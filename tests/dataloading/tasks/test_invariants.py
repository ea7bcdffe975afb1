"""Invariants of the targets of every task, for drawn and for invalid samples."""

from __future__ import annotations

import random
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from synthgen import plugins
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._weighted import weight_masks
from synthgen.records.rle import decode_mask, encode_mask, rle_area
from synthgen.records.rle_ops import rle_from_box
from synthgen.records.sample import Annotation, Caption, Sample

TASKS = {name: plugins.load_plugin("dataloading.tasks", name) for name in plugins.list_plugins("dataloading.tasks")}
NAMES = ("person", "dog", "sky", "sky-other", "wall")

number = st.integers(-2, 14).map(float) | st.floats(-20, 30) | st.sampled_from([np.nan, np.inf, -np.inf, 1e308, 1e-300])


@st.composite
def samples(draw):
    """Up to six annotations of an image of up to 8 x 8 pixels, in any state that a reader or a segmenter leaves."""
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    masks = hnp.arrays(np.bool_, (height, width), fill=st.booleans()).map(encode_mask)
    boxes = st.tuples(number, number, number, number) | st.just((1.0, 1.0, 3.0, 2.0))
    annotation = st.builds(
        Annotation,
        id=st.integers(0, 2**62),
        bbox=boxes,
        category=st.sampled_from(["", *NAMES[:4]]),
        iscrowd=st.booleans(),
        isthing=st.booleans(),
        flags=st.sets(st.sampled_from(["degenerate", "outside", "duplicate", "fake", "part", "no_box"])).map(
            lambda flags: tuple(sorted(flags))
        ),
        segmentation=st.none() | masks,
        mask_source=st.sampled_from(["human", "sam vit_b", None]),
        predicted_iou=st.none() | st.floats(0, 1),
        captions=st.lists(st.sampled_from(["a dog", "A  Dog", "left man", " ", ""]), max_size=3).map(
            lambda texts: tuple(Caption(text, "human") for text in texts)
        ),
    )
    found = draw(st.lists(annotation, max_size=6, unique_by=lambda a: a.id))
    names = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
    return Sample(
        1, "k", "f", height, width, tuple(sorted(found, key=lambda a: a.id)),
        neg_categories=draw(st.none() | names), not_exhaustive_categories=draw(names),
    )  # fmt: skip


def learn(name: str, sample: Sample, seed: int = 0, **options: int) -> Target | None:
    return TASKS[name].target(sample, NAMES, random.Random(seed), **options)


def same(a: Target | None, b: Target | None) -> bool:
    if a is None or b is None:
        return a is b
    arrays = all(
        np.array_equal(getattr(a, field), getattr(b, field)) for field in ("labels", "boxes_xyxy", "mask_weights")
    )
    return arrays and all(
        getattr(a, field) == getattr(b, field) for field in ("texts", "masks", "ignore", "annotation_ids")
    )


@pytest.mark.parametrize("name", TASKS)
@given(samples(), st.sampled_from([0, 2, 365]))
def test_a_target_is_sound(name, sample, max_texts):
    target = learn(name, sample, max_texts=max_texts)
    if target is None:
        return
    n, size = len(target.labels), (sample.height, sample.width)
    assert n == len(target.masks) == len(target.annotation_ids) == len(target.boxes_xyxy) == len(target.mask_weights)
    assert ((target.labels >= 0) & (target.labels < len(target.texts))).all()
    assert len(set(target.texts)) == len(target.texts) and all(text.strip() for text in target.texts)

    if sample.neg_categories is not None and name not in ("referring", "foreground"):
        positives = {target.texts[label] for label in target.labels}
        assert set(target.texts) - positives <= set(sample.neg_categories) - set(sample.not_exhaustive_categories)

    ids = [i for own in target.annotation_ids for i in own]
    assert all(target.annotation_ids) and len(set(ids)) == len(ids) and set(ids) <= {a.id for a in sample.annotations}

    x1, y1, x2, y2 = target.boxes_xyxy.T
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= sample.width) & (y2 <= sample.height) & (x1 < x2) & (y1 < y2)).all()
    assert target.boxes_xyxy.dtype == target.mask_weights.dtype == np.float32 and target.labels.dtype == np.int64

    masks = [mask for mask in target.masks if mask is not None]
    assert all(mask.size == size and rle_area(mask) > 0 for mask in masks)
    if target.ignore is not None:
        ignore = decode_mask(target.ignore)
        assert ignore.shape == size and ignore.any(), "nothing to ignore is None"
        assert not any((ignore & decode_mask(mask)).any() for mask in masks)


@pytest.mark.parametrize("name", TASKS)
@given(samples(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_same_draw_is_the_same_target_in_whatever_order_the_annotations_are(name, sample, seed, rng):
    mixed = replace(sample, annotations=tuple(rng.sample(sample.annotations, len(sample.annotations))))
    for most in (365, 3):
        assert same(learn(name, sample, seed, max_texts=most), learn(name, mixed, seed, max_texts=most))


#: One box of two annotations; to one of them it is none, so that its mask's serves, which is larger.
_BOX = (1.0, 1.0, 3.0, 2.0)
_WHOLE = Annotation(1, _BOX, "dog", flags=("degenerate",), segmentation=encode_mask(np.ones((2, 2), bool)))


@given(samples())
@example(Sample(1, "k", "f", 2, 2, (_WHOLE, Annotation(2, _BOX, "dog"))))
def test_every_named_thing_with_a_place_is_learned_once(sample):
    """An annotation without a mask keeps its box, one without a box its mask's, and no one else's."""
    instance, detection = learn("instance", sample), learn("detection", sample)
    learned = {i for target in (instance,) if target for own in target.annotation_ids for i in own}
    wanted = set()
    for a in sample.annotations:
        x, y, w, h = (np.float64(v) for v in a.bbox)
        with np.errstate(all="ignore"):
            edges = np.clip(np.array([x, y, x + w, y + h]), 0, [sample.width, sample.height] * 2).astype(np.float32)
        boxed = np.isfinite(a.bbox).all() and edges[2] > edges[0] and edges[3] > edges[1]
        boxed = boxed and not {"degenerate", "outside"} & set(a.flags)
        filled = a.segmentation is not None and decode_mask(a.segmentation).any()
        if a.category and a.isthing and not a.iscrowd and (boxed or filled):
            wanted.add(a.id)
        if boxed and a.id in learned:
            row = next(k for k, own in enumerate(instance.annotation_ids) if a.id in own)
            assert instance.boxes_xyxy[row].tolist() == edges.tolist()
            assert filled <= (instance.masks[row] == a.segmentation)
    assert learned == wanted
    assert (instance is None) == (detection is None) == (not wanted)


@given(samples())
def test_crowds_are_no_negatives_wherever_absence_is_learned_from_pixels(sample):
    for name in ("instance", "detection", "panoptic", "referring"):
        target = learn(name, sample)
        if target is None:
            continue
        ignore = np.zeros((sample.height, sample.width), bool) if target.ignore is None else decode_mask(target.ignore)
        taken = np.zeros_like(ignore)
        for mask in (learn("instance", sample) if name == "detection" else target).masks:
            taken |= mask is not None and decode_mask(mask)
        for a in sample.annotations:
            stuff_or_part = not a.isthing or "part" in a.flags
            if a.iscrowd and a.segmentation is not None and not stuff_or_part:
                assert (decode_mask(a.segmentation) <= (ignore | taken)).all()


@given(samples())
def test_semantic_labels_ignores_or_both_but_never_guesses(sample):
    """Every pixel is either in a mask of its category, as numpy unites them, or ignored."""
    target = learn("semantic", sample)
    regions = {}
    for a in sample.annotations:
        if a.category and "part" not in a.flags and a.segmentation is not None:
            regions[a.category] = regions.get(a.category, False) | decode_mask(a.segmentation)
    regions = {category: mask for category, mask in regions.items() if mask.any()}
    if target is None:
        assert not regions
        return
    drawn = {target.texts[k]: decode_mask(m) for k, m in zip(target.labels, target.masks, strict=True) if m is not None}
    assert drawn.keys() == regions.keys() and all((drawn[c] == regions[c]).all() for c in drawn)
    labelled = np.logical_or.reduce([np.zeros((sample.height, sample.width), bool), *drawn.values()])
    ignore = np.zeros_like(labelled) if target.ignore is None else decode_mask(target.ignore)
    assert (ignore == ~labelled).all()


@given(samples())
def test_foreground_is_numpys_union(sample):
    target = learn("foreground", sample)
    masks = [decode_mask(a.segmentation) for a in sample.annotations if a.segmentation is not None]
    union = np.logical_or.reduce([np.zeros((sample.height, sample.width), bool), *masks])
    drawn = [mask for mask in target.masks if mask is not None] if target else []
    assert [decode_mask(mask).tolist() for mask in drawn] == ([union.tolist()] if union.any() else [])
    assert target is None or target.texts == ("foreground",)


@pytest.mark.parametrize("name", TASKS)
@given(samples(), st.sampled_from(["predicted_iou", "box_iou"]))
def test_weights_lie_between_the_scores_of_the_masks(name, sample, by):
    target = learn(name, sample)
    if target is None:
        return
    scores = {a.id: 1.0 if a.mask_source == "human" or getattr(a, by) is None else getattr(a, by)
              for a in sample.annotations if a.segmentation is not None and rle_area(a.segmentation)}  # fmt: skip
    for weight, mask, ids in zip(
        weight_masks(target, sample, by).mask_weights, target.masks, target.annotation_ids, strict=True
    ):
        own = [scores[i] for i in ids if i in scores] if mask is not None else [1.0]
        assert min(own) - 1e-6 <= weight <= max(own) + 1e-6


# --- size ------------------------------------------------------------------------------------------------------------


def large(side: int) -> Sample:
    """An image of some hundred megapixels: crowds, rectangles, masks, boxes."""
    rng = random.Random(0)
    found = []
    for i in range(20):
        x, y = rng.randrange(side // 2), rng.randrange(side // 2)
        w, h = rng.randrange(10, side // 2), rng.randrange(10, side // 2)
        found.append(
            Annotation(
                i,
                (x, y, w, h),
                NAMES[i % 4],
                iscrowd=i % 5 == 0,
                isthing=i % 3 > 0,
                segmentation=rle_from_box((x, y, x + w, y + h), side, side) if i % 4 else None,
                captions=(Caption(f"number {i}", "human"),),
            )
        )
    return Sample(1, "k", "f", side, side, tuple(found))


@pytest.mark.parametrize("name", TASKS)
def test_a_target_costs_kilobytes_however_large_its_image(name):
    sample = large(15_000)
    learn(name, sample)  # what is loaded at the first call is no cost of the second
    tracemalloc.start()
    before = time.process_time()
    target = learn(name, sample)
    spent, peak = time.process_time() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert target is not None and len(target.labels) > 0
    assert spent < 1.0, "a look at each pixel takes longer"
    assert peak < 15_000**2 / 10, "an array of its pixels takes ten times as much"
    held = sum(len(rle.counts) for rle in (*target.masks, target.ignore) if rle is not None)
    assert held < 3e6
