"""Detects boxes that are written in another convention than COCO's x, y, width, height in pixels.

A box in the wrong convention mostly stays inside its image: read as corners, a centre box is only shifted. So no single
box tells. Each convention has a reading here: the corners that the four numbers have if they are meant in that way. All
boxes are counted that do not fit their image under each reading. Under the true one almost all fit, in real data more
than 98 %; under the others many do not. Fractions, percentages and boxes on a scale of 1000 may fit any image; they are
found by how far they reach: not beyond 1, 100 or 1000, in images that are larger.

Memory holds sums only, and no box is read twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: A box fits if it reaches beyond its image by at most this share of the image's side and one pixel (1 % if less).
_MARGIN = 0.0025

#: Scales that boxes are written on, beside pixels: code -> the number that stands for the whole image.
_SCALES = {"percent_boxes": 100.0, "permille_boxes": 1000.0}

#: Readings of boxes whose true numbers are smaller. Any large number fits once it is divided, so they also need reach.
_DIVIDED = ("pixels_as_fractions", "percent_as_fractions")

#: Fewer boxes never stop a job; fractions are recognised in fewer.
_MIN_BOXES, _MIN_FRACTIONS = 10, 3

#: Code -> what to do about boxes of this convention.
REMEDIES: dict[str, str] = {
    "normalised_boxes": "multiply the boxes by their images' width and height",
    "percent_boxes": "divide the boxes by 100 and multiply them by their images' width and height",
    "permille_boxes": "divide the boxes by 1000 and multiply them by their images' width and height",
    "xyxy_boxes": "write the boxes as x, y, width, height (width = x2 - x1, height = y2 - y1)",
    "centre_boxes": "subtract half the width from x and half the height from y",
    "exchanged_axes": "write the boxes as x, y, width, height; or exchange the images' width and height, if these are "
    "wrong",
    "yxyx_boxes": "write the boxes as x, y, width, height (width = x2 - x1, height = y2 - y1)",
    "corners_as_centres": "write the centre of each box, as this format does, not its upper left corner",
    "pixels_as_fractions": "divide the numbers of the file by their images' width and height",
    "percent_as_fractions": "divide the numbers of the file by 100",
    "misfit_boxes": "these may not be the images that were annotated, or they were resized; name the right folder "
    "with --images, or scale the boxes",
}


@dataclass(frozen=True, slots=True)
class BoxConvention:
    """A convention that the boxes seem to be in.

    Attributes:
        code: key of `REMEDIES`.
        count: boxes that speak for it.
        stops: the evidence is strong; otherwise a user should look.
        what: the evidence, one clause.
    """

    code: str
    count: int
    stops: bool
    what: str


@dataclass
class ConventionSums:
    """Sums over all boxes of a split.

    Attributes:
        boxes: finite boxes with a positive width and height; fractions: of them, without a number above 1.1.
        sized: boxes in images of known size; the others are sums over these.
        misfits: by reading ("" = as x, y, width, height), boxes that do not fit their image.
        reach_right, reach_bottom: by scale or reading, boxes that end within the last 20 % of the image's side.
        full_right, full_bottom: by scale or reading, boxes that end within the last 5 %.
        surprise: by scale, the sum of log(scale / side) over the boxes and sides of images that are at least 1.3 times
            as large as the scale: how unlikely it is that pixels never go beyond the scale.
        at_zero, at_one, at_end, past_end: boxes that touch x or y = 0; x or y = 1; the last pixel's far side; the place
            one pixel beyond it.
    """

    boxes: int = 0
    fractions: int = 0
    sized: int = 0
    misfits: dict[str, int] = field(default_factory=dict)
    reach_right: dict[str, int] = field(default_factory=dict)
    reach_bottom: dict[str, int] = field(default_factory=dict)
    full_right: dict[str, int] = field(default_factory=dict)
    full_bottom: dict[str, int] = field(default_factory=dict)
    surprise: dict[str, float] = field(default_factory=dict)
    at_zero: int = 0
    at_one: int = 0
    at_end: int = 0
    past_end: int = 0

    def add(self, bbox: NDArray[np.float64], height: NDArray[np.int32], width: NDArray[np.int32]) -> None:
        """Add boxes.

        Args:
            bbox: float64 [M, 4] as the source gives it: absolute pixels XYWH, or the convention that the sums reveal.
            height: int32 [M], of each box's image, pixels; 0 = unknown.
            width: int32 [M], of each box's image, pixels; 0 = unknown.
        """
        sound = np.isfinite(bbox).all(axis=1) & (bbox[:, 2] > 0) & (bbox[:, 3] > 0)
        bbox, height, width = bbox[sound], height[sound], width[sound]
        self.boxes += len(bbox)
        self.fractions += int(((bbox <= 1.1) & (bbox >= -0.1)).all(axis=1).sum())
        sized = (height > 0) & (width > 0)
        sides = np.column_stack([width, height])[sized].astype(np.float64)
        bbox = bbox[sized]
        self.sized += len(bbox)
        with np.errstate(over="ignore", invalid="ignore"):
            for code, (start, end) in _readings(bbox, sides):
                self._count(code, start, end, sides)
            for code, scale in _SCALES.items():
                start, end = bbox[:, :2], bbox[:, :2] + bbox[:, 2:]
                self._count(code, start, end, np.full_like(sides, scale))
                large = sides >= 1.3 * scale
                self.surprise[code] = self.surprise.get(code, 0.0) + float(np.log(scale / sides[large]).sum())
            end = bbox[:, :2] + bbox[:, 2:]
            self.at_zero += int((bbox[:, :2] <= 0).any(axis=1).sum())
            self.at_one += int((bbox[:, :2] == 1).any(axis=1).sum())
            self.at_end += int((end == sides).any(axis=1).sum())
            self.past_end += int((end == sides + 1).any(axis=1).sum())

    def _count(
        self, code: str, start: NDArray[np.float64], end: NDArray[np.float64], sides: NDArray[np.float64]
    ) -> None:
        """Count the boxes from `start` to `end` that do not fit, and those that reach the far sides: [M, 2] each."""
        margin = _MARGIN * sides + np.minimum(1.0, 0.01 * sides)
        fit = np.asarray(((start >= -margin) & (end <= sides + margin) & (end > start)).all(axis=1))
        self.misfits[code] = self.misfits.get(code, 0) + int((~fit).sum())
        ends = ((0.8, self.reach_right, self.reach_bottom), (0.95, self.full_right, self.full_bottom))
        for share, of_right, of_bottom in ends:
            near = end >= share * sides
            of_right[code] = of_right.get(code, 0) + int((fit & near[:, 0]).sum())
            of_bottom[code] = of_bottom.get(code, 0) + int((fit & near[:, 1]).sum())

    def reaches(self, code: str) -> bool:
        """Whether boxes come near the right and the lower end of a scale or reading, `code`."""
        return self.reach_right.get(code, 0) > 0 and self.reach_bottom.get(code, 0) > 0

    def reaches_end(self, code: str) -> bool:
        """Whether boxes touch, or nearly touch, the right and the lower end of a scale or reading, `code`."""
        return self.full_right.get(code, 0) > 0 and self.full_bottom.get(code, 0) > 0


def _readings(
    bbox: NDArray[np.float64], sides: NDArray[np.float64]
) -> Iterator[tuple[str, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """(code, (start, end)) of each reading; [M, 2] as (x, y), pixels."""
    first, second = bbox[:, :2], bbox[:, 2:]
    yield "", (first, first + second)
    yield "xyxy_boxes", (first, second)
    yield "centre_boxes", (first - second / 2, first + second / 2)
    yield "exchanged_axes", (first[:, ::-1], (first + second)[:, ::-1])
    yield "yxyx_boxes", (first[:, ::-1], second[:, ::-1])
    yield "corners_as_centres", (first + second / 2, first + 1.5 * second)
    yield "pixels_as_fractions", (first / sides, (first + second) / sides)
    yield "percent_as_fractions", (first / 100, (first + second) / 100)


def judge_conventions(sums: ConventionSums) -> BoxConvention | None:
    """The convention that the boxes behind `sums` seem to be in; None if nothing speaks against x, y, width, height in
    pixels.
    """
    if sums.fractions >= _MIN_FRACTIONS and sums.fractions >= 0.02 * sums.boxes:
        return BoxConvention(
            "normalised_boxes",
            sums.fractions,
            sums.fractions >= 0.5 * sums.boxes,
            f"{sums.fractions:,} of {sums.boxes:,} boxes lie between 0 and 1",
        )
    return _judge_scales(sums) or _judge_readings(sums) or _judge_first_pixel(sums)


def _judge_scales(sums: ConventionSums) -> BoxConvention | None:
    """Percentages, or a scale of 1000: no box goes beyond, in images where pixels would."""
    for code in _SCALES:
        fit = sums.sized - sums.misfits.get(code, 0)
        surprise = sums.surprise.get(code, 0.0)
        if surprise <= -12 and fit >= 0.9 * sums.sized >= 0.9 * _MIN_FRACTIONS:
            reaches = sums.reaches(code)
            if reaches or surprise <= -50:  # all objects may lie in one corner of the images
                return BoxConvention(code, fit, reaches and sums.sized >= _MIN_BOXES, _describe_scale(sums, code))
    return None


def _judge_readings(sums: ConventionSums) -> BoxConvention | None:
    """Boxes that do not fit as x, y, width, height, and do in another reading."""
    misfits, boxes = sums.misfits.get("", 0), sums.sized
    if misfits < 3 or misfits < 0.03 * boxes:
        return None
    others = {code: count for code, count in sums.misfits.items() if code}
    for code in (*_SCALES, *_DIVIDED):  # smaller numbers fit any image, and larger images any numbers
        reaches = sums.reaches(code) if code in _DIVIDED else sums.reaches_end(code)
        if not reaches or (code in _DIVIDED and misfits < 0.9 * boxes):
            others.pop(code, None)
    best = min(others, key=lambda code: others[code])
    fit = f"{misfits:,} of {boxes:,} boxes do not fit their images as x, y, width, height"
    strong = boxes >= _MIN_BOXES and misfits >= max(4, 0.05 * boxes)
    if others[best] <= 0.15 * misfits:
        what = _describe_scale(sums, best) if best in _SCALES else f"{fit}; read in this way, {others[best]:,} do not"
        return BoxConvention(best, boxes - others[best], strong, what)
    if misfits >= 0.1 * boxes and strong:
        return BoxConvention("misfit_boxes", misfits, misfits >= 0.5 * boxes, f"{fit}, nor in any other known way")
    return None


def _describe_scale(sums: ConventionSums, code: str) -> str:
    fit = sums.sized - sums.misfits.get(code, 0)
    return f"{fit:,} of {sums.sized:,} boxes end at {_SCALES[code]:g} or before, whatever their images' size"


def _judge_first_pixel(sums: ConventionSums) -> BoxConvention | None:
    """Boxes whose first pixel is number 1, as in Pascal VOC: nothing starts at 0, and many start at 1."""
    if sums.at_zero or sums.sized < 30 or sums.at_one < max(5, 0.05 * sums.sized):
        return None
    ends = sums.past_end if sums.past_end > sums.at_end else sums.at_end
    if not ends:
        return None
    what = f"no box starts at 0, {sums.at_one:,} of {sums.sized:,} start at 1"
    return BoxConvention("one_based_boxes", sums.at_one, False, what)
