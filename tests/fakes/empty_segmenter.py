"""A segmenter that finds nothing in any box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.generate.segmenters import MaskPrediction
from synthgen.records.rle import encode_mask


def build(*, batch_size: int = 2) -> EmptySegmenter:
    return EmptySegmenter(batch_size)


class EmptySegmenter:
    source = "empty"

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        for image, boxes in zip(images, boxes_xyxy, strict=True):
            rle = encode_mask(np.zeros(image.shape[:2], np.bool_))
            yield [MaskPrediction(rle, 0.5, None) for _ in boxes]
