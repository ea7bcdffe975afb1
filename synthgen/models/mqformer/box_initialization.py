"""Initial boxes of conditional queries from their predicted masks (Mask DINO: "mask-enhanced box initialization").

The mask of a proposal is more accurate than its box early in training, and a box around it is a better start for the
decoder.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert

from synthgen.models.mqformer.position_encoding import inverse_sigmoid
from synthgen.models.mqformer.predictions import Predictions

#: Mask DINO's names. Both are the tight box of the mask where its logits are positive. "bitmask" includes the last row
#: and column, as boxes in this project do; "mask2box" ends at them, which is one pixel less.
BoxType = Literal["mask2box", "bitmask"]


def masks_to_boxes(masks: Tensor, box_type: BoxType) -> Tensor:
    """The tight boxes of masks: float32 [..., 4], XYXY in pixels; zeros for empty masks.

    Args:
        masks: bool [..., h, w].
        box_type: see `BoxType`.
    """
    ends = []
    for line in (masks.any(-2), masks.any(-1)):  # columns [..., w], rows [..., h]
        first, past_last = line.byte().argmax(-1), line.shape[-1] - line.flip(-1).byte().argmax(-1)
        ends.append((first, past_last if box_type == "bitmask" else past_last - 1))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], dim=-1).float() * masks.any(-1).any(-1)[..., None]


@torch.no_grad()
def initial_boxes(proposals: Predictions, padding_mask: Tensor, box_type: BoxType) -> Tensor:
    """Boxes around the predicted masks of B images with Q queries each; without gradient.

    Masks are cut off at the padding. A query with an empty mask keeps its predicted box; Mask DINO would give it a box
    of no area in a corner.

    Args:
        proposals: labels are not used.
        padding_mask: bool [B, h, w] of any resolution, True on padding.
        box_type: see `BoxType`.

    Returns:
        float [B, Q, 4] CXCYWH in [0, 1], relative to the unpadded image, in the dtype of the predicted boxes.
    """
    features, found = proposals.mask_features, []
    padding = functional.interpolate(padding_mask[:, None].float(), features.shape[2:], mode="nearest")[:, 0] > 0
    for i, (own, hidden) in enumerate(zip(features, padding, strict=True)):  # the masks of one image at a time
        masks = (proposals.select_mask_logits(i, slice(None), own) > 0) & ~hidden
        width, height = (~hidden[0]).sum(), (~hidden[:, 0]).sum()
        box = box_convert(masks_to_boxes(masks, box_type), "xyxy", "cxcywh") / torch.stack([width, height] * 2)
        there = masks.any(-1).any(-1)[:, None]
        box = inverse_sigmoid(box).sigmoid()  # boxes are refined as logits, which are limited
        found.append(torch.where(there, box.to(proposals.boxes.dtype), proposals.boxes[i]))
    return torch.stack(found)
