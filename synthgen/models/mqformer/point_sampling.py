"""Sample masks at points instead of at every pixel (PointRend, arXiv 1912.08193; Mask2Former, arXiv 2112.01527)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps at points with bilinear interpolation and zero padding.

    Args:
        maps: float [N, H, W].
        points: float [N or 1, P, 2]; (x, y) relative to the map, from 0 at the left or upper edge to 1 at the opposite
            edge.

    Returns:
        [N, P].
    """
    grid = (2 * points - 1)[:, :, None].to(maps.dtype)
    if len(grid) == 1:  # use the maps as channels of one image, so that the grid is computed once
        return functional.grid_sample(maps[None], grid, align_corners=False)[0, :, :, 0]
    return functional.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def sample_bool_points(maps: Tensor, map_indices: Tensor, points: Tensor) -> Tensor:
    """Like `sample_points(maps[map_indices].float(), points)`, without converting whole masks to float.

    Args:
        maps: bool [M, H, W].
        map_indices: int64 [N], indices of maps.
        points: float32 [N, P, 2], (x, y) relative to the map; see `sample_points`.

    Returns:
        float32 [N, P].
    """
    height, width = maps.shape[1:]
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    right_share, lower_share = x - left, y - top
    bits, begin = maps.flatten(), map_indices[:, None] * (height * width)
    found = torch.zeros_like(x)
    for down, in_y in ((0, 1 - lower_share), (1, lower_share)):
        for right, in_x in ((0, 1 - right_share), (1, right_share)):
            row, column = top.long() + down, left.long() + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = begin + row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            found += in_x * in_y * (bits[place] & inside)
    return found


def sample_uncertain_points(
    logits: Tensor,
    valid_ratios: Tensor,
    num_points: int,
    *,
    oversample_ratio: float,
    importance_sample_ratio: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample points where predictions are uncertain, and some uniform points.

    Args:
        logits: float [N, h, w].
        valid_ratios: float32 [N, 2], the share of the width and height in which points are drawn; the rest is padding.
        num_points: points per mask.
        oversample_ratio: candidates drawn per point of `num_points`.
        importance_sample_ratio: the share of `num_points` with the smallest |logit|; the others are drawn uniformly.
        generator: on the device of the logits; None = PyTorch's global generator.

    Returns:
        [N, num_points, 2]; see `sample_points`.
    """
    number, chosen = len(logits), int(importance_sample_ratio * num_points)
    drawn = (
        torch.rand(number, int(num_points * oversample_ratio), 2, generator=generator, device=logits.device)
        * valid_ratios[:, None]
    )
    doubt = -sample_points(logits, drawn).abs()
    best = doubt.topk(chosen, dim=1).indices
    least_sure = drawn.gather(1, best[..., None].expand(-1, -1, 2))
    anywhere = (
        torch.rand(number, num_points - chosen, 2, generator=generator, device=logits.device) * valid_ratios[:, None]
    )
    return torch.cat([least_sure, anywhere], dim=1)
