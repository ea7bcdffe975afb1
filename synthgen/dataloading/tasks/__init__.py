"""Plugin folder of training tasks: one file per task; its name is the manifest's `task`. A task module defines:

    METRIC: str            "ap" | "box_ap" | "pq" | "miou" | "ciou" | "maxf" | "cider" | "mask_iou": the metric of
                           `evaluate`
    AUGMENTATION: str      "jitter" | "semantic" | "whole" | "foreground": the augmentation in `transforms`;
                           "square": none, images are stretched to the captioner's size
    def target(sample, categories, rng, *, max_texts=365) -> Target | None
        the target of the image; None = there is nothing to learn, and the reader takes the next image
        `categories`: the unique category names of the source, for negatives
        `rng`: decides every random draw; the order of the sample's annotations has no effect
        `max_texts`: a larger label space is subsampled
        raises SynthgenError: the image's size is unknown, or a mask has another size; the message names the image

Masks stay RLE here. Unions, differences and choices work on runs; only `transforms` makes pixels, in the network's
resolution. So a target takes kilobytes for any image size.
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
    """The target of one image, in the frame of the original image; n objects (or regions, or phrases).

    Attributes:
        texts: the image's label space: unique names and phrases; those without a label are negatives.
        labels: int64 [n], indices into `texts`.
        boxes_xyxy: float32 [n, 4], absolute pixels; the source's own boxes, clipped to the image. If there is a
            mask, `transforms` computes the box from it, except for `box_prompted`.
        masks: n run-length masks of the image's size; None = no mask: class and box only.
        mask_weights: float32 [n] in [0, 1]: weights of the objects' mask losses.
        ignore: the region without loss for absent objects (crowds, unlabelled or rejected regions); None = none.
        annotation_ids: for each object, the ids of its annotations.
        box_prompted: indices of objects whose mask was generated from a given box. The box is more exact than the mask.
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
    """The module of a task; see the docstring of this package."""

    METRIC: str
    AUGMENTATION: str

    def target(
        self, sample: Sample, categories: Sequence[str], rng: random.Random, *, max_texts: int = ...
    ) -> Target | None:
        """The target of one image; None: there is nothing to learn.

        Args:
            sample: the image with its annotations.
            categories: the unique category names of the source, for negatives.
            rng: decides every random draw.
            max_texts: the largest number of texts; a larger label space is subsampled.
        """
        ...
