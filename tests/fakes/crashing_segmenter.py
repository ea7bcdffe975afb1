"""A segmenter that kills its own process, as the system does when memory runs out, on an image with a red corner."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction, box_fill


def build(
    *, batch_size: int = 4, fail_to_build: bool = False, crash_in_build: bool = False, fail_after_crash_file: str = ""
) -> CrashingSegmenter:
    """`fail_to_build`: raises an error; `crash_in_build`: kills the process.

    `fail_after_crash_file` names a file that the first worker writes when it crashes; no worker builds while it exists.
    """
    if fail_after_crash_file and Path(fail_after_crash_file).exists():
        raise SynthgenError("the model cannot be loaded again; remove the file of the crash")
    if fail_to_build:
        raise SynthgenError("the model is missing; download it")
    if crash_in_build:
        os.kill(os.getpid(), signal.SIGKILL)
    return CrashingSegmenter(batch_size, fail_after_crash_file)


class CrashingSegmenter:
    source = "crashing"

    def __init__(self, batch_size: int, fail_after_crash_file: str) -> None:
        self.batch_size = batch_size
        self.fail_after_crash_file = fail_after_crash_file
        self.fill = box_fill.build()

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        for image in images:
            if tuple(image[0, 0]) == (255, 0, 0):
                if self.fail_after_crash_file:
                    Path(self.fail_after_crash_file).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        yield from self.fill.segment(images, boxes_xyxy)
