"""A segmenter that fills boxes, and cannot be made on some nodes of a cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction, box_fill


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def build(*, batch_size: int = 2, checkpoint: str = "") -> UnloadableSegmenter:
    """`checkpoint`, which no recipe holds, is a JSON of {"seconds": an image's, "refuse" | "fill" | "err": [node]}.

    On a node, by Ray's id or "all", it `refuse`s in a sentence, its memory is `fill`ed, or it is made wrongly (`err`).
    Where there is no cluster it is made.
    """
    asked = json.loads(Path(checkpoint).read_text())
    if not ray.is_initialized():
        return UnloadableSegmenter(batch_size, 0)
    here = {"all", ray.get_runtime_context().get_node_id()}
    if here & set(asked.get("refuse", [])):
        raise SynthgenError("no driver here; install one")
    if here & set(asked.get("fill", [])):
        raise OutOfMemoryError("CUDA out of memory")
    if here & set(asked.get("err", [])):
        raise TypeError("one and one are not fish")
    return UnloadableSegmenter(batch_size, asked["seconds"])


class UnloadableSegmenter:
    source = "fussy"

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
