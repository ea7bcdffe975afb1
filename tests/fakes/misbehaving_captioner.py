"""A captioner that misbehaves on any image whose top left pixel is pure red, and names the objects of all others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.records.sample import Caption


def build(*, batch_size: int = 4, wrong: str = "long", checkpoint: str = "") -> MisbehavingCaptioner:
    """`wrong` is a key of `WRONG`, "system_exit" or "hang"; `checkpoint` as for `fakes.misbehaving_segmenter`."""
    return MisbehavingCaptioner(batch_size, wrong, checkpoint)


#: What becomes of the right caption of an object.
WRONG: dict[str, Callable[[Caption], object]] = {
    "long": lambda caption: [replace(caption, text="a" * 1_000_000)],
    "positive": lambda caption: [replace(caption, score=1.0)],
    "nan": lambda caption: [replace(caption, score=float("nan"))],
    "inf": lambda caption: [replace(caption, score=-float("inf"))],
    "bytes": lambda caption: [replace(caption, text=caption.text.encode())],
    "no_source": lambda caption: [replace(caption, source=None)],
    "string": lambda caption: caption.text,
    "strings": lambda caption: [caption.text],
    "many": lambda caption: [replace(caption, text=f"{caption.text} {i}") for i in range(1001)],
    "none": lambda _: None,
}


class MisbehavingCaptioner:
    source = "misbehaving"

    def __init__(self, batch_size: int, wrong: str, cured: str) -> None:
        self.batch_size = batch_size
        self.wrong = wrong
        self.cured = cured

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],
        crowds: Sequence[Sequence[str]],
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        for image, own in zip(images, categories, strict=True):
            right = [Caption(f"a {name}", self.source, -0.5) for name in own]
            if tuple(image[0, 0]) != (255, 0, 0) or self.is_cured():
                yield [[caption] for caption in right]
                continue
            if self.wrong == "system_exit":
                raise SystemExit(0)
            while self.wrong == "hang" and not self.is_cured():
                time.sleep(0.02)
            yield [WRONG[self.wrong](caption) for caption in right]  # type: ignore[misc]

    def is_cured(self) -> bool:
        return bool(self.cured) and Path(self.cured).exists()
