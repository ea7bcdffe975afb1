"""Box tensors in CXCYWH and XYXY format, relative to the image size; IoU and generalized IoU."""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-6


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """CXCYWH -> XYXY: [..., 4]."""
    centre, side = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - side / 2, centre + side / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """XYXY -> CXCYWH: [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of XYXY boxes, [..., 4] each, with broadcasting -> two tensors [...]; 0 for empty pairs."""
    side = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    overlap = side.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / (union + _EPS), union


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al., arXiv 1902.09630) of XYXY boxes, with broadcasting: [...] in [-1, 1]."""
    iou, union = box_iou(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return iou - (hull - union) / (hull + _EPS)
