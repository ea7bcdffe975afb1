"""Boxes: both forms, clipping, IoU."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from synthgen.records.boxes import clip_xyxy, paired_box_iou, xywh_to_xyxy, xyxy_to_xywh

coordinate = st.floats(-1e4, 1e4)


side = st.floats(0, 1e4)


xywh = st.lists(st.tuples(coordinate, coordinate, side, side), max_size=5).map(lambda b: np.array(b).reshape(-1, 4))


@given(xywh)
def test_box_forms_are_inverses(boxes):
    assert np.allclose(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes, rtol=0, atol=1e-9)
    corners = xywh_to_xyxy(boxes)
    assert (corners[:, 2:] >= corners[:, :2]).all()


@given(st.tuples(*[st.integers(-(10**6), 10**6)] * 4))
def test_box_forms_are_exact_inverses_on_whole_pixels(box):
    assert xyxy_to_xywh(xywh_to_xyxy(box)).tolist() == list(map(float, box))
    assert xywh_to_xyxy(xyxy_to_xywh(box)).tolist() == list(map(float, box))


def test_a_box_by_hand():
    assert xywh_to_xyxy([10, 20, 3, 4]).tolist() == [10, 20, 13, 24]
    assert xyxy_to_xywh([[10, 20, 13, 24]]).tolist() == [[10, 20, 3, 4]]


@given(xywh, st.integers(1, 5000), st.integers(1, 5000))
def test_a_clipped_box_lies_inside_and_is_clipped_once(boxes, height, width):
    corners = xywh_to_xyxy(boxes)
    clipped = clip_xyxy(corners, height, width)
    assert (clipped >= 0).all()
    assert (clipped[:, 0::2] <= width).all()
    assert (clipped[:, 1::2] <= height).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()
    assert np.array_equal(clip_xyxy(clipped, height, width), clipped)
    inside = (corners >= 0).all(1) & (corners[:, 2] <= width) & (corners[:, 3] <= height)
    assert np.array_equal(clipped[inside], corners[inside])


def test_each_box_is_clipped_to_its_own_image():
    boxes = [[-1, -1, 99, 99], [-1, -1, 99, 99]]
    assert clip_xyxy(boxes, [10, 20], [30, 40]).tolist() == [[0, 0, 30, 10], [0, 0, 40, 20]]


@given(xywh, st.integers(1, 50), st.integers(1, 50))
def test_box_iou_is_symmetric_and_one_with_itself(boxes, dx, dy):
    a = xywh_to_xyxy(boxes)
    b = a + np.array([dx, dy, dx, dy])
    assert np.array_equal(paired_box_iou(a, b), paired_box_iou(b, a))
    assert ((paired_box_iou(a, b) >= 0) & (paired_box_iou(a, b) <= 1)).all()
    solid = (a[:, 2:] - a[:, :2] > 1e-3).all(1)
    assert np.allclose(paired_box_iou(a, a)[solid], 1)


def test_box_iou_by_hand():
    pairs = [([0, 0, 2, 2], [1, 0, 3, 2]), ([0, 0, 1, 1], [5, 5, 6, 6]), ([3, 3, 3, 3], [3, 3, 3, 3])]
    a, b = zip(*pairs, strict=True)
    assert paired_box_iou(a, b).tolist() == [2 / 6, 0, 0]
