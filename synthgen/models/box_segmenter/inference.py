"""Masks for the boxes of an image, from a trained box segmenter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from synthgen.models.box_segmenter.crops import (
    boxes_in_crops,
    extract_crops,
    place_window,
    plan_windows,
    restore_window,
)
from synthgen.models.box_segmenter.network import OUTPUT_STRIDE, BoxSegmenter

#: The smallest union, in pixels.
_MIN_UNION = 1e-6

#: The stability score compares the masks at logits this much above and below the threshold (segment-anything).
STABILITY_OFFSET = 1.0


class BoxMask(NamedTuple):
    """The mask of one box.

    Attributes:
        window: bool [h, w], the pixels of the box; on the CPU.
        top, left: position of the window in the image, in pixels.
        soft_iou, stability_score: in [0, 1]; see `Annotation`.
    """

    window: Tensor
    top: int
    left: int
    soft_iou: float
    stability_score: float


@torch.inference_mode()
def predict_masks(
    network: BoxSegmenter,
    images: Sequence[Tensor],
    boxes_xyxy: Sequence[Tensor],
    *,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    mirror: bool = False,
) -> Iterator[list[BoxMask]]:
    """Yield the masks of the boxes of each image, in order.

    Args:
        network: in evaluation mode.
        images: uint8 [3, H, W] RGB each, on the network's device.
        boxes_xyxy: float [N, 4] each, absolute pixels, inside the image, with an area; N may be 0.
        batch_size: crops at once. Crops of several images share a batch.
        dtype: of the network's activations; masks and scores are computed in float32.
        mirror: take the mean of the logits of each crop and of its mirror image, at twice the time.
    """
    config = network.config
    windows = [plan_windows(own, config.margin) for own in boxes_xyxy]
    work = [(i, j) for i, own in enumerate(boxes_xyxy) for j in range(len(own))]
    found: list[list[BoxMask]] = [[] for _ in images]
    done = 0
    for start in range(0, len(work), batch_size):
        batch = work[start : start + batch_size]
        crops = torch.cat(
            [extract_crops(images[i], windows[i][j, None], config.crop_size, grid=OUTPUT_STRIDE) for i, j in batch]
        )
        prompts = torch.cat([boxes_in_crops(boxes_xyxy[i][j, None], windows[i][j, None]) for i, j in batch])
        crops = crops.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        with torch.autocast(crops.device.type, dtype, enabled=dtype != torch.float32):
            logits = network(crops, prompts.to(crops.device)).float()
            if mirror:
                logits = (logits + _mirrored_logits(network, crops, prompts)) / 2
        for (i, j), own in zip(batch, logits, strict=True):
            found[i].append(_cut_mask(own, windows[i][j], boxes_xyxy[i][j], images[i].shape[1:]))
        while done < batch[-1][0]:  # the images whose boxes are all done
            yield found[done]
            done += 1
    yield from found[done:]


def _mirrored_logits(network: BoxSegmenter, crops: Tensor, prompts: Tensor) -> Tensor:
    """The logits [N, r, r] that the mirror images of crops [N, 3, S, S] give, mirrored back."""
    left, top, right, bottom = prompts.unbind(1)
    boxes = torch.stack([1 - right, top, 1 - left, bottom], 1)
    flipped = crops.flip(-1).contiguous(memory_format=torch.channels_last)
    logits: Tensor = network(flipped, boxes.to(crops.device))
    return logits.float().flip(-1)


def _cut_mask(logits: Tensor, window: Tensor, box_xyxy: Tensor, size: Sequence[int]) -> BoxMask:
    """The mask of logits [r, r] over a crop: the likely pixels inside the box."""
    place = place_window(window, size[0], size[1], logits.shape[-1])
    top, bottom = _pixel_span(box_xyxy[1], box_xyxy[3], size[0])
    left, right = _pixel_span(box_xyxy[0], box_xyxy[2], size[1])
    rows = slice(top - place.image_top, bottom - place.image_top)
    columns = slice(left - place.image_left, right - place.image_left)
    visible = restore_window(logits, window, place)
    in_box = visible[rows, columns]
    # Where no pixel is likely, the most likely ones: an empty mask would say that there is no object in the box.
    threshold = min(0.0, float(in_box.max()))
    mask = (in_box > 0) if threshold == 0 else (in_box >= threshold)
    likely = visible.sigmoid()
    expected, inside = float(likely.sum()), float(likely[rows, columns][mask].sum())
    soft_iou = inside / max(int(mask.sum()) + expected - inside, _MIN_UNION)
    sure, possible = (int((in_box > threshold + offset).sum()) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET))
    return BoxMask(mask.cpu(), top, left, min(soft_iou, 1.0), sure / max(possible, 1))


def _pixel_span(low: Tensor, high: Tensor, limit: int) -> tuple[int, int]:
    """First and last pixel (exclusive) that an interval touches; at least one."""
    first = min(int(low.floor()), limit - 1)
    return max(first, 0), min(max(int(high.ceil()), first + 1), limit)
