"""Losses and random changes of crops in training."""

from __future__ import annotations

import math

import torch

from synthgen.models.box_segmenter.losses import jitter_boxes, jitter_colors, mask_losses


def test_cross_entropy_and_dice_of_a_known_case() -> None:
    targets = torch.zeros(1, 2, 2)
    targets[0, 0] = 1
    losses = mask_losses(torch.zeros(1, 2, 2), targets, torch.ones(1))
    assert math.isclose(float(losses["mask"]), math.log(2), rel_tol=1e-6)
    assert math.isclose(float(losses["dice"]), 1 - (2 * 1 + 1) / (4 + 1), rel_tol=1e-6)


def test_a_right_mask_has_almost_no_loss_and_a_weight_scales_it() -> None:
    targets = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    right = mask_losses(40 * (targets - 0.5), targets, torch.ones(3))
    assert all(value < 1e-3 for value in right.values())
    one, half = (mask_losses(torch.zeros(3, 8, 8), targets, torch.full((3,), weight)) for weight in (1.0, 0.5))
    assert all(torch.isclose(half[name], one[name] / 2) for name in one)


def test_a_jittered_box_moves_each_side_by_at_most_its_share() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]]).repeat(1000, 1)
    moved = (jitter_boxes(boxes, 0.1) - boxes).abs().amax(0)
    assert (moved <= torch.tensor([2.0, 4.0, 2.0, 4.0])).all() and (moved > torch.tensor([1.8, 3.6, 1.8, 3.6])).all()
    assert torch.equal(jitter_boxes(boxes, 0.0), boxes)


def test_jittered_colors_stay_in_range_and_differ() -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 6, 7) * 2 - 1
    assert torch.allclose(jitter_colors(image, 0.0), image, atol=1e-6)
    for _ in range(20):
        changed = jitter_colors(image, 0.5)
        assert changed.min() >= -1 and changed.max() <= 1 and not torch.equal(changed, image)
