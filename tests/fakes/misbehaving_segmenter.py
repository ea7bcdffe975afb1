"""A segmenter that misbehaves on any image whose top left pixel is pure red, and fills the boxes of all others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.generate.segmenters import MaskPrediction, box_fill
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Rle

Masks = list[MaskPrediction]


def build(*, batch_size: int = 4, wrong: str = "size", checkpoint: str = "") -> MisbehavingSegmenter:
    """`wrong` is a key of `WRONG`, of `RAISED`, "hang", "hang_in_pool", "hang_with_lock" (which nothing
    cures), or "exit_in_build".

    `checkpoint`, which no recipe holds, names a file: while it exists, no image fails, and what hangs goes on. Its name
    with ".hangs" names a file that is made where a hang begins.
    """
    if wrong == "exit_in_build":
        raise SystemExit
    return MisbehavingSegmenter(batch_size, wrong, checkpoint)


#: Exceptions that pass by `except Exception`.
RAISED = {
    "system_exit": SystemExit(),
    "system_exit_0": SystemExit(0),
    "system_exit_130": SystemExit(130),
    "generator_exit": GeneratorExit(),
    "cancelled": asyncio.CancelledError(),
}

#: What becomes of the right masks of an image [H, W].
WRONG: dict[str, Callable[[Masks, int, int], object]] = {
    "size": lambda masks, h, w: [m._replace(rle=encode_mask(np.ones((h // 2, w), bool))) for m in masks],
    "transposed": lambda masks, h, w: [m._replace(rle=Rle((w, h), m.rle.counts)) for m in masks],
    "partial_rle": lambda masks, h, w: [
        m._replace(rle=Rle((h, w), encode_mask(np.ones((h, 1))).counts)) for m in masks
    ],
    "no_rle_text": lambda masks, h, w: [m._replace(rle=Rle((h, w), b"\xff\x00")) for m in masks],
    "text_counts": lambda masks, h, w: [m._replace(rle=Rle((h, w), m.rle.counts.decode())) for m in masks],
    "array": lambda masks, h, w: [m._replace(rle=np.ones((h, w), bool)) for m in masks],
    "nan": lambda masks, *_: [m._replace(predicted_iou=float("nan")) for m in masks],
    "inf": lambda masks, *_: [m._replace(stability_score=float("inf")) for m in masks],
    "high": lambda masks, *_: [m._replace(predicted_iou=7.5) for m in masks],
    "low": lambda masks, *_: [m._replace(sam_predicted_iou=-0.5) for m in masks],
    "text_score": lambda masks, *_: [m._replace(predicted_iou="0.9") for m in masks],
    "too_few": lambda masks, *_: masks[:-1],
    "too_many": lambda masks, *_: [*masks, masks[0]],
    "none": lambda *_: None,
    "tuples": lambda masks, *_: [tuple(m) for m in masks],
}


class MisbehavingSegmenter:
    source = "misbehaving"

    def __init__(self, batch_size: int, wrong: str, cured: str) -> None:
        self.batch_size = batch_size
        self.wrong = wrong
        self.cured = cured
        self.fill = box_fill.build()

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        for image, masks in zip(images, self.fill.segment(images, boxes_xyxy), strict=True):
            if tuple(image[0, 0]) != (255, 0, 0) or self.is_cured():
                yield masks
                continue
            if self.wrong in RAISED:
                raise RAISED[self.wrong]
            if self.wrong == "hang_with_lock":
                re.match("(a+)+$", "a" * 60 + "b")  # `re` keeps Python's lock
            elif self.wrong == "hang":
                self.hang()
            elif self.wrong == "hang_in_pool":
                with ThreadPoolExecutor(1) as pool:  # of threads that Python waits for at its end
                    pool.submit(self.hang).result()
            else:
                yield WRONG[self.wrong](masks, *image.shape[:2])  # type: ignore[misc]

    def is_cured(self) -> bool:
        return bool(self.cured) and Path(self.cured).exists()

    def hang(self) -> None:
        if self.cured:
            Path(f"{self.cured}.hangs").touch()
        while not self.is_cured():
            time.sleep(0.02)
