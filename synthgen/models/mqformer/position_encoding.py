"""Position encodings of pixels and boxes, reference points and two-stage proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of numbers, clamped to +-logit(1 - eps).

    Args:
        x: float [...] in [0, 1].
        eps: the smallest distance to 0 and 1.
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def encode_pixel_positions(padding_mask: Tensor, dim: int) -> Tensor:
    """Sine and cosine encoding of the row and column of each pixel, scaled to 2 pi over the unpadded image (DETR).

    Args:
        padding_mask: bool [B, H, W], True on padding.
        dim: output channels, a multiple of 4: half for the row, half for the column.

    Returns:
        float32 [B, dim, H, W].
    """
    valid = (~padding_mask).float()
    y, x = valid.cumsum(1), valid.cumsum(2)
    y = y / (y[:, -1:] + 1e-6) * (2 * math.pi)
    x = x / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
    return torch.cat([_sine_cosine(y, dim // 2), _sine_cosine(x, dim // 2)], dim=-1).permute(0, 3, 1, 2)


def encode_box_positions(boxes: Tensor, dim: int) -> Tensor:
    """Encode points or boxes as sines and cosines: float [..., dim / 2 * (2 or 4)].

    The order of the parts is y, x, width, height (DAB-DETR).

    Args:
        boxes: float [..., 2 or 4] in [0, 1]: points (x, y), or boxes CXCYWH.
        dim: output channels of x and y together, a multiple of 4.
    """
    x, y, *sides = boxes.unbind(-1)
    return torch.cat([_sine_cosine(part * (2 * math.pi), dim // 2) for part in (y, x, *sides)], dim=-1)


def _sine_cosine(phase: Tensor, dim: int) -> Tensor:
    """[...] -> [..., dim]: interleaved sine and cosine, with wavelengths from 2 pi to 20,000 pi."""
    place = torch.arange(dim, dtype=torch.float32, device=phase.device)
    turns = phase[..., None] / 10000 ** (2 * (place // 2) / dim)
    return torch.stack([turns[..., 0::2].sin(), turns[..., 1::2].cos()], dim=-1).flatten(-2)


def valid_ratios(padding_masks: Sequence[Tensor]) -> Tensor:
    """The unpadded share of each level's width and height: float32 [B, levels, 2] (x, y).

    Args:
        padding_masks: bool [B, h, w] per level, True on padding.
    """
    shares = []
    for padding in padding_masks:
        height, width = padding.shape[1:]
        shares.append(torch.stack([(~padding[:, 0]).sum(1) / width, (~padding[:, :, 0]).sum(1) / height], dim=-1))
    return torch.stack(shares, dim=1)


def pixel_reference_points(spatial_shapes: Sequence[tuple[int, int]], valid_ratios_xy: Tensor) -> Tensor:
    """The position of each pixel on every level, relative to the padded level: [B, S, levels, 2] (x, y).

    Args:
        spatial_shapes: (height, width) of the levels.
        valid_ratios_xy: float32 [B, levels, 2], from `valid_ratios`.
    """
    own = []
    for level, (height, width) in enumerate(spatial_shapes):
        y = torch.linspace(0.5, height - 0.5, height, device=valid_ratios_xy.device)
        x = torch.linspace(0.5, width - 0.5, width, device=valid_ratios_xy.device)
        y, x = torch.meshgrid(y, x, indexing="ij")
        there = valid_ratios_xy[:, None, level]
        own.append(
            torch.stack([x.reshape(1, -1) / (there[..., 0] * width), y.reshape(1, -1) / (there[..., 1] * height)], -1)
        )
    return torch.cat(own, dim=1)[:, :, None] * valid_ratios_xy[:, None]


def generate_proposals(memory: Tensor, padding_masks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Generate a proposal box around each pixel of the pyramid, from which conditional queries are selected (two-stage
    DETR).

    Args:
        memory: float [B, S, dim]; the levels concatenated.
        padding_masks: bool [B, h, w] per level, True on padding.

    Returns:
        (memory, [B, S, dim], zero where a proposal is invalid; CXCYWH logits relative to the unpadded image, [B, S, 4],
        infinite where invalid; validity, bool [B, S]). The sides of a box are 0.05 on the first level and double with
        each further level. Proposals on padding are invalid, and those with a coordinate outside [0.01, 0.99].
    """
    boxes = []
    for level, padding in enumerate(padding_masks):
        batch, height, width = padding.shape
        y, x = torch.meshgrid(
            torch.arange(height, dtype=torch.float32, device=memory.device) + 0.5,
            torch.arange(width, dtype=torch.float32, device=memory.device) + 0.5,
            indexing="ij",
        )
        there = torch.stack([(~padding[:, 0]).sum(1), (~padding[:, :, 0]).sum(1)], dim=-1)  # [B, 2]
        centre = torch.stack([x, y], dim=-1).reshape(1, -1, 2) / there[:, None]
        boxes.append(torch.cat([centre, torch.full_like(centre, 0.05 * 2.0**level)], dim=-1).expand(batch, -1, -1))
    box = torch.cat(boxes, dim=1)
    valid = ((box > 0.01) & (box < 0.99)).all(-1) & ~torch.cat([p.flatten(1) for p in padding_masks], dim=1)
    logits = torch.log(box / (1 - box)).masked_fill(~valid[..., None], math.inf)
    return memory.masked_fill(~valid[..., None], 0.0), logits, valid
