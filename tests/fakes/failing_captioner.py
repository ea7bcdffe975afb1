"""A captioner that raises on any image whose top left pixel is pure red, and names what each box holds elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.records.sample import Caption


def build(*, batch_size: int = 4, recovery_file: str = "") -> FailingCaptioner:
    """`recovery_file` names a file: while it exists, no image fails. The results are the same with and without it."""
    return FailingCaptioner(batch_size, recovery_file)


class FailingCaptioner:
    source = "failing"

    def __init__(self, batch_size: int, recovery_file: str) -> None:
        self.batch_size = batch_size
        self.recovery_file = recovery_file

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],
        crowds: Sequence[Sequence[str]],
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        recovered = bool(self.recovery_file) and Path(self.recovery_file).exists()
        for image, own in zip(images, categories, strict=True):
            if not recovered and tuple(image[0, 0]) == (255, 0, 0):
                raise RuntimeError("the image has a red corner")
            yield [[Caption(f"a {name}", self.source, -0.5)] for name in own]
