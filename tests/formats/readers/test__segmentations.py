"""Segmentations as exporters write them: what is read, what is flagged, and the reason."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from synthgen.formats.readers._segmentations import (
    draw_segmentation,
    find_mask_box,
    find_problems,
    find_rle_size,
    summarize_polygon,
)
from synthgen.records.rle import decode_mask, rle_area, rle_from_coco

HEIGHT, WIDTH = 20, 30
SQUARE = [2, 2, 10, 2, 10, 12, 2, 12]
POINTS = [[2, 2], [10, 2], [10, 12], [2, 12]]


def payload(value: Any) -> bytes:
    return json.dumps(value).encode()


def check(value: Any, height: int = HEIGHT, width: int = WIDTH) -> tuple[int | None, dict[str, str]]:
    """The area that is drawn, and the problems; `find_problems` says the same without drawing."""
    rle, problems = draw_segmentation(payload(value), height, width)
    assert find_problems(payload(value), height, width) == problems
    assert find_problems(summarize_polygon(payload(value)), height, width) == problems
    assert (rle is None) == ("bad_segmentation" in problems)
    return rle and rle_area(rle), problems


@pytest.mark.parametrize(
    "value",
    [[SQUARE], [SQUARE, [20, 2, 22, 2, 22, 4, 20, 4]], {"size": [20, 30], "counts": [0, 40, 560]}],
)
def test_what_coco_writes_has_no_flag_and_its_mask(value):
    rle, problems = draw_segmentation(payload(value), HEIGHT, WIDTH)
    assert rle == rle_from_coco(value, HEIGHT, WIDTH) and problems == {}
    assert find_problems(payload(value), HEIGHT, WIDTH) == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (SQUARE, "a flat list of 8 numbers, read as one polygon"),
        ([str(v) for v in SQUARE], "a flat list of 8 numbers"),
        (POINTS, "a list of 4 points, read as one polygon"),
        ([POINTS], "polygons written as lists of points"),
    ],
)
def test_one_polygon_in_another_spelling_is_read_and_flagged(value, reason):
    area, problems = check(value)
    assert area == 80 and list(problems) == ["flat_polygon"] and problems["flat_polygon"].startswith(reason)


def test_numbers_in_quotes_are_numbers_as_in_boxes():
    assert check([[str(v) for v in SQUARE]]) == (80, {})


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ([], "part 2 of 2 is empty"),
        ([20, 20, 21, 21], "part 2 of 2 has 4 numbers, and a polygon needs at least three points"),
        ([1, 2, 3, 4, 5, 6, 7], "part 2 of 2 has 7 numbers, and each point needs two"),
        ([1, 2, 3, 4, 5, None], "part 2 of 2 has null where a number should be"),
        ([1, 2, 3, 4, 5, math.nan], "part 2 of 2 has nan where"),
        ([1, 2, math.inf, 4, 5, 6], "part 2 of 2 has inf where"),
        ([1, 2, "x", 4, 5, 6], "part 2 of 2 has 'x' where"),
        ([1, 2, True, 4, 5, 6], "part 2 of 2 has True where"),
        ([1, 2, [3], 4, 5, 6], "part 2 of 2 has a list where"),
        ([1, 2, 10**400, 4, 5, 6], "part 2 of 2 has 1000"),
        ([500, 2, 510, 2, 510, 9], "part 2 of 2 lies far outside the image of 30 x 20"),
        ({"x": 1}, "part 2 of 2 is an object, not a list"),
        (7, "part 2 of 2 is 7, not a list"),
    ],
)
def test_one_bad_part_does_not_lose_the_mask(part, reason):
    area, problems = check([SQUARE, part])
    assert area == 80 and list(problems) == ["bad_polygon_part"]
    assert problems["bad_polygon_part"].startswith(reason)
    area, problems = check([part])
    assert area is None and list(problems) == ["bad_segmentation"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("abc", "neither a list of polygons nor an RLE"),
        (17, "neither a list of polygons nor an RLE"),
        ([[]], "part 1 of 1 is empty"),
        ([1, 2, 3, 4], "has 4 numbers, and a polygon needs"),
        ([[1, 2]], "has 2 numbers, and a polygon needs"),
        ([[[1, 2, 3, 4, 5, 6]]], "numbers"),
        ([[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], "look normalised: all lie between 0 and 1, the image is 30 x 20"),
        ([[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]], "look normalised"),
        ({"x": 1}, r"no 'counts' \(its keys: 'x'\)"),
        ({"counts": [600]}, "no 'size' of height and width"),
        ({"size": [20], "counts": [600]}, "no 'size'"),
        ({"size": [2**40, 2**40], "counts": [600]}, "no 'size'"),
        ({"size": [30, 20], "counts": [600]}, "exchanged: .30, 20., the image is 20 high and 30 wide"),
        ({"size": [20, 31], "counts": [620]}, "its RLE is 20 high and 31 wide, the image is 20 high and 30 wide"),
        ({"size": [20, 30], "counts": [601]}, "cover|longer"),
        ({"size": [20, 30], "counts": [599]}, "its runs cover 599 pixels, not 600"),
        ({"size": [20, 30], "counts": [-1, 601]}, "negative or longer"),
        ({"size": [20, 30], "counts": [300.0, 300.0]}, "not whole numbers"),
        ({"size": [20, 30], "counts": "~~~~"}, "not a COCO run-length text"),
        ({"size": [20, 30], "counts": None}, "neither numbers nor a text"),
    ],
)
def test_what_cannot_be_read_has_a_reason(value, reason):
    area, problems = check(value)
    assert area is None and list(problems) == ["bad_segmentation"]
    assert re.search(reason, problems["bad_segmentation"])


def test_bytes_that_python_turned_into_text_are_read():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[2:9, 3:20] = 1
    counts = coco_mask.encode(mask)["counts"]
    rle, problems = draw_segmentation(payload({"size": [HEIGHT, WIDTH], "counts": str(counts)}), HEIGHT, WIDTH)
    assert rle is not None and problems == {} and (decode_mask(rle) == mask.astype(bool)).all()


def test_a_small_polygon_in_a_small_image_is_not_normalised():
    assert check([[0, 0, 1, 0, 1, 1, 0, 1]], 1, 1)[0] == 1


def test_without_a_size_only_the_content_is_checked():
    assert find_problems(payload([SQUARE]), 0, 0) == {}
    assert list(find_problems(payload([SQUARE, []]), 0, 0)) == ["bad_polygon_part"]
    rle, problems = draw_segmentation(payload([SQUARE]), 0, 0)
    assert rle is None and problems == {"bad_segmentation": "a mask needs the size of its image"}


@given(
    st.lists(st.floats(-70, 70) | st.floats(-0.5, 1.5), min_size=6, max_size=12).filter(
        lambda part: len(part) % 2 == 0
    ),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_the_summary_of_a_polygon_tells_what_the_polygon_tells(part, height, width):
    text = payload([part])
    short = summarize_polygon(text)
    assert len(short) < 60 and find_problems(short, height, width) == find_problems(text, height, width)
    assert find_problems(short, 0, 0) == {}


def test_only_one_polygon_of_a_short_outline_is_summarized():
    for value in (
        [SQUARE, SQUARE],
        SQUARE,
        POINTS,
        [[1, 2]],
        {"size": [1, 1], "counts": [1]},
        [[0, 0, 1e6, 1e6] * 10],
        None,
    ):
        assert summarize_polygon(payload(value)) == payload(value)


def test_no_json_and_deep_nesting_are_bad_and_raise_nothing():
    for text in (b"[[1, 2", b"[" * 100_000, b"\xff"):
        assert list(find_problems(text, HEIGHT, WIDTH)) == ["bad_segmentation"]
        assert draw_segmentation(text, HEIGHT, WIDTH)[0] is None


def test_boxes_of_masks():
    assert find_mask_box([SQUARE]) == find_mask_box(SQUARE) == find_mask_box(POINTS) == (2, 2, 8, 10)
    assert find_mask_box([SQUARE, [20, 1, 22, 1, 22, 4, 20, 4], [7]]) == (2, 1, 20, 11)
    assert find_mask_box({"size": [20, 30], "counts": [0, 40, 560]}) == (0, 0, 2, 20)
    empty: list[Any] = [None, [], {}, [[]], "x", {"size": [20, 30], "counts": [600]}, {"size": [20, 30]}, [[1e308] * 6]]
    assert [find_mask_box(value) for value in empty[:-1]] == [None] * 7
    assert find_mask_box([[1.7e308, 0, -1.7e308, 0, 5, 5]]) is None, "its width is no float64"


def test_the_size_that_an_rle_states():
    assert find_rle_size(payload({"size": [20, 30], "counts": [600]})) == (20, 30)
    assert find_rle_size(payload({"size": [20, 30], "counts": [6]})) is None
    assert find_rle_size(payload([SQUARE])) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=30,
)
numbers = st.integers(-50, 80) | st.floats(-50, 80)


@given(
    json_values
    | st.lists(st.lists(numbers, max_size=12) | json_values, max_size=4)
    | st.lists(numbers, max_size=12)
    | st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=6)
)
def test_any_value_is_drawn_or_has_a_reason(value):
    area, problems = check(value)
    assert (area is None) == ("bad_segmentation" in problems)
    assert all(problems.values())
    box = find_mask_box(value)
    assert box is None or all(map(math.isfinite, box))
