"""Metrics, one module each, named as the tasks' `METRIC`. A metric module defines

    TAKES       the function of `synthgen.evaluation.postprocess` that produces its predictions
    MAIN        the name of its main value
    def compare(ground_truth, prediction) -> ImageResult
                one image. The result is small, picklable and without pixels, so that memory grows with the number of
                detections and not with the size of images
    def scores(image_results) -> Scores
                all images, in any order

Values are in percent. Predictions without a known ground truth count neither as right nor as wrong.
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
    """The ground truth of one image, in the coordinates of its file.

    Attributes:
        target: the sample as converted by its task; `texts` are the network's input texts.
        stuff_names: names that are stuff (uncountable) in this layer.
    """

    sample: Sample
    target: Target
    stuff_names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One detected object.

    Attributes:
        label: index into the input texts.
        score: in [0, 1].
        box_xyxy: absolute pixels of the original image, clipped to it.
        mask: of the original image's size; None = only boxes were requested.
        query: index of the query.
    """

    label: int
    score: float
    box_xyxy: tuple[float, float, float, float]
    mask: Rle | None
    query: int


@dataclass(frozen=True, slots=True)
class PanopticSegment:
    """A segment of a panoptic map: its label, its score, and its queries (one for a thing)."""

    label: int
    score: float
    queries: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PanopticMap:
    """A segment for each pixel.

    Attributes:
        segment_ids: int32 [H, W], in the size of the image file; 0 = none, else the 1-based index into `segments`.
        segments: in the order of their ids.
    """

    segment_ids: NDArray[np.int32]
    segments: tuple[PanopticSegment, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SemanticMap:
    """A label for each pixel.

    Attributes:
        labels: int32 [H, W], in the size of the image file; indices into the input texts.
        query_by_label: for each predicted label the query that contributes most to it.
    """

    labels: NDArray[np.int32]
    query_by_label: dict[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ForegroundMap:
    """The foreground probability of each pixel.

    Attributes:
        probabilities: float32 [H, W] in [0, 1], in the size of the image file.
    """

    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """The comparison of one image.

    Attributes:
        stats: data of the metric.
        true_positives: for each correct object or segment: whether it is a thing, and its query.
    """

    stats: Any
    true_positives: tuple[tuple[bool, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """The values of a layer, in percent.

    Attributes:
        values: by name; values without ground truth are left out.
        by_name: the main value of each category, if the metric has one.
    """

    values: dict[str, float]
    by_name: dict[str, float]


class Metric(Protocol):
    """The module of a metric; see the docstring of this package."""

    TAKES: str
    MAIN: str

    def compare(self, ground_truth: GroundTruth, prediction: Any) -> ImageResult:
        """The comparison of one image; see the docstring of this package.

        Args:
            ground_truth: the ground truth of the image.
            prediction: what the function `TAKES` returns for the image.
        """
        ...

    def scores(self, image_results: Sequence[ImageResult]) -> Scores:
        """The values over `image_results`, the comparisons of all images in any order."""
        ...
