"""Overlays: masks, boxes and captions where they belong, for any sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Caption, Rle, Sample
from synthgen.visualize.drawing import MIN_LONG_SIDE
from synthgen.visualize.sample_view import draw_sample, format_annotation, format_captions

IMAGE = np.full((128, 256, 3), 100, np.uint8)


def disc() -> np.ndarray:
    y, x = np.mgrid[:128, :256]
    return (y - 64) ** 2 + (x - 128) ** 2 < 30**2


def sample(*annotations: Annotation) -> Sample:
    return Sample(7, "x/7", "a/b.jpg", 128, 256, annotations)


def masked(**more: object) -> Annotation:
    given = Annotation(1, (98.0, 34.0, 60.0, 60.0), "disc", segmentation=encode_mask(disc()), mask_source="toy")
    return replace(given, **more)  # type: ignore[arg-type]


def test_a_mask_is_tinted_where_it_is_and_nowhere_else() -> None:
    picture = draw_sample(sample(masked(category="")), IMAGE)
    scale = MIN_LONG_SIDE // 256
    assert picture.shape[1] == MIN_LONG_SIDE
    assert not np.array_equal(picture[64 * scale, 128 * scale], IMAGE[0, 0])
    corner = (92 * scale, 156 * scale)  # inside the box, outside the disc
    assert np.array_equal(picture[corner], IMAGE[0, 0])
    assert np.array_equal(picture[120 * scale, 20 * scale], IMAGE[0, 0])


def test_the_given_box_is_drawn_and_not_the_masks_own() -> None:
    wide = masked(bbox=(20.0, 10.0, 200.0, 100.0))
    picture = draw_sample(sample(wide), IMAGE)
    scale = MIN_LONG_SIDE // 256
    assert not np.array_equal(picture[60 * scale, 20 * scale], IMAGE[0, 0])
    assert not np.array_equal(picture[60 * scale, 220 * scale], IMAGE[0, 0])


def test_a_hole_stays_a_hole() -> None:
    ring = disc()
    ring[54:74, 118:138] = False
    picture = draw_sample(sample(masked(segmentation=encode_mask(ring), category="")), IMAGE)
    scale = MIN_LONG_SIDE // 256
    assert np.array_equal(picture[64 * scale, 128 * scale], IMAGE[0, 0])
    assert not np.array_equal(picture[64 * scale, 108 * scale], IMAGE[0, 0])


@pytest.mark.parametrize(
    "odd",
    [
        Annotation(1, (float("nan"), 0.0, 1.0, 1.0), "x", flags=("degenerate",)),
        Annotation(1, (5.0, 5.0, -3.0, 0.0), "x", flags=("degenerate",)),
        Annotation(1, (1e30, 5.0, 1e30, 5.0), "x", flags=("outside",)),
        Annotation(1, (-500.0, -500.0, 5000.0, 5000.0), "x" * 300, flags=("clipped",)),
        Annotation(1, (0.0, 0.0, 10.0, 10.0), "犬 🐕 \n\x00"),
        Annotation(1, (0.0, 0.0, 10.0, 10.0), "other size", segmentation=Rle((2, 2), b"04")),
    ],
)
def test_odd_annotations_are_drawn_or_passed_over(odd: Annotation) -> None:
    picture = draw_sample(sample(odd, masked()), IMAGE)
    assert picture.shape[2] == 3
    assert not np.array_equal(picture[64 * 4, 128 * 4], IMAGE[0, 0])  # the other one is drawn all the same


def test_an_unreadable_image_shows_its_error() -> None:
    plain = draw_sample(sample(masked()), None)
    told = draw_sample(replace(sample(masked()), error="no file a/b.jpg below the image folder"), None)
    assert plain.shape == told.shape
    assert not np.array_equal(plain, told)


def test_words() -> None:
    assert format_annotation(masked(predicted_iou=0.944, stability_score=1.0, soft_iou=0.7, box_iou=0.05)) == (
        "disc  iou .94  stab 1.00  soft .70  box .05"
    )
    assert format_annotation(Annotation(1, (0, 0, 1, 1), "", flags=("crowd", "clipped"))) == "?  [crowd, clipped]"


def test_captions_stand_beside_the_photograph_and_leave_it_as_it_is() -> None:
    some = (Caption("a disc", "toy", -0.5, True, ("low_score",)), Caption("犬 \x00" + "x" * 999, "human", None, False))
    without = draw_sample(sample(masked()), IMAGE)
    beside = draw_sample(sample(masked(captions=some)), IMAGE)
    height = MIN_LONG_SIDE // 2
    assert np.array_equal(beside[:height, :MIN_LONG_SIDE], without[:height])
    column = beside[:height, MIN_LONG_SIDE:]
    assert column.shape[1] > MIN_LONG_SIDE // 3
    assert (column > 200).any()
    many = draw_sample(sample(*[masked(captions=some)] * 99), IMAGE)
    assert many.shape == beside.shape


def test_captions_in_words() -> None:
    own = (
        Caption("a disc", "toy", -0.5, True, ("low_score", "only_category")),
        Caption("a cat", "human", None, False),
        Caption("round", "toy"),
    )
    assert format_captions(masked(captions=own)) == [
        "a disc  -0.50  [low_score, only_category]",
        "a cat  (human)  [not it]",
        "round",
    ]
