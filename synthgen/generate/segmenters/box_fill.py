"""A segmenter that returns the box as the mask: the baseline for every segmenter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction, Segmenter
from synthgen.plugin_options import option
from synthgen.records.rle import encode_mask_window

#: The figures are of `benchmarks/quality.py`; the README has the table.
NOTE_AFTER_JOB = (
    "box_fill's masks are the boxes, with a mean IoU of 0.56 with people's masks (804 objects of COCO; lite has "
    "0.76): a baseline; `--segmenter lite` or, on a GPU, `--segmenter sam` with another --layer draws masks"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFillOptions:
    """Options of the segmenter `box_fill`. None of them matters to the masks.

    Raises:
        SynthgenError: a number is out of its range.
    """

    batch_size: int = option(16, runtime=True, help="Images per batch")

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SynthgenError(f"option 'batch_size' of 'box_fill' should be 1 or more images, got {self.batch_size}")


OPTIONS = BoxFillOptions


def build(options: BoxFillOptions = BoxFillOptions()) -> Segmenter:
    """Make the segmenter with `options`."""
    return BoxFillSegmenter(options.batch_size)


class BoxFillSegmenter:
    """See `Segmenter`."""

    source = "box_fill"

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        """See `Segmenter.segment`."""
        for image, boxes in zip(images, boxes_xyxy, strict=True):
            yield [_fill_box(image.shape[0], image.shape[1], box) for box in boxes]


def _fill_box(height: int, width: int, box_xyxy: NDArray[np.float32]) -> MaskPrediction:
    """Every pixel whose area the box touches, so that no box of some size gives an empty mask."""
    x1, y1 = (int(v) for v in np.floor(box_xyxy[:2]))
    x2, y2 = (int(v) for v in np.ceil(box_xyxy[2:]))
    whole = np.ones((y2 - y1, x2 - x1), np.uint8)
    return MaskPrediction(encode_mask_window(whole, y1, x1, height, width), predicted_iou=None, stability_score=None)
