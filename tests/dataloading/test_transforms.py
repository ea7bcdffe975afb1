"""Views: pixels, masks, ignored regions, boxes and words are transformed together; padding has no targets."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.dataloading.augment import AUGMENTATION_KINDS, AugmentConfig, ViewTransform
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.transforms import (
    PADDING_VALUE,
    Example,
    apply_transform,
    make_eval_example,
    make_train_example,
)
from synthgen.errors import SynthgenError
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Rle

#: What the image shows is what the masks say: each region has a colour, and no mixture of the four is one of them.
COLOURS = np.array([[0, 0, 0], [240, 0, 0], [0, 240, 0], [0, 0, 240]], np.uint8)
TEXTS = ("left cup", "cup on the right", "cup", "spoon")


def target_of(masks, ignore=None, boxes=None, texts=TEXTS):
    n = len(masks)
    return Target(
        texts=texts,
        labels=np.arange(n, dtype=np.int64) % max(len(texts), 1),
        boxes_xyxy=np.zeros((n, 4), np.float32) if boxes is None else np.array(boxes, np.float32).reshape(n, 4),
        masks=tuple(None if mask is None else encode_mask(np.asarray(mask, bool)) for mask in masks),
        mask_weights=np.linspace(0.5, 1, n, dtype=np.float32),
        ignore=None if ignore is None else encode_mask(ignore),
        annotation_ids=tuple((i,) for i in range(n)),
    )


def world(labels):
    """An image of regions 0..3, of which 1 to 3 are objects and 0 is ignored."""
    return COLOURS[labels], target_of([labels == k for k in (1, 2, 3)], labels == 0)


def plain(size, **change):
    """The image as it is."""
    return replace(ViewTransform(size, 0, 0, size, size), **change)


def same(a: Example, b: Example) -> bool:
    return all(
        np.array_equal(x, y) and getattr(x, "dtype", None) == getattr(y, "dtype", None)
        for x, y in ((getattr(a, name), getattr(b, name)) for name in Example.__slots__)
    )


side = st.integers(1, 24)


@st.composite
def boxed_images(draw):
    """(height, width, box xyxy) of an image and a box in it."""
    height, width = draw(side), draw(side)
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return height, width, (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))


worlds = st.tuples(side, side, st.integers(0, 999)).map(
    lambda v: np.random.default_rng(v[2]).integers(0, 4, (v[0], v[1])).repeat(3, axis=0).repeat(2, axis=1)
)
squares = st.integers(0, 999).map(lambda seed: np.random.default_rng(seed).integers(0, 4, (12, 12)).repeat(3, 0))


STILL = st.just(0.0)


@st.composite
def views(draw, turned=STILL):
    resized = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    size = draw(st.integers(1, resized[0])), draw(st.integers(1, resized[1]))
    top, left = (draw(st.integers(0, whole - seen)) for whole, seen in zip(resized, size, strict=True))
    canvas = size[0] + draw(st.integers(0, 9)), size[1] + draw(st.integers(0, 9))
    return ViewTransform(resized, top, left, size, canvas, draw(st.booleans()), draw(turned))


any_view = views(STILL | st.floats(-180, 180))


# --- everything moves together ---------------------------------------------------------------------------------------


@given(worlds, any_view)
def test_masks_and_ignored_regions_are_where_the_image_shows_them(labels, view):
    seen = apply_transform(*world(labels), view)
    inside = np.s_[: view.size[0], : view.size[1]]
    of = {label: seen.masks[i] for i, label in enumerate(seen.labels)}
    for k in range(4):
        shown = (seen.image == COLOURS[k]).all(axis=-1)[inside]
        region = seen.ignore if k == 0 else of.get(k - 1, np.zeros(view.canvas_size, bool))
        assert region[inside][shown].all()


@given(worlds, views())
def test_every_pixel_of_a_view_keeps_its_one_region(labels, view):
    seen = apply_transform(*world(labels), view)
    count = seen.masks.sum(axis=0) + seen.ignore
    assert (count[: view.size[0], : view.size[1]] == 1).all()


@given(worlds, st.floats(-180, 180))
def test_what_a_turn_brings_in_from_outside_is_ignored(labels, degrees):
    height, width = labels.shape
    image, target = world(labels)
    view = ViewTransform((height, width), 0, 0, (height, width), (height, width + 2), degrees=degrees)
    seen = apply_transform(np.full_like(image, 7), replace(target, masks=(None,) * 3, ignore=None), view)
    outside = (seen.image == PADDING_VALUE).all(axis=-1)
    assert np.array_equal(seen.ignore[:, :width], outside[:, :width])
    assert (seen.image[~outside] == 7).all()


@given(worlds, views())
def test_masks_are_read_off_the_nearest_pixel(labels, view):
    """The fast way against one line, in fractions."""
    image, target = world(labels)
    seen = apply_transform(image, target, view)

    def places(start, count, old, new):
        return [int(Fraction(2 * (start + i) + 1, 2) * old / new) for i in range(count)]

    rows = places(view.top, view.size[0], labels.shape[0], view.resized_size[0])
    columns = places(view.left, view.size[1], labels.shape[1], view.resized_size[1])
    for label, mask in zip(seen.labels, seen.masks, strict=True):
        whole = decode_mask(target.masks[label])[:, :: -1 if view.flip else 1]
        assert np.array_equal(mask[: view.size[0], : view.size[1]], whole[np.ix_(rows, columns)])


@given(worlds, any_view)
def test_padding_teaches_nothing(labels, view):
    seen = apply_transform(*world(labels), view)
    for beyond in (np.s_[view.size[0] :], np.s_[:, view.size[1] :]):
        assert not seen.ignore[beyond].any()
        assert (seen.image[beyond] == PADDING_VALUE).all()
        assert not any(mask[beyond].any() for mask in seen.masks)
    assert (seen.boxes_xyxy <= np.array([view.size[1], view.size[0]] * 2)).all()


@given(worlds, any_view)
def test_boxes_are_those_of_the_masks(labels, view):
    seen = apply_transform(*world(labels), view)
    assert seen.has_mask.all()
    assert len(seen.masks) == len(seen.labels) == len(seen.boxes_xyxy)
    for mask, box in zip(seen.masks, seen.boxes_xyxy, strict=True):
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@given(boxed_images(), views())
def test_a_box_without_a_mask_moves_as_its_rectangle(boxed, view):
    height, width, (x1, y1, x2, y2) = boxed
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    image = np.zeros((height, width, 3), np.uint8)
    target = target_of([mask, None], boxes=[[0, 0, 0, 0], [x1, y1, x2, y2]])
    seen = apply_transform(image, target, view)
    if seen.has_mask.tolist() == [True, False]:
        assert np.abs(seen.boxes_xyxy[0] - seen.boxes_xyxy[1]).max() <= 1
    turned = apply_transform(image, target, replace(view, degrees=30.0))
    if turned.has_mask.tolist() == [True, False]:  # the box around a turned box holds its mask
        (a, b) = turned.boxes_xyxy
        assert (a[:2] >= b[:2] - 1).all()
        assert (a[2:] <= b[2:] + 1).all()


@given(boxed_images(), views())
def test_a_box_into_which_a_machine_drew_is_kept_where_all_of_it_is_seen(boxed, view):
    """It says better where the object is than a mask of a part of it; where it is cut or turned, the mask does."""
    height, width, (x1, y1, x2, y2) = boxed
    part = np.zeros((height, width), bool)
    part[y1, x1] = True
    image, box = np.zeros((height, width, 3), np.uint8), [x1, y1, x2, y2]
    read = target_of([part, None], boxes=[box, box])
    seen = apply_transform(image, replace(read, box_prompted=(0,)), view)
    off = apply_transform(image, read, view)
    if seen.has_mask.tolist() != [True, False]:
        return
    moved, size = np.array(box, float), np.array([width, height] * 2)
    if view.flip:
        moved[[0, 2]] = width - moved[[2, 0]]
    moved = moved * np.array([*view.resized_size[::-1]] * 2) / size - np.array([view.left, view.top] * 2)
    whole = (moved[:2] > -0.5).all() and (moved[2:] < np.array(view.size[::-1]) + 0.5).all()
    large = (seen.boxes_xyxy[1, 2:] - seen.boxes_xyxy[1, :2]).min() >= 1  # else it would not be around its own mask
    if whole and large and not view.degrees:
        assert np.abs(seen.boxes_xyxy[0] - moved).max() <= 0.5 + 1e-4
        assert seen.boxes_xyxy[0].tolist() == seen.boxes_xyxy[1].tolist()
    else:
        assert seen.boxes_xyxy[0].tolist() == off.boxes_xyxy[0].tolist()
    assert np.array_equal(seen.masks, off.masks)


# --- views known by hand ---------------------------------------------------------------------------------------------


@given(worlds)
def test_the_plain_view_is_the_image_itself(labels):
    image, target = world(labels)
    seen = apply_transform(image, target, plain(labels.shape))
    assert np.array_equal(seen.image, image)
    assert seen.texts == TEXTS
    assert (seen.size, seen.orig_size) == (labels.shape, labels.shape)
    assert np.array_equal(seen.ignore, labels == 0)
    for label, mask in zip(seen.labels, seen.masks, strict=True):
        assert np.array_equal(mask, labels == label + 1)


@given(worlds, st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=2))
def test_mirrored_twice_is_once_not(labels, ends):
    image, target = world(labels)
    (y, h), (x, w) = ends
    box = np.array([x, y, x + w, y + h]).clip(0, [labels.shape[1], labels.shape[0]] * 2)
    target = target_of([labels == 1, None, labels == 3], labels == 0, [[0] * 4, box, [0] * 4])
    view = plain(labels.shape, flip=True)
    once = apply_transform(image, target, view)
    masks = iter(once.masks)
    again = Target(
        texts=once.texts,
        labels=once.labels,
        boxes_xyxy=once.boxes_xyxy,
        masks=tuple(encode_mask(next(masks)) if has else None for has in once.has_mask),
        mask_weights=once.mask_weights,
        ignore=encode_mask(once.ignore),
        annotation_ids=once.annotation_ids,
    )
    assert same(apply_transform(once.image, again, view), apply_transform(image, target, plain(labels.shape)))
    assert once.texts == ("right cup", "cup on the left", "cup", "spoon")
    assert np.array_equal(once.image, image[:, ::-1])


@given(squares, st.sampled_from([90.0, -90.0, 180.0]))
def test_a_quarter_turn_is_counter_clockwise(labels, degrees):
    labels = labels[:, :].repeat(3, axis=1)  # 36 x 36
    image, target = world(labels)
    seen = apply_transform(image, target, plain(labels.shape, degrees=degrees))
    expected = np.rot90(labels, round(degrees / 90))
    assert np.array_equal(seen.image, COLOURS[expected])
    assert np.array_equal(seen.ignore, expected == 0)
    for label, mask in zip(seen.labels, seen.masks, strict=True):
        assert np.array_equal(mask, expected == label + 1)


@given(side, side, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.data())
def test_an_object_of_one_pixel_grows_with_the_image(height, width, down, across, flip, data):
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), bool)
    mask[y, x] = True
    size = height * down, width * across
    seen = apply_transform(np.zeros((height, width, 3), np.uint8), target_of([mask]), plain(size, flip=flip))
    left = (width - 1 - x if flip else x) * across
    assert seen.boxes_xyxy.tolist() == [[left, y * down, left + across, (y + 1) * down]]
    assert seen.masks.sum() == down * across


@pytest.mark.parametrize("kind", AUGMENTATION_KINDS)
def test_full_empty_and_no_masks(kind):
    shape = (60, 80)
    image = np.full((*shape, 3), 50, np.uint8)
    full, empty = np.ones(shape, bool), np.zeros(shape, bool)
    for seed in range(20):
        seen = make_train_example(image, target_of([full, empty, full]), kind, AugmentConfig(), random.Random(seed))
        h, w = seen.size
        assert seen.labels.tolist() == [0, 2]  # of the second, nothing can be seen
        assert seen.annotation_ids == ((0,), (2,))
        assert seen.mask_weights.tolist() == [0.5, 1.0]
        assert np.array_equal(seen.masks[0][:h, :w], ~seen.ignore[:h, :w])  # but for what a turn brought in
        nothing = make_train_example(image, target_of([]), kind, AugmentConfig(), random.Random(seed))
        assert nothing.boxes_xyxy.shape == (0, 4)
        assert nothing.masks.shape == (0, *seen.image.shape[:2])
        assert len(nothing.texts) == 4
        assert (nothing.labels.dtype, nothing.has_mask.dtype, nothing.masks.dtype) == (np.int64, bool, bool)


def test_what_is_cropped_away_is_dropped_and_its_text_stays():
    masks = np.zeros((2, 10, 10), bool)
    masks[0, :3, :3] = masks[1, 6:, 6:] = True
    boxes = [[0] * 4, [0] * 4, [0, 0, 3, 3], [5, 5, 10, 10], [0, 0, 5.5, 9]]
    target = target_of([*masks, None, None, None], boxes=boxes)
    seen = apply_transform(np.zeros((10, 10, 3), np.uint8), target, ViewTransform((10, 10), 5, 5, (5, 5), (8, 8)))
    assert seen.annotation_ids == ((1,), (3,))  # the last has half a pixel left
    assert seen.boxes_xyxy.tolist() == [[1, 1, 5, 5], [0, 0, 5, 5]]
    assert seen.has_mask.tolist() == [True, False]
    assert seen.masks.shape == (1, 8, 8)
    assert seen.texts == target.texts


# --- drawn views -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AUGMENTATION_KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (37, 53)])
def test_any_size_and_the_same_draw_gives_the_same_example(kind, size):
    labels = np.random.default_rng(0).integers(0, 4, size)
    image, target = world(labels)
    for seed in range(3):
        seen = make_train_example(image, target, kind, AugmentConfig(), random.Random(seed))
        assert same(seen, make_train_example(image, target, kind, AugmentConfig(), random.Random(seed)))
        assert seen.image.shape == {"semantic": (512, 512, 3), "foreground": (384, 384, 3)}.get(kind, (1024, 1024, 3))
        assert seen.image.dtype == np.uint8
        assert seen.orig_size == size
    assert not same(seen, make_train_example(image, target, kind, AugmentConfig(flip=1.0), random.Random(77)))
    assert make_eval_example(image, target).image.shape[:2] == make_eval_example(image, target).size


def test_texts_that_forbid_it_keep_an_image_from_being_mirrored():
    image = np.zeros((8, 8, 3), np.uint8)
    there = {"masks": [None], "boxes": [[0, 0, 8, 8]]}
    sure = target_of(**there, texts=("left cup", "right behind the cup"))
    unsure = target_of(**there, texts=sure.texts[::-1])
    always = AugmentConfig(flip=1.0)
    mirror = make_train_example(image, sure, "whole", always, random.Random(0))
    assert mirror.texts == ("right cup", "right behind the cup"), "what is not there is not there in the mirror either"
    assert mirror.labels.tolist() == [0]
    assert make_train_example(image, unsure, "whole", always, random.Random(0)).texts == unsure.texts
    with pytest.raises(ValueError, match="sides"):
        apply_transform(image, unsure, plain((8, 8), flip=True))


def test_the_image_is_not_written_to():
    image, target = world(np.random.default_rng(0).integers(0, 4, (40, 60)))
    before = image.copy()
    for kind in AUGMENTATION_KINDS:
        for seed in range(9):
            make_train_example(image, target, kind, AugmentConfig(), random.Random(seed)).image[:] = 9
    make_eval_example(image, target, short_side=40, long_side=60).image[:] = 9
    assert np.array_equal(image, before)


def test_categories_keep_a_semantic_view_varied():
    labels = np.ones((100, 900), int)
    labels[:, 800:] = 2
    image, target = world(labels)
    few = AugmentConfig(max_category_area=0.9, semantic_crop_size=64, semantic_scale=(1.0, 1.0))
    for augment, least in ((few, 12), (replace(few, max_category_area=1.0), 0)):
        seen = [make_train_example(image, target, "semantic", augment, random.Random(seed)) for seed in range(40)]
        assert least <= sum(len(example.labels) == 2 for example in seen) <= (40 if least else 12)


@pytest.mark.parametrize("degrees", [0.0, 5.0])
def test_a_mask_of_another_size_is_reported(degrees):
    image, view = np.zeros((4, 6, 3), np.uint8), plain((4, 6), degrees=degrees)
    for rle, sentence in (
        (encode_mask(np.ones((6, 4), bool)), "a mask of 6 x 4 in an image of 4 x 6"),
        (Rle((4, 6), b"0"), "cover 0"),
    ):
        with pytest.raises(SynthgenError, match=sentence):
            apply_transform(image, replace(target_of([None]), masks=(rle,)), view)
        with pytest.raises(SynthgenError, match=sentence):
            apply_transform(image, replace(target_of([]), ignore=rle), view)


def test_memory_is_that_of_the_view():
    """400 masks of 3000 x 2000 pixels are 2.2 GiB; the view of them, and one of them, are 30 MiB."""
    mask = np.zeros((3000, 2000), bool)
    mask[100:2900, 200:1800] = True
    rle = encode_mask(mask)
    target = replace(target_of([None] * 400), masks=(rle,) * 400)
    image = np.zeros((3000, 2000, 3), np.uint8)
    tracemalloc.start()
    try:
        seen = apply_transform(image, target, ViewTransform((300, 200), 0, 0, (256, 200), (256, 256)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(seen.masks) == 400
    assert peak < seen.masks.nbytes + 60 * 2**20
