"""`check_boxes_xyxy`: shapes, types, finite numbers, areas, and the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import ArgumentError
from synthgen.records.box_argument import check_boxes_xyxy

EDGE = st.floats(-200, 300, width=32)


class NoArray:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        ([1, 2, 3, 4], r"has the shape \[4\]; give \[N, 4\], \(x1, y1, x2, y2\); put the one box into a list"),
        ([[1, 2, 3]], r"has the shape \[1, 3\]"),
        (np.ones((2, 4, 1)), r"has the shape \[2, 4, 1\]"),
        (3, r"has the shape \[\]"),
        ([[1, 2, 3, 4], [1, 2]], r"is a list that numpy cannot read; give numbers \[N, 4\] in CPU memory$"),
        (NoArray(), r"is a NoArray that numpy cannot read; give numbers \[N, 4\] in CPU memory"),
        (torch.ones((1, 4), requires_grad=True), r"is a Tensor that .*; of a tensor of PyTorch, give tensor\.detach"),
        (torch.ones((1, 4), dtype=torch.bfloat16), r"is a Tensor that .*; of a tensor of PyTorch, give tensor\.detach"),
        (
            np.array([[1, 2, 3, 4]] * 3 + [None], dtype=object),
            r"has the shape \[4\]; .*; give column\.tolist\(\) of a column of boxes",
        ),
        ([["1", "2", "3", "4"]], r"has the type <U1; give numbers"),
        ([[True, True, False, True]], r"has the type bool"),
        ([[1, 2, 3, None]], r"has the type object"),
        ([[1 + 2j, 1, 2, 3]], r"has the type complex128"),
        ([[0, 0, 5, 5], [0, np.nan, 5, 5]], r"\[1\] = \[0\.0, nan, 5\.0, 5\.0\] has a number that is not finite"),
        ([[0, 0, np.inf, 5]], r"\[0\] = .* has a number that is not finite"),
        ([[5, 0, 5, 5]], r"\[0\] = \[5\.0, 0\.0, 5\.0, 5\.0\] has no area; x2 must be above x1"),
        ([[5, 9, 8, 5]], r"has no area"),
        ([[20, 30, 10, 15]], r"has no area; .*\(x2 is x \+ width of an XYWH box\)"),
        ([[100, 0, 120, 5]], r"has no area inside the image of 60 x 40 pixels"),
        ([[60, 0, 61, 5]], r"has no area inside the image"),
        ([[-5, -5, 0, 5]], r"has no area inside the image"),
        ([[50 - 1e-9, 0, 50, 5]], r"has no area inside the image"),  # none in float32
    ],
)
def test_each_wrong_box_has_its_sentence(boxes: Any, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^boxes_xyxy.*{sentence}"):
        check_boxes_xyxy(boxes, 40, 60)


@given(st.lists(st.tuples(EDGE, EDGE, EDGE, EDGE), max_size=5))
def test_what_passes_is_inside_the_image_with_an_area(boxes: list[tuple[float, float, float, float]]) -> None:
    try:
        found = check_boxes_xyxy(boxes, 40, 60)
    except ArgumentError:
        assert any(not (x2 > x1 and y2 > y1 and x2 > 0 and y2 > 0 and x1 < 60 and y1 < 40) for x1, y1, x2, y2 in boxes)
        return
    assert found.dtype == np.float64 and found.shape == (len(boxes), 4)
    assert ((found >= 0) & (found <= [60, 40, 60, 40])).all()
    small = found.astype(np.float32)
    assert (small[:, 2:] > small[:, :2]).all()
    wanted = np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, [60, 40, 60, 40])
    assert np.array_equal(found, wanted)
