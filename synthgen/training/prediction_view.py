"""What a network finds in a batch, beside what was to be found there: pictures of a training for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, Batch
from synthgen.evaluation import postprocess
from synthgen.models.mqformer.model import MQFormer
from synthgen.visualize.drawing import Mark, beginning, picture

#: Of what is found so much is drawn, if its score is as high.
_MOST, _SURE = 20, 0.25


def pictures(network: MQFormer, batch: Batch, names: Sequence[bool], *, count: int = 4) -> Iterator[NDArray[np.uint8]]:
    """Of the first images of a batch: uint8 [H, W, 3], the target on the left, the prediction on the right.

    Args:
        names: for each image, whether its texts are names of categories.
    """
    few = batch._replace(
        images=batch.images[:count],
        padding_mask=batch.padding_mask[:count],
        # In the frame of the view: nobody asks here how large the file was.
        targets=[{**target, "orig_size": target["size"]} for target in batch.targets[:count]],
    )
    was_training, texts = network.training, [target["texts"] for target in few.targets]
    network.eval()
    try:
        found = postprocess.look(network, few, texts, names[:count])
    finally:
        network.train(was_training)
    for image, target, seen in zip(few.images, few.targets, found, strict=True):
        height, width = target["size"]
        pixels = _pixels(image[:, :height, :width])
        guess = [
            Mark(one.box_xyxy, f"{beginning(target['texts'][one.label])} {one.score:.2f}", one.mask)
            for one in postprocess.instances(seen)[:_MOST]
            if one.score >= _SURE
        ]
        sides = [picture(pixels, list(_marks(target)), footer="target"), picture(pixels, guess, footer="prediction")]
        rows = max(side.shape[0] for side in sides)
        yield np.concatenate([np.pad(side, ((0, rows - side.shape[0]), (0, 0), (0, 0))) for side in sides], axis=1)


def _pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """A normalised image [3, H, W] as it was: uint8 [H, W, 3]."""
    raw = image.permute(1, 2, 0).cpu().numpy() * np.array(PIXEL_STD) + np.array(PIXEL_MEAN)
    pixels: NDArray[np.uint8] = raw.round().clip(0, 255).astype(np.uint8)
    return pixels


def _marks(target: dict[str, Any]) -> Iterator[Mark]:
    height, width = target["size"]
    masks = iter(target["masks"])
    for label, box, has_mask in zip(
        target["labels"].tolist(), target["boxes"].tolist(), target["has_mask"], strict=True
    ):
        x, y, w, h = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        mask = next(masks)[:height, :width].cpu().numpy() if has_mask else None
        yield Mark((x - w / 2, y - h / 2, x + w / 2, y + h / 2), beginning(target["texts"][label]), mask)
