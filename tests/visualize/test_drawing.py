"""Drawings: hatches, marks, boxes and texts where they belong, for any text and any shape of image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.visualize.drawing import (
    MAX_LABEL_LENGTH,
    MIN_LONG_SIDE,
    ObjectMark,
    TextBlock,
    draw_overlay,
    save_png,
    shorten_text,
)

IMAGE = np.full((128, 256, 3), 100, np.uint8)
SCALE = MIN_LONG_SIDE // 256
HALF = np.zeros((128, 256), np.bool_)
HALF[:, 128:] = True
ODD = ["", " ", "a  b", "x" * 5000, "many words " * 500, "犬 🐕", "כלב", "\n\r\x00\x1b[31m", "\ud800", "e\u0301" * 9]


def test_hatches_are_where_the_region_is_and_leave_the_rest_as_it_is() -> None:
    plain, hatched = draw_overlay(IMAGE, []), draw_overlay(IMAGE, [], hatched_mask=HALF)
    changed = (plain != hatched).any(axis=2)
    assert not changed[:, : 128 * SCALE].any()
    inside = changed[: 128 * SCALE, 128 * SCALE :]
    assert 0.2 < inside.mean() < 0.5  # stripes, between which the image is seen
    assert all(inside[y : y + 20, x : x + 20].any() for y in range(0, 490, 70) for x in range(0, 490, 70))
    assert np.array_equal(draw_overlay(IMAGE, [], hatched_mask=np.zeros_like(HALF)), plain)


def test_hatches_are_seen_on_black_and_on_white() -> None:
    for value in (0, 255):
        image = np.full_like(IMAGE, value)
        assert (draw_overlay(image, [], hatched_mask=~HALF) != draw_overlay(image, [])).any()


def test_a_mask_is_taken_as_pixels() -> None:
    box = (128.0, 0.0, 256.0, 128.0)
    tinted = draw_overlay(IMAGE, [ObjectMark(box, "", HALF)])[100 * SCALE, :]
    assert np.array_equal(tinted[60 * SCALE], IMAGE[0, 0])
    assert not np.array_equal(tinted[200 * SCALE], IMAGE[0, 0])


def test_the_box_of_a_mark_without_mask_is_dashed() -> None:
    box = (20.0, 40.0, 220.0, 120.0)
    solid = draw_overlay(IMAGE, [ObjectMark(box, "", np.zeros((128, 256), np.bool_))])[120 * SCALE]
    dashed = draw_overlay(IMAGE, [ObjectMark(box, "")])[120 * SCALE]
    along = slice(20 * SCALE, 220 * SCALE)
    drawn = (dashed[along] != IMAGE[0, 0]).any(axis=1).mean()
    assert (solid[along] != IMAGE[0, 0]).any(axis=1).all()
    assert 0.4 < drawn < 0.7


@pytest.mark.parametrize("words", ODD, ids=range(len(ODD)))
def test_any_text_can_be_drawn(words: str) -> None:
    marks = [ObjectMark((20.0, 40.0, 220.0, 120.0), words, HALF)]
    page = draw_overlay(IMAGE, marks, [TextBlock(words, [words, words], [0])], words)
    assert page.shape[0] > 128 * SCALE
    assert page.shape[1] > MIN_LONG_SIDE


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2), (2000, 1500)])
def test_any_shape_can_be_drawn(shape: tuple[int, int]) -> None:
    mask = np.ones(shape, np.bool_)
    marks = [
        ObjectMark((0.0, 0.0, float(shape[1]), float(shape[0])), "dog", mask),
        ObjectMark((0.0, 0.0, 1.0, 1.0), "cat"),
    ]
    page = draw_overlay(
        np.zeros((*shape, 3), np.uint8), marks, [TextBlock("dog", mark_indices=[0, 1])], "a.jpg", hatched_mask=mask
    )
    assert max(page.shape[:2]) >= MIN_LONG_SIDE


def test_long_lines_go_on_below_and_within_the_column() -> None:
    short = draw_overlay(IMAGE, [], [TextBlock("title")])
    long = draw_overlay(IMAGE, [], [TextBlock("title", ["word " * 60])])
    assert long.shape == short.shape
    rows = (long[:, MIN_LONG_SIDE:] > 128).any(axis=(1, 2)), (short[:, MIN_LONG_SIDE:] > 128).any(axis=(1, 2))
    assert rows[0].sum() > 3 * rows[1].sum()
    assert not (long[:, -8:] > 128).any()


def test_every_title_can_be_read_on_black_and_stays_within_the_column() -> None:
    marks = [ObjectMark((0.0, 0.0, 9.0, 9.0), "")] * 30
    for i in range(30):
        column = draw_overlay(IMAGE, marks, [TextBlock("title", mark_indices=[i])])[:, MIN_LONG_SIDE + 40 : -8]
        assert (column @ (0.299, 0.587, 0.114)).max() > 95, i
    many = draw_overlay(IMAGE, marks, [TextBlock("word " * 60, mark_indices=range(30))])
    assert not (many[:, -8:] > 128).any()


def test_blocks_that_find_no_room_are_counted_and_change_no_size() -> None:
    few, many = (draw_overlay(IMAGE, [], [TextBlock(f"title {i}") for i in range(n)]) for n in (5, 300))
    assert few.shape == many.shape


@pytest.mark.parametrize("text", [*ODD, "x" * MAX_LABEL_LENGTH, "x" * (MAX_LABEL_LENGTH + 1)])
def test_a_beginning_is_no_longer_than_it_may_be_and_says_that_it_is_one(text: str) -> None:
    found = shorten_text(text)
    assert len(found) <= MAX_LABEL_LENGTH and found.isspace() == text.isspace()
    assert found == text if len(text) <= MAX_LABEL_LENGTH else text.startswith(found.removesuffix(" ..."))


def test_a_long_footer_goes_on_below() -> None:
    one, two = draw_overlay(IMAGE, [], footer="a.jpg"), draw_overlay(IMAGE, [], footer="a.jpg " * 60)
    assert two.shape[0] > one.shape[0]
    assert np.array_equal(one[: 128 * SCALE], two[: 128 * SCALE])


def test_saving_where_nothing_can_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SynthgenError, match="--out"):
        save_png(tmp_path / "file" / "x.png", IMAGE)
    save_png(tmp_path / "new" / "x.png", IMAGE)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "x.png")), IMAGE)
