"""Post-processing of SAM's logits on the device: mask scores, and the run boundaries of the masks.

Full masks are not copied to the host: 25 masks at 1024 x 768 take 20 MB, their runs about 100 kB.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from synthgen.models.sam import MASK_THRESHOLD

#: The offset of segment-anything's stability score, in logits.
STABILITY_OFFSET = 1.0


class SelectedMasks(NamedTuple):
    """n selected masks.

    Attributes:
        masks: bool [n, H, W].
        iou: float32 [n]; predicted by the network, clamped to [0, 1].
        stability: float32 [n]; IoU of the masks thresholded at `STABILITY_OFFSET` above and below the threshold
            (segment-anything's `calculate_stability_score`); 0 if the larger mask is empty.
        soft_iou: float32 [n] in [0, 1]; see `soft_iou`.
        selection_score: float32 [n] in [0, 1]; see `selection_score`. None if there was one candidate and
            `always_score` was False.
    """

    masks: Tensor
    iou: Tensor
    stability: Tensor
    soft_iou: Tensor
    selection_score: Tensor | None


def select_masks(logits: Tensor, iou: Tensor, boxes_xyxy: Tensor, *, always_score: bool) -> SelectedMasks:
    """Threshold the candidates of n boxes, and select for each box the candidate with the highest `selection_score`.

    Args:
        logits: float32 [n, candidates, H, W], at the resolution of the boxes.
        iou: float32 [n, candidates], predicted by the network; clamped to [0, 1] here.
        boxes_xyxy: float32 [n, 4], absolute pixels of [H, W].
        always_score: compute the selection score even for a single candidate.
    """
    masks = logits > MASK_THRESHOLD
    high = (logits > MASK_THRESHOLD + STABILITY_OFFSET).sum((2, 3))
    low = (logits > MASK_THRESHOLD - STABILITY_OFFSET).sum((2, 3))
    stability = high / low.clamp(min=1)
    iou = iou.clamp(0, 1)
    if logits.shape[1] == 1 and not always_score:
        return SelectedMasks(masks[:, 0], iou[:, 0], stability[:, 0], soft_iou(logits[:, 0], masks[:, 0]), None)
    score = selection_score(masks, boxes_xyxy, stability, iou)
    best = score.argmax(1, keepdim=True)
    rows = torch.arange(len(masks), device=masks.device)
    chosen = masks[rows, best[:, 0]]
    iou, stability, score = (values.gather(1, best)[:, 0] for values in (iou, stability, score))
    return SelectedMasks(chosen, iou, stability, soft_iou(logits[rows, best[:, 0]], chosen), score)


def soft_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """The IoU that pixel probabilities expect of masks: float32 [n] in [0, 1]; 0 of an empty mask.

    With probabilities p and a mask m it is sum(p m) / (sum(m) + sum(p (1 - m))), the ratio of the expected intersection
    and the expected union if pixels are independent (the soft Jaccard index).

    Args:
        logits: float [n, H, W]; a pixel's probability is the sigmoid of its logit.
        masks: bool [n, H, W].
    """
    probabilities = logits.sigmoid()
    total = probabilities.sum((1, 2), dtype=torch.float32)
    inside = probabilities.mul_(masks).sum((1, 2), dtype=torch.float32)
    return inside / (masks.sum((1, 2)) + total - inside).clamp(min=1)


def selection_score(masks: Tensor, boxes_xyxy: Tensor, stability: Tensor, iou: Tensor) -> Tensor:
    """How well masks fit their boxes: float32 [n, candidates] in [0, 1].

    The product of four terms in [0, 1]: the IoU of the mask's tight box and the prompt box, the share of the mask's
    area inside the prompt box, the stability, and the predicted IoU. An empty mask scores 0.

    Args:
        masks: bool [n, candidates, H, W].
        boxes_xyxy: float32 [n, 4], absolute pixels of [H, W].
        stability: float32 [n, candidates] in [0, 1]; see `SelectedMasks`.
        iou: float32 [n, candidates] in [0, 1], predicted by the network.
    """
    height, width = masks.shape[2:]
    y, x = (torch.arange(size, device=masks.device) for size in (height, width))
    x1, y1, x2, y2 = (side[:, None] for side in boxes_xyxy.unbind(1))
    # A pixel belongs to the box if any part of it does, as when a box is rasterized.
    rows, columns = (y >= y1.floor()) & (y < y2.ceil()), (x >= x1.floor()) & (x < x2.ceil())
    per_column = masks.sum(2)  # [n, candidates, W]
    area = per_column.sum(2)
    inside = ((masks & rows[:, None, :, None]).sum(2) * columns[:, None]).sum(2)

    left, right = _first_and_end(per_column > 0)
    top, bottom = _first_and_end(masks.any(3))
    overlap = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp(min=0) * (
        torch.minimum(bottom, y2) - torch.maximum(top, y1)
    ).clamp(min=0)
    union = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - overlap
    return overlap / union.clamp(min=1e-6) * inside / area.clamp(min=1) * stability * iou


def _first_and_end(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The index of the first True, and one past the last: bool [n, candidates, size] -> [n, candidates] each."""
    size = seen.shape[2]
    first = seen.int().argmax(2)
    behind = size - seen.flip(2).int().argmax(2)
    return first, torch.where(seen.any(2), behind, first)


def run_edges(masks: Tensor, top: int, left: int, height: int) -> tuple[Tensor, Tensor]:
    """Run boundaries of masks in column-major order, in the full image that contains the window.

    Args:
        masks: bool [n, h, w], a window of the image.
        top: rows of the image above the window.
        left: columns of the image to the left of the window.
        height: rows of the image.

    Returns:
        owner int64 [edges], the index of the mask, ascending; and place int64 [edges], in the form of
        `rle.encode_run_boundaries`. On CUDA, this synchronizes with the device.
    """
    # Zero padding ends every run within its column.
    columns = torch.nn.functional.pad(masks.transpose(1, 2).to(torch.int8), (1, 1))
    owner, column, row = (columns[..., 1:] != columns[..., :-1]).nonzero(as_tuple=True)
    return owner, (column + left) * height + row + top
