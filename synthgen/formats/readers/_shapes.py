"""Shapes of annotation tools as boxes and masks: rectangles, polygons, ellipses, rotated boxes, small masks.

All coordinates are float pixels of the original image in COCO's continuous frame, in which the image is
[0, width] x [0, height]. Angles are in radians. Their sign does not matter for a box around its own centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.images.decode import MAX_IMAGE_PIXELS
from synthgen.records.rle import encode_mask_window, rle_bbox_xyxy, rle_from_coco
from synthgen.records.rle_ops import rle_union
from synthgen.records.sample import Rle

#: x, y, width, height in pixels.
Box = tuple[float, float, float, float]

#: A payload for `_instances.complete` that is not a mask: it sets the flag `bad_segmentation`.
BAD_MASK = b"0"

_OUTLINE_ERROR = 0.1  # pixels between an ellipse and its polygon
_UPRIGHT = 1e-9  # sine times cosine of an angle, up to which a rotated box is upright
_MAX_COORDINATE = 1e9  # larger numbers are errors, and their squares overflow


class Shape(NamedTuple):
    """One object.

    Attributes:
        bbox: its box.
        polygons: the outlines of its mask, each x1, y1, x2, y2, ...; () = none.
        mask: a mask of the image's size instead.
        rotated: the tool's box or ellipse is rotated, and `bbox` is the upright box around it.
    """

    bbox: Box
    polygons: tuple[list[float], ...] = ()
    mask: Rle | None = None
    rotated: bool = False

    def payload(self) -> bytes | None:
        """The mask as JSON of a COCO `segmentation`; None without a mask."""
        if self.mask is not None:
            return msgspec.json.encode({"size": list(self.mask.size), "counts": self.mask.counts.decode("ascii")})
        return msgspec.json.encode(list(self.polygons)) if self.polygons else None


def box_from_corners(x1: float, y1: float, x2: float, y2: float) -> Shape | None:
    """A box as its corners say. Exchanged corners stay exchanged: the box is then `degenerate`.

    None if a number is missing or absurd.
    """
    return Shape((x1, y1, x2 - x1, y2 - y1)) if _are_usable((x1, y1, x2, y2)) else None


def box_from_size(x: float, y: float, width: float, height: float) -> Shape | None:
    """A box as COCO gives it; None if a number is missing or absurd."""
    return Shape((x, y, width, height)) if _are_usable((x, y, width, height)) else None


def box_around(points: Sequence[float]) -> Shape | None:
    """The upright box around points x1, y1, x2, y2, ...; None if there are fewer than two."""
    if len(points) < 4 or len(points) % 2 or not _are_usable(points):
        return None
    left, top = min(points[::2]), min(points[1::2])
    return Shape((left, top, max(points[::2]) - left, max(points[1::2]) - top))


def polygon(points: Sequence[float]) -> Shape | None:
    """A polygon x1, y1, x2, y2, ... and its tight box; None if it has fewer than three points."""
    around = box_around(points)
    return around._replace(polygons=(list(points),)) if around is not None and len(points) >= 6 else None


def rotated_box(corners: Sequence[float]) -> Shape | None:
    """The upright box around the four corners of a rectangle x1, y1, ..., x4, y4. An upright one is not `rotated`."""
    around = box_around(corners) if len(corners) == 8 else None
    if around is None:
        return None
    (x1, y1), (x2, y2) = corners[0:2], corners[2:4]
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    return around._replace(rotated=abs((x2 - x1) / length * (y2 - y1) / length) > _UPRIGHT)


def rotated_box_around_center(cx: float, cy: float, width: float, height: float, angle: float) -> Shape | None:
    """The upright box around a rectangle that is turned around its centre."""
    if not _are_usable((cx, cy, width, height, angle)):
        return None
    if _is_upright(angle):
        half_turns = round(angle / (math.pi / 2))
        width, height = (width, height) if half_turns % 2 == 0 else (height, width)
        return Shape((cx - width / 2, cy - height / 2, width, height))
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    w, h = width * cos + height * sin, width * sin + height * cos
    return Shape((cx - w / 2, cy - h / 2, w, h), rotated=True)


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Shape | None:
    """An ellipse as a polygon that is at most a tenth of a pixel inside it, with the ellipse's own tight box."""
    if not _are_usable((cx, cy, rx, ry, angle)) or rx <= 0 or ry <= 0:
        return None
    cos, sin = math.cos(angle), math.sin(angle)
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    radius = max(rx, ry)
    count = min(max(math.ceil(math.pi / math.acos(max(1 - _OUTLINE_ERROR / radius, -1.0))), 16), 1024)
    turns = np.arange(count) * (2 * np.pi / count)
    x, y = rx * np.cos(turns), ry * np.sin(turns)
    outline = np.stack([cx + x * cos - y * sin, cy + x * sin + y * cos], axis=1).ravel().tolist()
    box = (cx - half_width, cy - half_height, 2 * half_width, 2 * half_height)
    return Shape(box, (outline,), rotated=not _is_upright(angle) and rx != ry)


def mask_in_window(window: NDArray[Any], left: int, top: int, height: int, width: int) -> Shape | None:
    """A mask that is given for a part of the image; what lies beyond the image is cut off.

    Args:
        window: bool or integers [h, w], non-zero = mask.
        left: first column of the window in the image, in pixels; may be negative.
        top: first row of the window in the image, in pixels; may be negative.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        None if the image has no size or is too large, or if no pixel of the mask is inside.
    """
    if not 0 < height * width <= MAX_IMAGE_PIXELS or min(height, width) <= 0:
        return None
    x1, y1 = max(left, 0), max(top, 0)
    inside = window[y1 - top : max(height - top, 0), x1 - left : max(width - left, 0)]
    if not inside.any():
        return None
    return mask_shape(encode_mask_window(inside, y1, x1, height, width))


def mask_shape(mask: Rle) -> Shape:
    """A mask of the image's size, with its tight box."""
    x1, y1, x2, y2 = rle_bbox_xyxy(mask)
    return Shape((x1, y1, x2 - x1, y2 - y1), mask=mask)


def join(shapes: Sequence[Shape], height: int, width: int) -> Shape:
    """One object of several parts. Polygons stay polygons; with a mask among the parts, all become one mask.

    Args:
        shapes: at least one.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        SynthgenError: a polygon cannot be drawn.
    """
    if len(shapes) == 1:
        return shapes[0]
    rotated = any(shape.rotated for shape in shapes)
    around = box_around([v for x, y, w, h in (shape.bbox for shape in shapes) for v in (x, y, x + w, y + h)])
    if around is None:
        raise SynthgenError("a part has no box")
    if all(shape.mask is None for shape in shapes):
        return Shape(around.bbox, tuple(part for shape in shapes for part in shape.polygons), rotated=rotated)
    masks = [shape.mask or rle_from_coco(list(shape.polygons), height, width) for shape in shapes]
    return Shape(around.bbox, mask=rle_union(masks), rotated=rotated)


def _is_upright(angle: float) -> bool:
    return abs(math.sin(angle) * math.cos(angle)) <= _UPRIGHT


def _are_usable(numbers: Sequence[float]) -> bool:
    return all(-_MAX_COORDINATE <= number <= _MAX_COORDINATE for number in numbers)  # false for NaN as well
