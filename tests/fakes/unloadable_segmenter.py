"""A segmenter that fills boxes, and whose `build` fails on chosen nodes of a cluster."""

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
    """`checkpoint`, which no recipe holds, is a JSON file: {"seconds": per image, ERROR: [node IDs]}.

    ERROR is `synthgen_error`, `out_of_memory` or `type_error`; a node is its ID in Ray, or "all". `build` raises it on
    these nodes. Without a cluster it raises none.
    """
    asked = json.loads(Path(checkpoint).read_text())
    if not ray.is_initialized():
        return UnloadableSegmenter(batch_size, 0)
    here = {"all", ray.get_runtime_context().get_node_id()}
    if here & set(asked.get("synthgen_error", [])):
        raise SynthgenError("no driver on this node; install one")
    if here & set(asked.get("out_of_memory", [])):
        raise OutOfMemoryError("CUDA out of memory")
    if here & set(asked.get("type_error", [])):
        raise TypeError("expected a list, got a number")
    return UnloadableSegmenter(batch_size, asked["seconds"])


class UnloadableSegmenter:
    source = "unloadable"

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
