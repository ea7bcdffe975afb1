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
        ignore: bool [H, W], pixels that count in no mask loss.
        ignores: whether `ignore` has any True pixel. Computing it here would synchronize with the GPU.
        extent: float32 [2], the share of the padded width and height that is image. Masks are compared only there.
            Missing: the whole canvas.
    """

    labels: Tensor
    boxes: Tensor
    has_mask: Tensor
    masks: Tensor
    mask_weights: Tensor
    ignore: Tensor
    ignores: NotRequired[bool]
    extent: NotRequired[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class BatchTargets:
    """The N objects of a batch, concatenated in the order of the images.

    Attributes:
        object_offsets: for each image, the index of its first object.
        labels: int64 [N].
        boxes: float32 [N, 4] CXCYWH.
        masks: bool [M, H, W].
        mask_index: int64 [N], the index into `masks` of each object; meaningless for an object without a mask.
        mask_weights: float32 [N], 0 for an object without a mask.
        image_index: int64 [N], the image of each object.
        ignore_masks: bool [B, H, W].
        extent: float32 [B, 2], see `MaskTarget`.
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
    extent: Tensor
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
        ignore_masks=torch.stack([truth["ignore"] for truth in targets]),
        extent=torch.stack([valid_extent_of(truth) for truth in targets]),
        has_ignored=[truth["ignores"] if "ignores" in truth else bool(truth["ignore"].any()) for truth in targets],
    )


def valid_extent_of(target: MaskTarget) -> Tensor:
    """The `extent` of a target, or ones for the whole canvas: float32 [2]."""
    return target["extent"] if "extent" in target else target["boxes"].new_ones(2)
