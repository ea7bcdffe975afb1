"""A segmenter that fills boxes and takes its time, so that a test can kill it in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.generate.segmenters import MaskPrediction, box_fill


def build(*, batch_size: int = 2, seconds: float = 0.005) -> SlowSegmenter:
    return SlowSegmenter(batch_size, seconds)


class SlowSegmenter:
    source = "slow"

    def __init__(self, batch_size: int, seconds: float) -> None:
        self.batch_size = batch_size
        self.seconds = seconds
        self.fill = box_fill.build()

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        for masks in self.fill.segment(images, boxes_xyxy):
            time.sleep(self.seconds)
            yield masks
