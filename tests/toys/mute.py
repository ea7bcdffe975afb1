"""A captioner that raises on any image whose top left pixel is pure red, and names what each box holds elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.records.sample import Caption


def build(*, batch_size: int = 4, cure: str = "") -> FailingCaptioner:
    """`cure` names a file whose presence makes the captioner well; it does not change what a well one says."""
    return FailingCaptioner(batch_size, cure)


class FailingCaptioner:
    source = "mute"

    def __init__(self, batch_size: int, cure: str) -> None:
        self.batch_size = batch_size
        self.cure = cure

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],
        crowds: Sequence[Sequence[str]],
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        well = bool(self.cure) and Path(self.cure).exists()
        for image, own in zip(images, categories, strict=True):
            if not well and tuple(image[0, 0]) == (255, 0, 0):
                raise RuntimeError("mute")
            yield [[Caption(f"a {name}", self.source, -0.5)] for name in own]
