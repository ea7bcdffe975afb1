"""Augmentation of training crops: what changes, what stays, and that draws follow the seed."""

from __future__ import annotations

import torch
from timm.layers.drop import DropPath

from synthgen.models.box_segmenter.crop_augment import (
    add_occluders,
    lower_resolution,
    set_drop_path,
    swap_backgrounds,
)
from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig

SIDE = 64


def make_crops(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of one colour each, and rectangles in their middle as masks."""
    crops = torch.arange(count).float()[:, None, None, None].expand(count, 3, SIDE, SIDE).clone()
    masks = torch.zeros(count, SIDE // 2, SIDE // 2)
    masks[:, 8:24, 6:26] = 1
    return crops, masks


def test_a_background_comes_from_another_crop_and_the_object_stays() -> None:
    crops, masks = make_crops()
    torch.manual_seed(0)
    changed = swap_backgrounds(crops, masks, 1.0)
    assert (changed[:, :, 20:44, 16:48] == crops[:, :, 20:44, 16:48]).all(), "the inside of the object"
    corners = changed[:, 0, 0, 0]
    moved = corners != crops[:, 0, 0, 0]
    assert moved.any() and set(corners.tolist()) <= set(range(6))


def test_an_occluder_hides_a_part_and_keeps_the_extent() -> None:
    crops, masks = make_crops(40)
    torch.manual_seed(0)
    changed, left = add_occluders(crops, masks, 1.0, objects=crops)
    hidden = (masks - left).sum((1, 2)) > 1e-3
    assert 5 < hidden.sum() < 40
    assert (left >= -1e-5).all() and (left <= masks + 1e-5).all()
    assert (left.sum((1, 2)) >= 0.4 * masks.sum((1, 2)) - 1e-3).all()
    for before, after in zip(masks, left, strict=True):
        for axis in (0, 1):
            ends = [(one > 0.5).any(axis).nonzero().flatten()[[0, -1]] for one in (before, after)]
            assert (ends[0] - ends[1]).abs().max() <= 1
    seen = (changed != crops).flatten(1).any(1)
    assert (seen | ~hidden).all(), "what hides a part is seen in the picture"


def test_low_resolution_keeps_flat_crops_and_blurs_edges() -> None:
    flat, _ = make_crops(3)
    torch.manual_seed(0)
    assert torch.allclose(lower_resolution(flat, 1.0), flat, atol=1e-5)
    stripes = torch.zeros(3, 3, SIDE, SIDE)
    stripes[..., ::2] = 1
    assert (lower_resolution(stripes, 1.0).std((1, 2, 3)) < stripes.std((1, 2, 3))).all()


def test_a_share_of_nothing_changes_nothing() -> None:
    crops, masks = make_crops()
    share = 0.0
    assert (swap_backgrounds(crops, masks, share) == crops).all()
    changed, left = add_occluders(crops, masks, share, objects=crops)
    assert (changed == crops).all() and (left == masks).all()
    assert (lower_resolution(crops, share) == crops).all()


def test_the_inputs_are_not_changed_and_the_seed_decides() -> None:
    crops, masks = make_crops()
    before = crops.clone(), masks.clone()
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        swapped = swap_backgrounds(crops, masks, 0.5)
        results.append((swapped, *add_occluders(swapped, masks, 0.5, objects=crops), lower_resolution(crops, 0.5)))
    assert all((one == other).all() for one, other in zip(*results, strict=True))
    assert (crops == before[0]).all() and (masks == before[1]).all()


def test_one_crop_alone_stays() -> None:
    crops, masks = make_crops(1)
    assert (swap_backgrounds(crops, masks, 1.0) == crops).all()
    assert (add_occluders(crops, masks, 1.0, objects=crops)[0] == crops).all()


def test_drop_path_is_for_training_only() -> None:
    network = BoxSegmenter(BoxSegmenterConfig(crop_size=64))
    crops, boxes = torch.rand(2, 3, 64, 64), torch.tensor([[0.2, 0.2, 0.8, 0.8]] * 2)
    names = set(network.state_dict())
    before = network.eval()(crops, boxes)
    set_drop_path(network, 0.5)
    assert set(network.state_dict()) == names
    assert (network.eval()(crops, boxes) == before).all()
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates) and rates[0] == 0 and rates[-1] == 0.5
    torch.manual_seed(0)
    network.train()
    assert (network(crops, boxes) != network(crops, boxes)).any()
