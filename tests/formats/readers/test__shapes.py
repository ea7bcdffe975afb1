"""Shapes as boxes and masks: laws of rectangles, polygons, ellipses, rotated boxes, windows, unions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers._shape_groups import ShapeGroups
from synthgen.formats.readers._shapes import (
    Shape,
    box_around,
    box_from_corners,
    box_from_size,
    ellipse,
    join,
    mask_in_window,
    polygon,
    rotated_box,
    rotated_box_around_center,
)
from synthgen.records.rle import decode_mask, rle_area, rle_from_coco

numbers = st.floats(-1_000, 1_000)
sizes = st.floats(0.5, 500)
angles = st.floats(-10, 10)


@given(st.lists(numbers, min_size=4, max_size=40).filter(lambda values: len(values) % 2 == 0))
def test_a_box_around_points_touches_the_outermost(points):
    x, y, w, h = box_around(points).bbox
    assert x == min(points[::2]) and y == min(points[1::2])
    assert x + w == pytest.approx(max(points[::2])) and y + h == pytest.approx(max(points[1::2]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_absurd_numbers_are_no_shape(bad):
    assert box_from_corners(1, 2, bad, 4) is box_from_size(1, bad, 3, 4) is box_around([1, 2, bad, 4]) is None
    assert polygon([1, 2, 3, 4, 5, bad]) is ellipse(1, 2, bad, 4) is ellipse(1, 2, 3, 4, bad) is None
    assert rotated_box_around_center(1, 2, 3, 4, bad) is rotated_box([1, 2, 3, 4, 5, 6, 7, bad]) is None


def test_too_few_points_are_no_shape():
    assert polygon([1, 2, 3, 4]) is polygon([]) is box_around([1, 2]) is box_around([1, 2, 3]) is None
    assert rotated_box([1, 2, 3, 4, 5, 6]) is ellipse(1, 2, 0, 3) is ellipse(1, 2, 3, -1) is None


@given(numbers, numbers, sizes, sizes, angles)
def test_a_rotated_box_is_the_same_by_its_corners_and_by_its_centre(cx, cy, width, height, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    half = ((-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2))
    corners = [v for x, y in half for v in (cx + x * cos - y * sin, cy + x * sin + y * cos)]
    one, other = rotated_box_around_center(cx, cy, width, height, angle), rotated_box(corners)
    assert one.bbox == pytest.approx(other.bbox, abs=1e-6)
    assert one.payload() is None
    assert rotated_box_around_center(cx, cy, width, height, -angle).bbox == pytest.approx(one.bbox)


@pytest.mark.parametrize("quarters", range(-4, 5))
def test_quarter_turns_are_upright(quarters):
    found = rotated_box_around_center(10, 20, 6, 4, quarters * math.pi / 2)
    assert found.bbox == ((7, 18, 6, 4) if quarters % 2 == 0 else (8, 17, 4, 6)) and not found.rotated


@given(numbers, numbers, sizes, sizes, angles)
def test_an_ellipse_is_close_to_its_polygon_and_inside_its_box(cx, cy, rx, ry, angle):
    shape = ellipse(cx, cy, rx, ry, angle)
    x, y, w, h = shape.bbox
    points = np.array(shape.polygons[0]).reshape(-1, 2)
    assert (points >= np.array([x, y]) - 1e-6).all() and (points <= np.array([x + w, y + h]) + 1e-6).all()
    around = box_around(shape.polygons[0]).bbox
    assert w - around[2] <= 0.4 and h - around[3] <= 0.4  # twice a tenth of a pixel on each side, turned
    own = points - [cx, cy]
    along = own @ np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert np.allclose((along[:, 0] / rx) ** 2 + (along[:, 1] / ry) ** 2, 1)


@given(st.integers(-5, 25), st.integers(-5, 25), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_window_is_placed_and_cut(left, top, w, h, seed):
    window = np.random.default_rng(seed).random((h, w)) < 0.5
    canvas = np.zeros((60, 60), bool)
    canvas[top + 20 : top + 20 + h, left + 20 : left + 20 + w] = window
    there = canvas[20:35, 20:40]  # the image has 15 rows and 20 columns
    shape = mask_in_window(window, left, top, 15, 20)
    if not there.any():
        assert shape is None
        return
    assert (decode_mask(shape.mask) == there).all()
    ys, xs = there.nonzero()
    assert shape.bbox == (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-3, -3), (2**20, 2**20)])
def test_an_image_without_a_usable_size_has_no_mask(height, width):
    assert mask_in_window(np.ones((2, 2), bool), 0, 0, height, width) is None


def square(x: float, y: float, side: float = 4) -> Shape:
    return polygon([x, y, x + side, y, x + side, y + side, x, y + side])


def test_payloads_are_coco_segmentations():
    assert json.loads(square(1, 2).payload()) == [[1, 2, 5, 2, 5, 6, 1, 6]]
    mask = mask_in_window(np.ones((2, 3), bool), 1, 1, 10, 10)
    assert rle_from_coco(json.loads(mask.payload()), 10, 10) == mask.mask


def test_joined_parts_are_one_object():
    one = join([square(1, 1), square(10, 10)], 20, 20)
    assert one.bbox == (1, 1, 13, 13) and len(one.polygons) == 2 and one.mask is None
    mask = mask_in_window(np.ones((2, 3), bool), 15, 1, 20, 20)
    both = join([square(1, 1), mask], 20, 20)
    assert both.bbox == (1, 1, 17, 4) and rle_area(both.mask) == 16 + 6
    assert join([mask], 20, 20) is mask
    with pytest.raises(SynthgenError):
        join([polygon([900, 900, 950, 900, 950, 950]), mask], 20, 20)


def test_a_group_whose_mask_cannot_be_drawn_keeps_its_box():
    class Rows:
        """Keeps what is added."""

        found: list[tuple[str, Shape | None, frozenset[str]]]

        def __init__(self) -> None:
            self.found = []

        def add_object(self, image_id: int, label: str, shape: Shape | None, *, flags: frozenset[str]) -> None:
            self.found.append((label, shape, flags))

    groups, rows = ShapeGroups(), Rows()
    mask = mask_in_window(np.ones((2, 3), bool), 1, 1, 20, 20)
    for label, shape, group in (("a", mask, "1"), ("a", polygon([900, 900, 950, 900, 950, 950]), "1"), ("b", mask, "1"),
                                ("a", None, "1"), ("a", Shape((1, 2, 3, 4)), "1"), ("a", mask, None)):  # fmt: skip
        groups.add(label, shape, frozenset(), group)
    groups.add_to(rows, 1, 20, 20)  # type: ignore[arg-type]
    assert [(label, shape and shape.bbox, set(flags)) for label, shape, flags in rows.found] == [
        ("a", (1, 1, 949, 949), {"bad_segmentation"}), ("b", (1, 1, 3, 2), set()), ("a", None, set()),
        ("a", (1, 2, 3, 4), set()), ("a", (1, 1, 3, 2), set()),
    ]  # fmt: skip
