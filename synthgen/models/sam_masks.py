"""From SAM's logits to what leaves the device: scores of each mask, and where its runs begin and end.

Full masks stay on the device: 25 of them at 1024 x 768 are 20 MB, their runs some 100 kB.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from synthgen.models.sam import MASK_THRESHOLD

#: segment-anything's `stability_score_offset`, in logits.
STABILITY_OFFSET = 1.0


class SelectedMasks(NamedTuple):
    """n masks.

    Attributes:
        masks: bool [n, H, W].
        iou: float32 [n]; the network's own prediction, clamped to [0, 1].
        stability: float32 [n]; IoU of the masks at `STABILITY_OFFSET` above and below the threshold (segment-anything's
            `calculate_stability_score`); 0 where even the larger mask is empty.
        selection_score: float32 [n] in [0, 1]; see `selection_score`. None where nobody asked, and there was one
            candidate each.
    """

    masks: Tensor
    iou: Tensor
    stability: Tensor
    selection_score: Tensor | None


def select_masks(logits: Tensor, iou: Tensor, boxes_xyxy: Tensor, *, always_score: bool) -> SelectedMasks:
    """Threshold the candidates of n boxes, and keep for each the one with the best evidence.

    Args:
        logits: float32 [n, candidates, H, W], at the resolution of the boxes.
        iou: float32 [n, candidates].
        boxes_xyxy: float32 [n, 4], absolute pixels of [H, W].
        always_score: say the evidence even where there is no choice.
    """
    masks = logits > MASK_THRESHOLD
    high = (logits > MASK_THRESHOLD + STABILITY_OFFSET).sum((2, 3))
    low = (logits > MASK_THRESHOLD - STABILITY_OFFSET).sum((2, 3))
    stability = high / low.clamp(min=1)
    iou = iou.clamp(0, 1)
    if logits.shape[1] == 1 and not always_score:
        return SelectedMasks(masks[:, 0], iou[:, 0], stability[:, 0], None)
    score = selection_score(masks, boxes_xyxy, stability, iou)
    best = score.argmax(1, keepdim=True)
    rows = torch.arange(len(masks), device=masks.device)
    return SelectedMasks(masks[rows, best[:, 0]], *(values.gather(1, best)[:, 0] for values in (iou, stability, score)))


def selection_score(masks: Tensor, boxes_xyxy: Tensor, stability: Tensor, iou: Tensor) -> Tensor:
    """How well masks answer their boxes: float32 [n, candidates] in [0, 1].

    The product of four parts, each in [0, 1], so that a mask must pass all of them: IoU of its tight box with the
    prompt, share of its area inside the prompt, stability, and the network's own prediction. An empty mask has none.

    Args:
        masks: bool [n, candidates, H, W].
        boxes_xyxy: float32 [n, 4], absolute pixels of [H, W].
        stability, iou: float32 [n, candidates] in [0, 1].
    """
    height, width = masks.shape[2:]
    y, x = (torch.arange(size, device=masks.device) for size in (height, width))
    x1, y1, x2, y2 = (side[:, None] for side in boxes_xyxy.unbind(1))
    # A pixel belongs to the box where any of its area does, as for a filled box.
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
    """First place that is True, and the place behind the last: bool [n, candidates, size] -> [n, candidates] each."""
    size = seen.shape[2]
    first = seen.int().argmax(2)
    behind = size - seen.flip(2).int().argmax(2)
    return first, torch.where(seen.any(2), behind, first)


def run_edges(masks: Tensor, top: int, left: int, height: int) -> tuple[Tensor, Tensor]:
    """Where masks begin and end, column by column, in the image that they are a window of.

    Args:
        masks: bool [n, h, w].
        top, left: where the window lies, in pixels; height: of the image.

    Returns:
        owner int64 [edges], the index of the mask, ascending; and place int64 [edges], as
        `geometry.encode_run_boundaries` takes them. On CUDA, the host waits here for the device.
    """
    columns = torch.nn.functional.pad(masks.transpose(1, 2).to(torch.int8), (1, 1))  # no run leaves its column
    owner, column, row = (columns[..., 1:] != columns[..., :-1]).nonzero(as_tuple=True)
    return owner, (column + left) * height + row + top
