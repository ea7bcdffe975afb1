"""Outputs of the tiny SAM networks for one image."""

from __future__ import annotations

import numpy as np
import torch

from synthgen.models.sam_forward import (
    decode_masks,
    encode_images,
    postprocess_logits,
    preprocess_images,
    resize_longest_side,
    scale_boxes,
)

CLOSE = 1e-4


def is_close(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    assert tuple(ours.shape) == theirs.shape
    return float((ours - torch.from_numpy(theirs)).abs().max()) < CLOSE


def predict_masks(net, image, boxes, *, multimask=False, chunk=1000):
    """(low-res logits, IoU, logits of the image's size) by our way."""
    small = resize_longest_side(image, 128)
    size = tuple(small.shape[:2])
    frame = scale_boxes(torch.as_tensor(boxes), image.shape[:2], size)
    done = list(
        decode_masks(
            net,
            encode_images(net, preprocess_images(net, [small])),
            [frame],
            chunk_size=chunk,
            multimask_output=multimask,
        )
    )
    logits, iou = torch.cat([d.logits for d in done]), torch.cat([d.iou for d in done])
    return logits, iou, postprocess_logits(net, logits, size, image.shape[:2])
