"""Drawn training samples: each target where it belongs, for any sample."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from synthgen.dataloading.augment import AUGMENTATION_KINDS, AugmentConfig
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.transforms import Example, make_eval_example, make_train_example
from synthgen.records.rle import encode_mask
from synthgen.visualize.drawing import MIN_LONG_SIDE
from synthgen.visualize.training_samples import _footer_text, _mark_label, _text_blocks, draw_example

SIDE = 256
SCALE = MIN_LONG_SIDE // SIDE
ABOUT = {"task": "instance", "source": "toy/train/masks", "image_key": "toy/1.png"}


def example(
    masks=(), boxes=(), texts=("dog", "cat"), labels=None, weights=None, ignore=None, size=(SIDE, SIDE), canvas=None
) -> Example:
    """Objects with a mask first, then those with a box alone."""
    canvas = canvas or (SIDE, SIDE)
    image = np.full((*canvas, 3), 128, np.uint8)
    image[: size[0], : size[1]] = 100
    n = len(masks) + len(boxes)
    own = []
    for mask in masks:
        y, x = np.nonzero(mask)
        own.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    return Example(
        image=image,
        texts=texts,
        labels=np.zeros(n, np.int64) if labels is None else np.array(labels, np.int64),
        boxes_xyxy=np.array([*own, *boxes], np.float32).reshape(n, 4),
        has_mask=np.arange(n) < len(masks),
        masks=np.array(masks, np.bool_).reshape(-1, *canvas),
        mask_weights=np.ones(n, np.float32) if weights is None else np.array(weights, np.float32),
        ignore=np.zeros(canvas, np.bool_) if ignore is None else ignore,
        size=size,
        orig_size=(480, 640),
        annotation_ids=tuple((i,) for i in range(n)),
    )


def region(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def view(given: Example) -> np.ndarray:
    """The part of a picture that is the view, [side, side, 3]."""
    picture = draw_example(given, **ABOUT)
    assert picture.shape[0] > MIN_LONG_SIDE
    assert picture.shape[1] > MIN_LONG_SIDE
    return picture[:MIN_LONG_SIDE, :MIN_LONG_SIDE]


def pixel(picture: np.ndarray, y: int, x: int) -> tuple[int, ...]:
    return tuple(picture[y * SCALE + SCALE // 2, x * SCALE + SCALE // 2].tolist())


def test_a_mask_is_tinted_where_it_is_and_nowhere_else() -> None:
    ring = region(100, 100, 200, 200)
    ring[130:170, 130:170] = False
    picture = view(example([ring]))
    assert pixel(picture, 115, 150) != (100, 100, 100)
    for y, x in ((150, 150), (150, 90), (220, 150), (20, 20), (250, 250)):
        assert pixel(picture, y, x) == (100, 100, 100), (y, x)


def test_objects_have_colours_of_their_own_which_stand_beside_their_texts() -> None:
    masks = [region(20, 20, 90, 90), region(120, 120, 200, 200)]
    given = example(masks, [(20, 210, 100, 250)], labels=[0, 1, 1], texts=("dog", "cat", "bird"))
    picture = view(given)
    assert pixel(picture, 60, 60) != pixel(picture, 160, 160)
    dog, cats, negatives = _text_blocks(given.texts, given.labels.tolist())
    assert (dog.title, dog.mark_indices) == ("dog", [0])
    assert (cats.title, cats.mark_indices) == ("cat  x2", [1, 2])
    assert (negatives.title, negatives.lines, negatives.mark_indices) == ("negatives: 1 of 3 texts", ["bird"], ())


def test_an_object_without_mask_is_a_dashed_box_and_says_so() -> None:
    picture = view(example(boxes=[(40, 100, 200, 220)]))
    along = (picture[220 * SCALE, 40 * SCALE : 200 * SCALE] != 100).any(axis=1)
    assert 0.3 < along.mean() < 0.8
    assert pixel(picture, 180, 120) == (100, 100, 100)  # nothing is tinted
    assert _mark_label("dog", False, 1.0) == "dog  [box only]"


def test_masks_are_of_the_objects_that_have_one_whatever_their_order() -> None:
    mask = region(100, 100, 140, 140)
    swapped = replace(
        example([mask], [(10, 10, 90, 90)]),
        boxes_xyxy=np.array([[10, 10, 90, 90], [100, 100, 140, 140]], np.float32),
        has_mask=np.array([False, True]),
    )
    alone = view(example(boxes=[(10, 10, 90, 90)]))
    picture = view(swapped)
    assert np.array_equal(picture[: 90 * SCALE, : 90 * SCALE], alone[: 90 * SCALE, : 90 * SCALE])
    assert pixel(picture, 120, 120) != (100, 100, 100)
    assert (picture[140 * SCALE, 100 * SCALE : 140 * SCALE] != 100).any(axis=1).all()  # a solid box


def test_words_at_a_box() -> None:
    assert _mark_label("dog", True, 1.0) == "dog"
    assert _mark_label("dog", True, 0.85) == "dog  x.85"
    assert _mark_label("dog", True, 0.0) == "dog  x.00"
    assert _mark_label("the larger brown dog on the left", True, 1.0) == "the larger brown dog on ..."
    assert len(_mark_label("x" * 5000, True, 1.0)) < 40


def test_weights_and_missing_masks_are_seen() -> None:
    mask = region(100, 100, 200, 200)
    assert (view(example([mask])) != view(example([mask], weights=[0.5]))).any()


def test_ignored_regions_are_hatched_and_nothing_else_is() -> None:
    ignore = region(0, 128, SIDE, SIDE)
    picture = view(example(ignore=ignore))
    changed = (picture != 100).any(axis=2)
    assert not changed[:, : 128 * SCALE].any()
    assert 0.2 < changed[:, 128 * SCALE :].mean() < 0.5


def test_what_is_ignored_and_learned_at_once_is_seen_as_both() -> None:
    """A target must not do so; if one does, the picture is where it is noticed."""
    both = region(100, 100, 200, 200)
    picture = view(example([both], ignore=both))[110 * SCALE : 190 * SCALE, 110 * SCALE : 190 * SCALE]
    tinted = view(example([both]))[150 * SCALE, 150 * SCALE]
    share = (picture == tinted).all(axis=2).mean()
    assert 0.5 < share < 0.8


def test_padding_is_chequered_and_the_image_is_not() -> None:
    picture = view(example(size=(128, SIDE)))
    assert (picture[: 126 * SCALE] == 100).all()
    below = picture[130 * SCALE :]
    assert below.max() < 100
    assert len(np.unique(below[:64, :64, 0])) > 1
    grey = replace(example(), image=np.full((SIDE, SIDE, 3), 128, np.uint8))
    assert (view(grey) == 128).all()  # grey of its own is no padding


def test_the_footer_names_source_and_photograph_and_counts() -> None:
    given = example([region(0, 0, 9, 9)], [(1, 1, 90, 90)], ignore=region(0, 0, 128, 128), size=(128, SIDE))
    assert _footer_text(given, **ABOUT) == (
        "instance of toy/train/masks   toy/1.png   2 objects, 1 box only   256 x 128 in 256 x 256, file 640 x 480   "
        "ignored 50.0 %"
    )
    assert _footer_text(example(), **ABOUT).endswith("0 objects   256 x 256, file 640 x 480")


def test_negatives_are_counted_and_some_are_named() -> None:
    texts = tuple(f"name {i}" for i in range(300))
    *rest, last = _text_blocks(texts, [7])
    assert len(rest) == 1
    assert last.title == "negatives: 299 of 300 texts"
    assert last.lines[0].startswith("name 0, name 1,")
    assert last.lines[0].endswith(", ...")
    assert _text_blocks(("dog",), [0, 0])[-1].title == "dog  x2"  # none
    assert _text_blocks((), []) == []


@pytest.mark.parametrize(
    "given",
    [
        example(texts=()),
        example(),
        example([region(5, 5, 6, 6)]),
        example([region(0, 0, 1, 1), region(255, 255, 256, 256)], weights=[0.0, float("nan")]),
        example([region(0, 0, SIDE, SIDE)], ignore=region(0, 0, SIDE, SIDE)),
        example([region(i % 200, i % 190, i % 200 + 9, i % 190 + 9) for i in range(60)], texts=("dog",)),
        example(texts=tuple(f"a rather long phrase about thing {i} of very many" for i in range(300))),
        example(
            boxes=[(i % 97, i % 89, i % 97 + 20, i % 89 + 30) for i in range(300)],
            texts=tuple(f"thing {i}" for i in range(300)),
            labels=range(300),
        ),
        example(boxes=[(1, 1, 99, 99)] * 4, texts=("犬", "כלב", "\x1b[31m\n", "🐕 \u202e x"), labels=range(4)),
        example(boxes=[(1, 1, 99, 99)], texts=("word" * 2000, "x y " * 2000)),
        example(size=(1, 1)),
        example(size=(2, 4000), canvas=(2, 4000), boxes=[(0, 0, 4000, 2)]),
        example(size=(4000, 2), canvas=(4000, 2)),
        example(size=(1, 1), canvas=(1, 1), boxes=[(0, 0, 1, 1)]),
    ],
)
def test_any_sample_can_be_drawn(given: Example) -> None:
    before = given.image.copy()
    picture = draw_example(given, **ABOUT)
    assert picture.dtype == np.uint8
    assert max(picture.shape[:2]) >= MIN_LONG_SIDE
    assert np.array_equal(given.image, before)


@pytest.mark.parametrize("kind", [*AUGMENTATION_KINDS, "eval"])
def test_every_kind_of_view_can_be_drawn(kind: str) -> None:
    labels = np.arange(60 * 80).reshape(60, 80) // 1200
    target = Target(
        texts=("left cup", "spoon"),
        labels=np.array([0, 1]),
        boxes_xyxy=np.array([[0, 15, 80, 30], [0, 30, 80, 45]], np.float32),
        masks=(encode_mask(labels == 1), None),
        mask_weights=np.ones(2, np.float32),
        ignore=encode_mask(labels == 3),
        annotation_ids=((1,), (2,)),
    )
    image = np.full((60, 80, 3), 90, np.uint8)
    augment = AugmentConfig(size=128, semantic_crop_size=96, foreground_size=64)
    for seed in range(3):
        given = (
            make_eval_example(image, target)
            if kind == "eval"
            else make_train_example(image, target, kind, augment, random.Random(seed))
        )
        assert draw_example(given, **ABOUT).shape[2] == 3
