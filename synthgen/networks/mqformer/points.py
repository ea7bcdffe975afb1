"""Masks compared at points instead of at every pixel (PointRend, arXiv 1912.08193; Mask2Former, arXiv 2112.01527)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps at points, bilinearly; zero beyond the border.

    Args:
        maps: float [N, H, W].
        points: [N or 1, P, 2]; (x, y) from 0 at the left or upper edge to 1 at the other.

    Returns:
        [N, P].
    """
    grid = (2 * points - 1).expand(len(maps), -1, -1)[:, :, None]
    return functional.grid_sample(maps[:, None], grid.to(maps.dtype), align_corners=False)[:, 0, :, 0]


def uncertain_points(
    logits: Tensor, count: int, *, oversample: float, importance: float, generator: torch.Generator | None = None
) -> Tensor:
    """Points where a prediction is least sure of itself, and some anywhere.

    Args:
        logits: [N, h, w].
        count: points a mask; oversample: how many times as many are drawn to choose from; importance: the share of
            `count` that is chosen by its small |logit|. The others are drawn anew, anywhere.

    Returns:
        [N, count, 2]; see `sample_points`.
    """
    number, chosen = len(logits), int(importance * count)
    drawn = torch.rand(number, int(count * oversample), 2, generator=generator, device=logits.device)
    doubt = -sample_points(logits, drawn).abs()
    best = doubt.topk(chosen, dim=1).indices
    least_sure = drawn.gather(1, best[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(number, count - chosen, 2, generator=generator, device=logits.device)
    return torch.cat([least_sure, anywhere], dim=1)
