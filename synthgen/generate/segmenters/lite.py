"""A small learned segmenter for CPUs and GPUs: a crop around each box, an ImageNet backbone and a decoder.

Its weights are part of the package; `MODEL_CARD.md` beside them says what they were trained on. `synthgen train` trains
others on masks (`box_segmenter:` in a manifest). It was not trained to judge its own masks: `soft_iou` comes from its
pixel probabilities, `predicted_iou` stays empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synthgen.devices import PRECISIONS, check_device_options, free_memory_gib, resolve_device
from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction, Segmenter
from synthgen.generate.segmenters._lite_options import LiteOptions
from synthgen.models.box_segmenter.inference import BoxMask, predict_masks
from synthgen.models.box_segmenter.network import BoxSegmenter
from synthgen.models.box_segmenter.weights import TRAINED_WEIGHTS, load_segmenter
from synthgen.oom import OomBatcher
from synthgen.records.rle import encode_mask_window
from synthgen.weights import cached_file_sha256

#: On CUDA: from so many GiB of free memory on, so many images and crops at once.
_AUTO_BATCH_SIZES = ((40, 32, 512), (14, 16, 256), (0, 8, 64))


def resolve_options(options: LiteOptions) -> LiteOptions:
    """See the plugin folder: `weights` becomes the SHA-256 of the file.

    Args:
        options: as the user gives them.

    Raises:
        SynthgenError: a value is wrong, or the file is missing or not a box segmenter.
    """
    check_device_options(options.device, options.precision, options.batch_size)
    path = _weights_path(options)
    _load(path)
    weights = cached_file_sha256(path)
    if options.weights and options.weights != weights:
        raise SynthgenError(f"-O weights={options.weights} asks for another checkpoint than {path.name} ({weights})")
    # The packaged file may lie elsewhere on the machine of a worker.
    return replace(options, checkpoint=options.checkpoint and str(path), weights=weights)


def build(options: LiteOptions) -> Segmenter:
    """Make the segmenter of `options`."""
    own = resolve_options(options)
    device = resolve_device(own.device)
    network = _load(_weights_path(own)).to(device).to(memory_format=torch.channels_last).eval()
    images, boxes = 8, 16
    if device.type == "cuda":
        images, boxes = next((i, b) for least, i, b in _AUTO_BATCH_SIZES if free_memory_gib(device) >= least)
    images = images if own.batch_size == "auto" else int(own.batch_size)
    batcher = OomBatcher(images, own.box_chunk if own.box_chunk > 0 else boxes)
    return LiteSegmenter(network, PRECISIONS[own.precision], batcher, mirror=own.mirror)


class LiteSegmenter:
    """See `Segmenter`.

    Args:
        network: on its device, in evaluation mode.
        dtype: of activations.
        oom_batcher: number of images and crops on the device at once.
        mirror: whether to look at the mirror image of each crop, too.
    """

    source = "lite"

    def __init__(
        self, network: BoxSegmenter, dtype: torch.dtype, oom_batcher: OomBatcher, *, mirror: bool = False
    ) -> None:
        self.network, self.dtype, self.oom_batcher, self.mirror = network, dtype, oom_batcher, mirror

    @property
    def batch_size(self) -> int:
        """See `Segmenter`."""
        return self.oom_batcher.max_images

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        """See `Segmenter`."""
        found = self.oom_batcher.run(self._forward, list(zip(images, boxes_xyxy, strict=True)))
        for image, masks in zip(images, found, strict=True):
            height, width = image.shape[:2]
            yield [
                MaskPrediction(
                    encode_mask_window(mask.window.numpy(), mask.top, mask.left, height, width),
                    predicted_iou=None,
                    stability_score=mask.stability_score,
                    soft_iou=mask.soft_iou,
                )
                for mask in masks
            ]

    def _forward(self, inputs: list[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> list[list[BoxMask]]:
        device = self.network.device
        images = [torch.tensor(image).permute(2, 0, 1).to(device) for image, _ in inputs]
        boxes = [torch.tensor(own) for _, own in inputs]
        at_once = self.oom_batcher.max_boxes
        return list(
            predict_masks(self.network, images, boxes, batch_size=at_once, dtype=self.dtype, mirror=self.mirror)
        )


def _weights_path(options: LiteOptions) -> Path:
    return Path(options.checkpoint).absolute() if options.checkpoint else TRAINED_WEIGHTS


def _load(path: Path) -> BoxSegmenter:
    try:
        return load_segmenter(path)
    except ValueError as why:
        raise SynthgenError(
            f"{path}: {why}; name a file of a box segmenter with --checkpoint, or the segmenter of this file with "
            "--segmenter"
        ) from None
