"""A shelf: one file each, named as the tasks' `METRIC`. A metric is a module with

    TAKES       the function of `synthgen.evaluation.postprocess` that makes what it compares
    MAIN        which of its values stands for all of them
    def compare(asked, found) -> Compared
        one image: small, picklable, without pixels, so that memory grows with what is found and not with images
    def scores(compared) -> Scores
        all of them together, in whatever order they come

Values are in percent. What nobody knows is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthgen.dataloading.tasks import Target
from synthgen.records.sample import Rle, Sample


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """What is true of one image, in the frame of its file.

    Attributes:
        target: what its task makes of the sample; `texts` are what the network was asked for.
        stuff_names: names that are no countable things in this layer.
    """

    sample: Sample
    target: Target
    stuff_names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One object that was found.

    Attributes:
        label: index into the texts that were asked for.
        score: in [0, 1].
        box_xyxy: absolute pixels of the original image, within it.
        mask: of the original image's size; None = only a box was asked for.
        query: which query says so.
    """

    label: int
    score: float
    box_xyxy: tuple[float, float, float, float]
    mask: Rle | None
    query: int


@dataclass(frozen=True, slots=True)
class PanopticSegment:
    """A region of a panoptic map: its label, its score, and the queries that it is made of, one for a thing."""

    label: int
    score: float
    queries: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PanopticMap:
    """A region for each pixel: int32 [H, W], 0 = none, else the place in `segments`, counted from 1."""

    segment_ids: NDArray[np.int32]
    segments: tuple[PanopticSegment, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SemanticMap:
    """A label for each pixel: int32 [H, W]; and the query that says most of each label that was found."""

    labels: NDArray[np.int32]
    query_by_label: dict[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ForegroundMap:
    """How likely each pixel is foreground: float32 [H, W] in [0, 1]."""

    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What is kept of one image.

    Attributes:
        stats: the metric's own.
        true_positives: for each object or region that was found: whether it is a thing, and the query that found it.
    """

    stats: Any
    true_positives: tuple[tuple[bool, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """What came of all images, in percent.

    Attributes:
        values: by name; those that nothing was there to measure for are left out.
        by_name: the main value of each category, where the metric has one.
    """

    values: dict[str, float]
    by_name: dict[str, float]


class Metric(Protocol):
    """The module of one metric, as the docstring of this package says."""

    TAKES: str
    MAIN: str

    def compare(self, ground_truth: GroundTruth, prediction: Any) -> ImageResult: ...

    def scores(self, image_results: Sequence[ImageResult]) -> Scores: ...
