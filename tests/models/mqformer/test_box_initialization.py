"""Boxes around predicted masks: the reference's values, padding, and masks that are empty."""

from __future__ import annotations

import pytest
import torch
from fakes.mqformer_parts import golden_part, is_close

from synthgen.models.mqformer.box_initialization import initial_boxes, masks_to_boxes
from synthgen.models.mqformer.predictions import Predictions


@pytest.mark.parametrize("box_type", ["mask2box", "bitmask"])
def test_boxes_of_masks_are_the_reference(golden, box_type):
    g = golden_part(golden, "matcher_losses")
    masks = g["maskbox.masks"] > 0
    filled = masks.flatten(1).any(1)
    found = masks_to_boxes(masks, box_type)
    assert filled.any()
    assert is_close(found[filled], g[f"maskbox.{box_type}"][filled])
    assert not found[~filled].any()


def test_a_single_pixel_and_a_whole_mask_have_boxes():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 4, 6], masks[1] = True, True
    assert masks_to_boxes(masks, "bitmask").tolist() == [[6, 4, 7, 5], [0, 0, 7, 5]]
    assert masks_to_boxes(masks, "mask2box").tolist() == [[6, 4, 6, 4], [0, 0, 6, 4]]
    assert masks_to_boxes(masks[:0], "bitmask").shape == (0, 4)


@pytest.mark.parametrize("box_type", ["mask2box", "bitmask"])
def test_boxes_are_relative_to_the_unpadded_image_and_end_at_the_padding(box_type):
    """Of each image and query, counted pixel by pixel; masks have twice the resolution of the padding mask."""
    rng = torch.Generator().manual_seed(0)
    features, embeddings = torch.randn(2, 3, 12, 16, generator=rng), torch.randn(2, 9, 3, generator=rng)
    embeddings[1, 4] = 0.0  # no logit above zero: an empty mask
    boxes = torch.rand(2, 9, 4, generator=rng)
    padding = torch.zeros(2, 6, 8, dtype=torch.bool)
    padding[1, 4:], padding[1, :, 5:] = True, True  # of 12 by 16 pixels, 8 by 10 are the image
    proposals = Predictions([torch.zeros(9, 2)] * 2, boxes, features, embeddings)
    found = initial_boxes(proposals, padding, box_type)
    less = 1 if box_type == "mask2box" else 0
    for i, (height, width) in enumerate([(12, 16), (8, 10)]):
        for q in range(9):
            pixels = [
                (x, y)
                for y in range(height)
                for x in range(width)
                if float(embeddings[i, q] @ features[i, :, y, x]) > 0
            ]
            if not pixels:
                assert torch.equal(found[i, q], boxes[i, q])
                continue
            columns, rows = zip(*pixels, strict=True)
            left, right = min(columns) / width, (max(columns) + 1 - less) / width
            top, bottom = min(rows) / height, (max(rows) + 1 - less) / height
            wanted = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
            assert torch.allclose(found[i, q], wanted, atol=2e-5)
    assert torch.equal(found[1, 4], boxes[1, 4]), "an empty mask keeps the box"
    assert not found.requires_grad


def test_boxes_around_masks_have_no_gradient():
    embeddings, boxes = torch.randn(1, 3, 4, requires_grad=True), torch.rand(1, 3, 4, requires_grad=True)
    proposals = Predictions([torch.zeros(3, 2)], boxes, torch.randn(1, 4, 8, 8), embeddings)
    assert not initial_boxes(proposals, torch.zeros(1, 4, 4, dtype=torch.bool), "bitmask").requires_grad
