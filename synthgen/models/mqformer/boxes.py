"""IoU and generalized IoU of box tensors in XYXY format, relative to the image size."""

from __future__ import annotations

import torch
from torch import Tensor

#: Added to areas that are divided by, as in Mask DINO. torchvision's `generalized_box_iou` adds nothing, so gradients
#: differ from the reference's. Its `generalized_box_iou_loss` selects by a mask, which waits for the GPU.
_EPS = 1e-6


def box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes, with broadcasting: two tensors [...]; 0 for empty pairs.

    Args:
        a: float [..., 4], XYXY relative to the image size.
        b: float [..., 4], XYXY relative to the image size.
    """
    side = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    overlap = side.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / (union + _EPS), union


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al., arXiv 1902.09630), with broadcasting: [...] in [-1, 1].

    Args:
        a: float [..., 4], XYXY relative to the image size.
        b: float [..., 4], XYXY relative to the image size.
    """
    iou, union = box_iou(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return iou - (hull - union) / (hull + _EPS)
