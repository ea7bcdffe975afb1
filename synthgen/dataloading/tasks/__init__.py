"""Shelf of training tasks: one file each, its name is the manifest's `task`. This is what such a file offers.

    METRIC: str            "ap" | "box_ap" | "pq" | "miou" | "ciou" | "maxf" | "cider": how `evaluate` measures it
    AUGMENTATION: str      "jitter" | "semantic" | "whole" | "foreground": how `transforms` varies images of this task;
                           "square": not at all, a captioner sees them stretched to its size
    def target(sample, categories, rng, *, max_texts=365) -> Target | None
        what the image teaches; None = nothing, and the reader takes the next image
        `categories`: the source's own names, without repetition, to take negatives from
        `rng`: where it stands decides every draw; the order of the sample's annotations decides nothing
        `max_texts`: a larger label space is drawn from at random
        raises SynthgenError: the image's size is not known, or a mask lies about its own; it names the image

Masks stay run lengths here: uniting, subtracting and choosing are done on runs, and only `transforms` makes pixels of
them, in the size that the network sees. So a target costs kilobytes, however large its image.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthgen.records.sample import Rle, Sample


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What one image teaches, in the frame of the original image; n objects (or regions, or phrases).

    Attributes:
        texts: the image's label space: names and phrases, without repetition; those that no label points to are
            negatives.
        labels: int64 [n], indices into `texts`.
        boxes_xyxy: float32 [n, 4], absolute pixels; the source's own boxes, clipped to the image. Where there is a
            mask, `transforms` reads the box off it; this one serves the others, and `box_prompted`.
        masks: n run-length masks of the image's size; None = no mask to learn from: class and box only.
        mask_weights: float32 [n] in [0, 1]: how much the mask losses of an object count.
        ignore: where nothing may be learned from the absence of an object (crowds, unlabelled or rejected regions);
            None = nowhere.
        annotation_ids: for each of the n, the ids of the annotations that it is made of.
        box_prompted: of the n, those whose mask a machine drew into a given box, which says better where the object is.
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    masks: tuple[Rle | None, ...]
    mask_weights: NDArray[np.float32]
    ignore: Rle | None
    annotation_ids: tuple[tuple[int, ...], ...]
    box_prompted: tuple[int, ...] = ()


class Task(Protocol):
    """The module of one task, as the docstring of this package says."""

    METRIC: str
    AUGMENTATION: str

    def target(
        self, sample: Sample, categories: Sequence[str], rng: random.Random, *, max_texts: int = ...
    ) -> Target | None: ...
