"""A segmenter that raises on any image whose top left pixel is pure red, and fills the boxes of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.generate.segmenters import MaskPrediction, box_fill


def build(*, batch_size: int = 4, cure: str = "") -> FailingSegmenter:
    """`cure` names a file whose presence makes the segmenter well; it does not change what a well one returns."""
    return FailingSegmenter(batch_size, cure)


class FailingSegmenter:
    source = "poison"

    def __init__(self, batch_size: int, cure: str) -> None:
        self.batch_size = batch_size
        self.cure = cure
        self.fill = box_fill.build()

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        well = bool(self.cure) and Path(self.cure).exists()
        for image, masks in zip(images, self.fill.segment(images, boxes_xyxy), strict=True):
            if not well and tuple(image[0, 0]) == (255, 0, 0):
                raise RuntimeError("poisoned")
            yield masks
