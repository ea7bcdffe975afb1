"""Losses of the box segmenter: binary cross entropy and dice, over the whole crop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mask_losses(logits: Tensor, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The losses "mask" and "dice", each a weighted sum over crops.

    Args:
        logits: float [N, r, r].
        targets: float [N, r, r], the share of each pixel that the object covers.
        weights: float [N].
    """
    logits = logits.float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
    likely = logits.sigmoid()
    overlap, total = (likely * targets).sum((1, 2)), likely.sum((1, 2)) + targets.sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (total + 1)  # V-Net's (Milletari et al., 2016), smoothed as Mask2Former's
    return {"mask": (cross_entropy * weights).sum(), "dice": (dice * weights).sum()}


def jitter_boxes(boxes_xyxy: Tensor, share: float) -> Tensor:
    """Boxes with each side moved by a uniform draw of up to `share` of the width or height.

    Args:
        boxes_xyxy: float [N, 4], XYXY, in absolute pixels or relative to the image.
        share: the largest change, as a part of the side.

    Returns:
        float [N, 4], XYXY.
    """
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).repeat(1, 2)
    draws = 2 * torch.rand(boxes_xyxy.shape, device=boxes_xyxy.device) - 1
    return boxes_xyxy + share * draws * sides


def jitter_colors(image: Tensor, share: float) -> Tensor:
    """An image with brightness, contrast and saturation changed by uniform draws of up to `share`.

    Args:
        image: float [3, H, W], RGB in [-1, 1].
        share: the largest change, as a part of each; from 0 to 1.
    """
    brightness, contrast, saturation = (1 + share * (2 * torch.rand(3) - 1)).tolist()
    levels = (image + 1) / 2 * brightness
    levels = (levels - levels.mean()) * contrast + levels.mean()
    gray = levels.mean(0, keepdim=True)
    jittered: Tensor = ((levels - gray) * saturation + gray).clamp(0, 1) * 2 - 1
    return jittered
