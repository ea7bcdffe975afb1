"""Images for TensorBoard: ground truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, Batch
from synthgen.evaluation import postprocess
from synthgen.models.mqformer.model import MQFormer
from synthgen.visualize.drawing import ObjectMark, draw_overlay, shorten_text

#: Limits of the predictions drawn: number and minimum score.
_MAX_DRAWN, _SCORE_THRESHOLD = 20, 0.25


def draw_predictions(
    network: MQFormer, batch: Batch, is_category_name: Sequence[bool], *, max_images: int = 4
) -> Iterator[NDArray[np.uint8]]:
    """For the first images of a batch: uint8 [H, W, 3] RGB, ground truth on the left, prediction on the right.

    At the network's input size. At most 20 predictions are drawn, of scores of at least 0.25.

    Args:
        network: in any mode, which is kept.
        batch: on any device, normalized.
        is_category_name: for each image, whether its texts are category names.
        max_images: the maximum number of images drawn.
    """
    few = batch._replace(
        images=batch.images[:max_images],
        padding_mask=batch.padding_mask[:max_images],
        # At the resolution of the network's input; the size of the image file does not matter here.
        targets=[{**target, "orig_size": target["size"]} for target in batch.targets[:max_images]],
    )
    was_training, texts = network.training, [target["texts"] for target in few.targets]
    network.eval()
    try:
        found = postprocess.predict_batch(network, few, texts, is_category_name[:max_images])
    finally:
        network.train(was_training)
    for image, target, seen in zip(few.images, few.targets, found, strict=True):
        height, width = target["size"]
        pixels = _denormalize(image[:, :height, :width])
        guess = [
            ObjectMark(one.box_xyxy, f"{shorten_text(target['texts'][one.label])} {one.score:.2f}", one.mask)
            for one in postprocess.instances(seen)[:_MAX_DRAWN]
            if one.score >= _SCORE_THRESHOLD
        ]
        sides = [
            draw_overlay(pixels, list(_target_marks(target)), footer="target"),
            draw_overlay(pixels, guess, footer="prediction"),
        ]
        rows = max(side.shape[0] for side in sides)
        yield np.concatenate([np.pad(side, ((0, rows - side.shape[0]), (0, 0), (0, 0))) for side in sides], axis=1)


def _denormalize(image: torch.Tensor) -> NDArray[np.uint8]:
    """Undo the normalization of an image [3, H, W]: uint8 [H, W, 3]."""
    raw = image.permute(1, 2, 0).cpu().numpy() * np.array(PIXEL_STD) + np.array(PIXEL_MEAN)
    pixels: NDArray[np.uint8] = raw.round().clip(0, 255).astype(np.uint8)
    return pixels


def _target_marks(target: dict[str, Any]) -> Iterator[ObjectMark]:
    height, width = target["size"]
    masks = iter(target["masks"])
    for label, box, has_mask in zip(
        target["labels"].tolist(), target["boxes"].tolist(), target["has_mask"], strict=True
    ):
        x, y, w, h = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        mask = next(masks)[:height, :width].cpu().numpy() if has_mask else None
        yield ObjectMark((x - w / 2, y - h / 2, x + w / 2, y + h / 2), shorten_text(target["texts"][label]), mask)
