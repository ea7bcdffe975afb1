"""Ground-truth objects of an image (`MaskTarget`) and of a batch (`BatchTargets`): inputs of matcher and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NotRequired, TypedDict

import torch
from torch import Tensor


class MaskTarget(TypedDict):
    """The n objects of one image, of which m have a mask.

    Keys:
        labels: int64 [n], indices into the image's texts.
        boxes: float32 [n, 4] CXCYWH, relative to the unpadded image.
        has_mask: bool [n].
        masks: bool [m, H, W], in the order of the objects, padded to the batch's size.
        mask_weights: float32 [n], factors of the mask losses.
        ignore_mask: bool [H, W], pixels that count in no mask loss.
        has_ignored: whether `ignore_mask` has any True pixel. Computing it here would synchronize with the GPU.
        valid_ratio: float32 [2], the share of the padded width and height that is image. Masks are compared only there.
            Missing: the whole canvas.
    """

    labels: Tensor
    boxes: Tensor
    has_mask: Tensor
    masks: Tensor
    mask_weights: Tensor
    ignore_mask: Tensor
    has_ignored: NotRequired[bool]
    valid_ratio: NotRequired[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class BatchTargets:
    """The N objects of a batch, concatenated in the order of the images.

    Attributes:
        object_offsets: for each image, the index of its first object.
        labels: int64 [N], indices into the texts of the object's image.
        boxes: float32 [N, 4] CXCYWH, relative to the unpadded image.
        masks: bool [M, H, W].
        mask_index: int64 [N], the index into `masks` of each object; meaningless for an object without a mask.
        mask_weights: float32 [N], 0 for an object without a mask.
        image_index: int64 [N], the image of each object.
        ignore_masks: bool [B, H, W], pixels that count in no mask loss.
        valid_ratios: float32 [B, 2], see `MaskTarget`.
        has_masks: for each image, whether any object has a mask.
        has_ignored: for each image, whether any pixel is ignored.
    """

    object_offsets: list[int]
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    mask_index: Tensor
    mask_weights: Tensor
    image_index: Tensor
    ignore_masks: Tensor
    valid_ratios: Tensor
    has_masks: list[bool]
    has_ignored: list[bool]


def concat_targets(targets: Sequence[MaskTarget]) -> BatchTargets:
    """Concatenate the targets of the images of a batch."""
    counts = [len(truth["labels"]) for truth in targets]
    has_mask = torch.cat([truth["has_mask"] for truth in targets])
    return BatchTargets(
        object_offsets=[0, *accumulate(counts[:-1])],
        labels=torch.cat([truth["labels"] for truth in targets]),
        boxes=torch.cat([truth["boxes"] for truth in targets]).float(),
        masks=torch.cat([truth["masks"] for truth in targets]),
        mask_index=(has_mask.cumsum(0) - 1).clamp(min=0),
        mask_weights=torch.cat([truth["mask_weights"] for truth in targets]) * has_mask,
        image_index=torch.cat([torch.full_like(truth["labels"], i) for i, truth in enumerate(targets)]),
        has_masks=[len(truth["masks"]) > 0 for truth in targets],
        ignore_masks=torch.stack([truth["ignore_mask"] for truth in targets]),
        valid_ratios=torch.stack([valid_ratio_of(truth) for truth in targets]),
        has_ignored=[
            truth["has_ignored"] if "has_ignored" in truth else bool(truth["ignore_mask"].any()) for truth in targets
        ],
    )


def valid_ratio_of(target: MaskTarget) -> Tensor:
    """The `valid_ratio` of a target, or ones for the whole canvas: float32 [2]."""
    return target["valid_ratio"] if "valid_ratio" in target else target["boxes"].new_ones(2)
