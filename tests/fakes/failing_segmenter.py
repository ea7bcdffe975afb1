"""A segmenter that raises on any image whose top left pixel is pure red, and fills the boxes of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.generate.segmenters import MaskPrediction, box_fill


def build(*, batch_size: int = 4, recovery_file: str = "") -> FailingSegmenter:
    """`recovery_file` names a file: while it exists, no image fails. The results are the same with and without it."""
    return FailingSegmenter(batch_size, recovery_file)


class FailingSegmenter:
    source = "failing"

    def __init__(self, batch_size: int, recovery_file: str) -> None:
        self.batch_size = batch_size
        self.recovery_file = recovery_file
        self.fill = box_fill.build()

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        recovered = bool(self.recovery_file) and Path(self.recovery_file).exists()
        for image, masks in zip(images, self.fill.segment(images, boxes_xyxy), strict=True):
            if not recovered and tuple(image[0, 0]) == (255, 0, 0):
                raise RuntimeError("the image has a red corner")
            yield masks
