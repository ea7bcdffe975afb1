"""Masks of SAM on the device: pycocotools' run lengths, segment-anything's scores, selection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from segment_anything.utils.amg import calculate_stability_score

from synthgen.models.sam_masks import run_edges, select_masks, selection_score, soft_iou
from synthgen.records.rle import encode_mask, encode_run_boundaries

masks = npst.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))


def rles(found, top, left, height, width):
    owner, place = run_edges(torch.from_numpy(found), top, left, height)
    return [encode_run_boundaries(place[owner == i].numpy(), height, width) for i in range(len(found))]


@given(masks)
def test_run_edges_of_whole_images_are_the_masks(found):
    height, width = found.shape[1:]
    assert rles(found, 0, 0, height, width) == [encode_mask(mask) for mask in found]


@given(masks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_run_edges_of_windows_are_the_masks_in_their_image(found, top, left, below, right):
    _, h, w = found.shape
    height, width = top + h + below, left + w + right
    whole = np.zeros((len(found), height, width), bool)
    whole[:, top : top + h, left : left + w] = found
    assert rles(found, top, left, height, width) == [encode_mask(mask) for mask in whole]


@given(npst.arrays(np.float32, (3, 2, 6, 7), elements=st.floats(-3, 3, width=16)))
def test_stability_is_segment_anythings(logits):
    tensor = torch.from_numpy(logits)
    for candidate in range(2):
        own = tensor[:, candidate : candidate + 1]
        found = select_masks(own, torch.ones(3, 1), torch.tensor([[0.0, 0, 7, 6]] * 3), always_score=False)
        theirs = calculate_stability_score(own[:, 0], 0.0, 1.0)
        assert torch.equal(found.stability, theirs.nan_to_num(0.0)), "of nothing, segment-anything gives NaN"
        assert torch.equal(found.masks, own[:, 0] > 0)
        assert found.selection_score is None


def drawn(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """One mask [1, 1, 20, 30] of filled boxes XYXY."""
    mask = torch.zeros(1, 1, 20, 30, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes:
        mask[..., y1:y2, x1:x2] = True
    return mask


BOX = torch.tensor([[5.0, 4.0, 15.0, 14.0]])
ONE = torch.ones(1, 1)


def weight(*boxes, stability=1.0, iou=1.0) -> float:
    return float(selection_score(drawn(*boxes), BOX, ONE * stability, ONE * iou))


def test_a_mask_that_fills_its_box_has_all_evidence():
    assert weight((5, 4, 15, 14)) == pytest.approx(1)
    assert weight((5, 4, 15, 14), stability=0.5, iou=0.5) == pytest.approx(0.25)


def test_evidence_falls_with_what_is_wrong():
    assert weight((5, 4, 10, 14)) == pytest.approx(0.5), "half of the box's width"
    spilt = weight((5, 4, 15, 14), (20, 4, 22, 14))
    assert spilt == pytest.approx(100 / 170 * 100 / 120), "tight box too wide, and a sixth of the area outside"
    assert weight() == 0
    assert weight((16, 15, 20, 18)) == 0


def test_the_best_candidate_is_kept_box_by_box():
    logits = torch.where(torch.cat([drawn((0, 0, 30, 20)), drawn((5, 4, 15, 14)), drawn((6, 5, 7, 6))], 1), 5.0, -5.0)
    logits = torch.cat([logits, logits.flip(1)])
    iou = torch.tensor([[0.9, 0.8, 1.7], [1.0, 0.7, 0.9]])
    found = select_masks(logits, iou, BOX.expand(2, 4), always_score=False)
    assert [int(mask.sum()) for mask in found.masks] == [100, 100]
    assert found.iou.tolist() == pytest.approx([0.8, 0.7])
    assert found.selection_score.tolist() == pytest.approx([0.8, 0.7])


def test_predicted_iou_stays_within_its_range():
    found = select_masks(
        torch.ones(2, 1, 3, 3), torch.tensor([[1.02], [-0.1]]), torch.tensor([[0.0, 0, 3, 3]] * 2), always_score=True
    )
    assert found.iou.tolist() == [1, 0]


@given(npst.arrays(np.float32, (2, 5, 6), elements=st.floats(-8, 8, width=16)))
def test_soft_iou_is_the_expected_intersection_over_the_expected_union(logits):
    masks = logits > 0
    found = soft_iou(torch.from_numpy(logits), torch.from_numpy(masks)).numpy()
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    inside, outside = (p * masks).sum((1, 2)), (p * ~masks).sum((1, 2))
    expected = inside / np.maximum(masks.sum((1, 2)) + outside, 1)
    assert np.allclose(found, expected, atol=1e-6)
    assert ((found >= 0) & (found <= 1)).all()


def test_soft_iou_is_1_where_all_pixels_are_certain_and_falls_with_doubt():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    certain = torch.where(mask, 50.0, -50.0)
    doubts = [certain / 50 * scale for scale in (50, 3, 1, 0.1)]
    scores = [float(soft_iou(logits.clone(), mask)) for logits in doubts]
    assert scores[0] == 1 and scores == sorted(scores, reverse=True)
    assert float(soft_iou(torch.full((1, 8, 8), -50.0), torch.zeros(1, 8, 8, dtype=torch.bool))) == 0


@pytest.mark.parametrize("candidates", [1, 3])
def test_the_soft_iou_of_a_selection_belongs_to_the_selected_mask(candidates):
    logits = torch.randn(4, candidates, 9, 7, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0, 7, 9]] * 4)
    found = select_masks(logits.clone(), torch.full((4, candidates), 0.5), boxes, always_score=False)
    rows = [next(i for i in range(candidates) if torch.equal(logits[n, i] > 0, found.masks[n])) for n in range(4)]
    assert torch.equal(found.soft_iou, soft_iou(logits[range(4), rows], found.masks))
