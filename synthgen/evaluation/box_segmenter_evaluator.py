"""Evaluate a box segmenter: its masks for the annotated boxes against the human masks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, Batch
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import DistributedContext
from synthgen.evaluation import evaluator
from synthgen.evaluation.metrics import Detection, GroundTruth, ImageResult, mask_iou
from synthgen.evaluation.results import EvalResult
from synthgen.models.box_segmenter.inference import predict_masks
from synthgen.models.box_segmenter.network import BoxSegmenter
from synthgen.progress import NoProgress, OpenProgress
from synthgen.records.rle import encode_mask_window

#: Crops at once.
_BATCH_SIZE = 16


def evaluate_box_segmenter(
    network: BoxSegmenter,
    manifest: Manifest,
    context: DistributedContext,
    *,
    num_workers: int = 0,
    progress: OpenProgress = NoProgress,
) -> list[EvalResult]:
    """Evaluate the masks of the boxes of the manifest's `eval`, as `lite` draws them: mIoU and rank correlation.

    Args:
        network: on the device of `context`. Each process evaluates a part of the images, and all return the full
            result.
        manifest: names the layers.
        context: rank, world size and device of this process.
        num_workers: data loader workers of each process.
        progress: opens a progress bar.

    Raises:
        SynthgenError: see `EvalLoader`.
    """
    was_training = network.training
    network.eval()

    def compare(batch: Batch) -> Iterator[tuple[GroundTruth, ImageResult]]:
        for pixels, target in zip(batch.images, batch.targets, strict=True):
            asked = GroundTruth(target["sample"], target["original"])
            height, width = target["size"]
            image = _restore_levels(pixels[:, :height, :width]).to(network.device)
            boxes = torch.from_numpy(asked.target.boxes_xyxy)
            [masks] = predict_masks(network, [image], [boxes], batch_size=_BATCH_SIZE)
            found = [
                Detection(
                    label=0,
                    score=mask.soft_iou,
                    box_xyxy=tuple(box),
                    mask=encode_mask_window(mask.window.numpy(), mask.top, mask.left, height, width),
                    query=0,
                )
                for mask, box in zip(masks, boxes.tolist(), strict=True)
            ]
            yield asked, mask_iou.compare(asked, found)

    try:
        return [
            evaluator.evaluate_layer(
                manifest,
                index,
                context,
                compare,
                description="evaluating box_prompt",
                progress=progress,
                batch_size=1,
                num_workers=num_workers,
            )
            for index in range(len(manifest.eval))
        ]
    finally:
        network.train(was_training)


def _restore_levels(image: Tensor) -> Tensor:
    """The levels of the image file, uint8 [3, H, W], from an image of a batch, float [3, H, W]."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (image * std + mean).round().clamp(0, 255).to(torch.uint8)
