"""A segmenter that kills its own process, as the system does when memory runs out, on a picture with a red corner."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction, box_fill


def build(*, batch_size: int = 4, unfit: bool = False, dies: bool = False, curse: str = "") -> CrashingSegmenter:
    """`unfit`: it cannot be made, and says so; `dies`: making it kills the process.

    `curse` names a file that the first one leaves when it kills, and in whose presence no other can be made.
    """
    if curse and Path(curse).exists():
        raise SynthgenError("a curse lies on the model; lift it")
    if unfit:
        raise SynthgenError("the model is not here; lay it there")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return CrashingSegmenter(batch_size, curse)


class CrashingSegmenter:
    source = "killer"

    def __init__(self, batch_size: int, curse: str) -> None:
        self.batch_size = batch_size
        self.curse = curse
        self.fill = box_fill.build()

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        for image in images:
            if tuple(image[0, 0]) == (255, 0, 0):
                if self.curse:
                    Path(self.curse).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        yield from self.fill.segment(images, boxes_xyxy)
