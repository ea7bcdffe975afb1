"""Boxes as tensors: CXCYWH and XYXY, in parts of the image; overlaps, pair by pair and each with each."""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-6


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and sides -> corners: [..., 4]."""
    centre, side = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - side / 2, centre + side / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners -> centre and sides: [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes XYXY, [..., 4] and [..., 4] that broadcast -> two of [...]; 0 for empty pairs."""
    side = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    overlap = side.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / (union + _EPS), union


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al., arXiv 1902.09630) of boxes XYXY that broadcast: [...] in [-1, 1]."""
    iou, union = box_iou(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return iou - (hull - union) / (hull + _EPS)
