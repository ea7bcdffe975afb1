"""Changes of training crops that photographs alone do not give: other backgrounds, occluders, and low resolution.

Few masks are enough to train with these, as each object is seen before many backgrounds and behind many others (the
idea of Simple Copy-Paste, Ghiasi et al., 2021). All draws come from torch's generator.
"""

from __future__ import annotations

import torch
from timm.layers.drop import DropPath
from torch import Tensor
from torch.nn import functional

from synthgen.models.box_segmenter.network import OUTPUT_STRIDE, BoxSegmenter

#: An object stays as it is if its occluder would hide more than this share of it.
_MAX_HIDDEN = 0.6

#: The size of an occluder in parts of its own crop, at least; and how far from the middle it may lie, in parts of half
#: the crop.
_MIN_SCALE, _MAX_SHIFT = 0.4, 0.7

#: The smallest side of a crop of low resolution, in parts of the crop, and in pixels.
_MIN_RESOLUTION, _MIN_PIXELS = 0.2, 16


def swap_backgrounds(crops: Tensor, masks: Tensor, share: float) -> Tensor:
    """Put some objects before what another crop of the batch shows.

    Args:
        crops: float [N, 3, S, S].
        masks: float [N, S / 2, S / 2], the share of each pixel that the object covers.
        share: of the crops that are changed.

    Returns:
        float [N, 3, S, S].
    """
    count = len(crops)
    others = torch.randperm(count)
    chosen = (torch.rand(count) < share) & (others != torch.arange(count))
    if not chosen.any():
        return crops
    covers = functional.avg_pool2d(_enlarge(masks[chosen]), 3, 1, 1, count_include_pad=False)  # no sharp seam
    changed = crops.clone()
    changed[chosen] = covers * crops[chosen] + (1 - covers) * crops[others[chosen]]
    return changed


def add_occluders(crops: Tensor, masks: Tensor, share: float, *, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Put the object of another crop before some objects. The extent of an object, its box, stays the same.

    Args:
        crops: float [N, 3, S, S].
        masks: float [N, S / 2, S / 2], the share of each pixel that the object covers.
        share: of the crops that get an occluder, if it fits.
        objects: float [N, 3, S, S], the crops from which occluders are cut.

    Returns:
        New crops, float [N, 3, S, S], and masks, float [N, S / 2, S / 2].
    """
    crops, new_masks = crops.clone(), masks.clone()
    others = torch.randperm(len(crops))
    for place, other in enumerate(others.tolist()):
        if place == other or torch.rand(()) >= share:
            continue
        occluder, cover = _place_occluder(objects[other], _enlarge(masks[other, None]))
        left = new_masks[place] * (1 - functional.avg_pool2d(cover, OUTPUT_STRIDE)[0])
        if _keeps_extent(new_masks[place], left):
            crops[place] = (1 - cover) * crops[place] + cover * occluder
            new_masks[place] = left
    return crops, new_masks


def lower_resolution(crops: Tensor, share: float) -> Tensor:
    """Show some crops as small objects look: shrunk and enlarged again.

    Args:
        crops: float [N, 3, S, S].
        share: of the crops that are changed.

    Returns:
        float [N, 3, S, S].
    """
    crops, side = crops.clone(), crops.shape[-1]
    for place in range(len(crops)):
        if torch.rand(()) < share:
            factor = _MIN_RESOLUTION + (1 - _MIN_RESOLUTION) * float(torch.rand(()))
            small = max(_MIN_PIXELS, int(side * factor))
            shrunk = functional.interpolate(crops[place, None], (small, small), mode="bilinear", antialias=True)
            crops[place] = functional.interpolate(shrunk, (side, side), mode="bilinear")[0]
    return crops


def set_drop_path(network: BoxSegmenter, rate: float) -> None:
    """Skip blocks of the backbone at random in training (stochastic depth, Huang et al., 2016).

    Args:
        network: changed in place.
        rate: of the last block; it grows from 0 at the first one.
    """
    blocks = [block for stage in network.stages for block in stage.children()]
    for place, block in enumerate(blocks):
        block.drop_path = DropPath(rate * place / (len(blocks) - 1))


def _enlarge(masks: Tensor) -> Tensor:
    """[N, r, r] at the resolution of the crops: [N, 1, S, S]."""
    return functional.interpolate(masks[:, None], scale_factor=OUTPUT_STRIDE, mode="bilinear", align_corners=False)


def _place_occluder(crop: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The object of a crop [3, S, S], smaller and moved: its pixels [3, S, S], and what it covers [1, S, S]."""
    side = crop.shape[-1]
    half = side // OUTPUT_STRIDE
    down, across = ((2 * torch.rand(2) - 1) * _MAX_SHIFT * half).round().int().tolist()
    scale = _MIN_SCALE + (1 - _MIN_SCALE) * float(torch.rand(()))
    small = int(half * scale) * OUTPUT_STRIDE
    both = torch.cat([crop[None], mask], 1)
    both = functional.interpolate(both, (small, small), mode="bilinear", antialias=True)[0]
    placed = torch.zeros(4, side, side, device=crop.device)
    top, left = ((side - small) // 2 + OUTPUT_STRIDE * shift for shift in (down, across))
    rows, columns = (slice(max(start, 0), min(start + small, side)) for start in (top, left))
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    placed[:, rows, columns] = both[:, *inner]
    return placed[:3], placed[3:]


def _keeps_extent(mask: Tensor, left: Tensor) -> bool:
    """Whether enough is `left` of a mask [r, r], and its first and last rows and columns are the same but for one."""
    if float(left.sum()) < (1 - _MAX_HIDDEN) * float(mask.sum()):
        return False
    for axis in (0, 1):
        before, after = ((one > 0.5).any(axis).nonzero().flatten() for one in (mask, left))
        if not len(before) or not len(after):
            return False
        if abs(int(before[0] - after[0])) > 1 or abs(int(before[-1] - after[-1])) > 1:
            return False
    return True
