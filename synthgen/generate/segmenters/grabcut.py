"""OpenCV's GrabCut seeded by the box: the choice without weights. Better than the box, far from a trained model.

Each box is processed in a small crop of fixed size, so that time and memory do not depend on the image size:

1. prior: the middle of a box is usually object, its sides are usually not;
2. colours: histograms of object and surroundings, weighted by the current log-odds, correct the prior, and a guided
   filter aligns the log-odds with image edges;
3. GrabCut, seeded with the most certain pixels, votes; its vote is added to the log-odds.

The mask is the map of log-odds, enlarged to the image's resolution and thresholded. All constants below were chosen on
128 COCO images; `benchmarks/quality.py` measures them on other images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction, Segmenter
from synthgen.plugin_options import option
from synthgen.records.rle import encode_mask_window

FloatMap = NDArray[np.float32]

MIN_BOX_SIDE = 4.0  # a box with a side below this many pixels is filled where the cut between two pixels finds nothing
PRIOR_PARAMS = (1.4, 3.5, 0.1)  # log-odds far from the sides; fall at a side; reach of the fall in parts of the box
PRIOR_WEIGHT = 0.6
COLOR_BINS = 8  # a colour axis
GUIDED_FILTER_EPS = 3e-5  # the guided filter's epsilon, for Lab in [0, 1]
GUIDED_FILTER_RADIUS = 0.05  # the guided filter's radius in parts of the crop's longer side
SURE_BACKGROUND, LIKELY_OBJECT, SURE_OBJECT = 0.05, 0.35, 0.75  # probabilities that seed GrabCut
GRABCUT_WEIGHT = 1.5
LOG_ODDS_THRESHOLD = -0.7  # the log-odds at which the belief is cut: one in three
STABILITY_OFFSET = (
    1.0  # the stability score compares the cuts this much above and below (segment-anything's definition)
)

#: The figure is of `benchmarks/quality.py`; the README has the table.
NOTE_AFTER_JOB = (
    "grabcut's masks have a mean IoU of 0.68 with people's masks (804 objects of COCO; lite has 0.76): enough to try "
    "the pipeline; `--segmenter lite` or, on a GPU, `--segmenter sam` with another --layer draws better ones"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrabCutOptions:
    """Options of the segmenter `grabcut`.

    Raises:
        SynthgenError: a number is out of its range.
    """

    side: int = option(80, help="Work on each crop at about side x side pixels, whatever its shape and size")
    margin: float = option(0.25, help="Surroundings shown on each side of the box, in parts of the box")
    batch_size: int = option(16, runtime=True, help="Images per batch")
    threads: int = option(0, runtime=True, help="Boxes processed at once; 0 = one per core. Masks do not depend on it")

    def __post_init__(self) -> None:
        if not 8 <= self.side <= 2048:
            raise SynthgenError(f"option 'side' of 'grabcut' should be from 8 to 2048 pixels, got {self.side}")
        if not 0 <= self.margin <= 100:
            raise SynthgenError(
                f"option 'margin' of 'grabcut' should be from 0 to 100 parts of the box, got {self.margin}"
            )
        if self.batch_size < 1:
            raise SynthgenError(f"option 'batch_size' of 'grabcut' should be 1 or more images, got {self.batch_size}")
        if not 0 <= self.threads <= 1024:
            raise SynthgenError(
                f"option 'threads' of 'grabcut' should be from 0 (one a core) to 1024, got {self.threads}"
            )


OPTIONS = GrabCutOptions


def build(options: GrabCutOptions = GrabCutOptions()) -> Segmenter:
    """Make the segmenter with `options`."""
    return GrabCutSegmenter(options.side, options.margin, options.batch_size, options.threads or os.cpu_count() or 1)


class GrabCutSegmenter:
    """See `Segmenter`.

    Args:
        side: each crop is worked on at about side x side pixels.
        margin: surroundings shown on each side of a box, in parts of the box.
        batch_size: images per call.
        threads: boxes that are segmented at once.
    """

    source = "grabcut"

    def __init__(self, side: int, margin: float, batch_size: int, threads: int) -> None:
        self.side, self.margin, self.batch_size, self.threads = side, margin, batch_size, threads

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        """See `Segmenter.segment`."""
        work = [(image, box) for image, boxes in zip(images, boxes_xyxy, strict=True) for box in boxes]
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="grabcut")
        try:
            found = pool.map(lambda one: self._predict(*one), work)
            for boxes in boxes_xyxy:
                yield [next(found) for _ in range(len(boxes))]
        finally:
            pool.shutdown(cancel_futures=True)

    def _predict(self, image: NDArray[np.uint8], box_xyxy: NDArray[np.float32]) -> MaskPrediction:
        height, width = image.shape[:2]
        box = box_xyxy.astype(np.float64)
        left, top = (int(v) for v in np.floor(box[:2]))
        right, bottom = (int(v) for v in np.ceil(box[2:]))
        x1, x2 = _pad_interval(left, right, self.margin, width)
        y1, y2 = _pad_interval(top, bottom, self.margin, height)
        size = _working_size(y2 - y1, x2 - x1, self.side)
        crop = _resize(image[y1:y2, x1:x2], size)
        # Where each working pixel lies in the box: 0 and 1 are its sides; a side on the image's border is open.
        u = (x1 + (np.arange(size[1]) + 0.5) * (x2 - x1) / size[1] - box[0]) / max(box[2] - box[0], 1e-6)
        v = (y1 + (np.arange(size[0]) + 0.5) * (y2 - y1) / size[0] - box[1]) / max(box[3] - box[1], 1e-6)
        fall = _border_proximity(v, box[1] > 2, box[3] < height - 2)[:, None] + _border_proximity(
            u, box[0] > 2, box[2] < width - 2
        )
        inside = ((v > 0) & (v < 1))[:, None] & ((u > 0) & (u < 1))
        if not inside.any():  # a sliver between the working pixels
            whole = np.ones((bottom - top, right - left), np.bool_)
            return MaskPrediction(encode_mask_window(whole, top, left, height, width), None, None)
        belief = _object_log_odds(crop, (PRIOR_PARAMS[0] - PRIOR_PARAMS[1] * fall).astype(np.float32), inside)

        sure, possible = (
            int((inside & (belief > LOG_ODDS_THRESHOLD + d)).sum()) for d in (STABILITY_OFFSET, -STABILITY_OFFSET)
        )
        # Transposed, so that the columns of the large mask are contiguous, as run lengths want them; 8 bits, because
        # this is the one array that grows with the image.
        large = _resize(
            np.clip(128 + 32 * (belief - LOG_ODDS_THRESHOLD), 0, 255).astype(np.uint8).T, (x2 - x1, y2 - y1)
        )
        window = large[left - x1 : right - x1, top - y1 : bottom - y1].T >= 128
        if min(box[2:] - box[:2]) < MIN_BOX_SIDE and not window.any():
            window[:] = True
        return MaskPrediction(encode_mask_window(window, top, left, height, width), None, sure / max(possible, 1))


def _object_log_odds(crop: NDArray[np.uint8], prior: FloatMap, inside: NDArray[np.bool_]) -> FloatMap:
    """Log-odds of object for each pixel: crop uint8 [h, w, 3] RGB, prior log-odds and inside-the-box [h, w]."""
    lab: FloatMap = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2Lab), np.float32) / np.float32(255)
    follow = _guided_filter(lab, max(1, round(GUIDED_FILTER_RADIUS * max(prior.shape))))
    low, high = lab.min((0, 1)), lab.max((0, 1))
    bins = np.minimum((lab - low) / np.maximum((high - low) / COLOR_BINS, 4 / 255), COLOR_BINS - 1).astype(np.int64)
    colour = ((bins[..., 0] * COLOR_BINS + bins[..., 1]) * COLOR_BINS + bins[..., 2]).ravel()
    belief, known = prior, _probability(prior) * inside
    for _ in range(2):
        belief = follow(PRIOR_WEIGHT * prior + _color_log_odds(colour, known))
        known = _probability(belief) * inside
    return belief + GRABCUT_WEIGHT * _grabcut_vote(crop, known, inside)


def _color_log_odds(colour: NDArray[np.int64], known: FloatMap) -> FloatMap:
    """Log-likelihood ratio of each pixel's colour, object against surroundings; float32 [h, w], within 3."""
    seen = [np.bincount(colour, weight.ravel(), COLOR_BINS**3) for weight in (known, 1 - known)]
    shares = [count / max(count.sum(), 1e-9) + 0.1 / COLOR_BINS**3 for count in seen]
    evidence: FloatMap = np.clip(np.log(shares[0] / shares[1]), -3, 3).astype(np.float32)
    return evidence[colour].reshape(known.shape)


def _grabcut_vote(crop: NDArray[np.uint8], known: FloatMap, inside: NDArray[np.bool_]) -> FloatMap:
    """GrabCut's answer, softened at its contour: +1 object, -1 not, 0 where there is too little to seed it with."""
    seeds = np.where(known > LIKELY_OBJECT, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[known >= min(SURE_OBJECT, float(np.quantile(known[inside], 0.8)))] = cv2.GC_FGD
    seeds[(known < SURE_BACKGROUND) | ~inside] = cv2.GC_BGD
    objects = int((seeds & 1).sum())
    if min(objects, seeds.size - objects) < 16:
        return np.zeros(known.shape, np.float32)
    # GrabCut draws its first colour clusters from OpenCV's generator, of which each thread has its own.
    cv2.setRNGSeed(0)
    cv2.grabCut(crop, seeds, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    return np.asarray(cv2.GaussianBlur((seeds & 1).astype(np.float32) * 2 - 1, (0, 0), 1.5), np.float32)


def _guided_filter(guide: FloatMap, radius: int) -> Callable[[FloatMap], FloatMap]:
    """Smoothing that keeps the edges of a colour picture [h, w, 3]: He et al., "Guided Image Filtering", 2010."""

    def mean(values: FloatMap) -> FloatMap:
        size = (2 * radius + 1, 2 * radius + 1)
        return np.asarray(cv2.blur(values, size, borderType=cv2.BORDER_REFLECT), np.float32)

    h, w = guide.shape[:2]
    mu = mean(guide)
    squares = mean((guide[..., :, None] * guide[..., None, :]).reshape(h, w, 9)).reshape(h, w, 3, 3)
    inverse = np.linalg.inv(
        squares - mu[..., :, None] * mu[..., None, :] + GUIDED_FILTER_EPS * np.eye(3, dtype=np.float32)
    )

    def follow(values: FloatMap) -> FloatMap:
        centre = mean(values)
        slope = np.einsum("hwij,hwj->hwi", inverse, mean(guide * values[..., None]) - mu * centre[..., None])
        return np.asarray((mean(slope) * guide).sum(-1) + mean(centre - (slope * mu).sum(-1)), np.float32)

    return follow


def _border_proximity(place: NDArray[np.float64], near: bool, far: bool) -> FloatMap:
    """How close each place in [0, 1] is to the two sides; a side that is False lies on the image's border."""
    falls = (np.exp(-np.maximum(away, 0) / PRIOR_PARAMS[2]) for away in (place, 1 - place))
    return np.asarray(sum(closed * fall for closed, fall in zip((near, far), falls, strict=True)), np.float32)


def _pad_interval(low: int, high: int, margin: float, limit: int) -> tuple[int, int]:
    pad = max(3, round(margin * (high - low)))
    return max(0, low - pad), min(limit, high + pad)


def _working_size(height: int, width: int, side: int) -> tuple[int, int]:
    # About `side` squared pixels, whatever the shape; a very long crop keeps enough of its short side to work with.
    scale = side / np.sqrt(height * width)
    return (int(np.clip(round(height * scale), 8, 4 * side)), int(np.clip(round(width * scale), 8, 4 * side)))


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=way), np.uint8)


def _probability(log_odds: FloatMap) -> FloatMap:
    return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)
