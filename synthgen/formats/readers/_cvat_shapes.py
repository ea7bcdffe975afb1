"""CVAT's shapes as objects: boxes, polygons, ellipses, masks, cuboids."""

from __future__ import annotations

import math

import numpy as np

from synthgen.formats.readers._numbers import parse_float, parse_int
from synthgen.formats.readers._shapes import (
    Shape,
    box_around,
    box_from_corners,
    ellipse,
    mask_in_window,
    polygon,
    rotated_box_around_center,
)
from synthgen.formats.readers._xml_nodes import XmlNode
from synthgen.images.decode import MAX_IMAGE_PIXELS

_CUBOID_CORNERS = [f"{axis}{corner}{face}" for face in "12" for corner in ("tl", "bl", "tr", "br") for axis in "xy"]


def read_cvat_shape(node: XmlNode, height: int, width: int) -> tuple[Shape | None, frozenset[str], bool]:
    """A shape, its flags, and whether it is an object.

    Args:
        node: XML element of a shape.
        height: of the image in pixels; 0 = unknown.
        width: of the image in pixels; 0 = unknown.
    """
    given = node.attributes
    match node.tag:
        case "box":
            return _read_box(given), frozenset(), True
        case "polygon":
            return polygon(_read_points(given.get("points", ""))), frozenset(), True
        case "ellipse":
            cx, cy, rx, ry = (parse_float(given.get(key)) for key in ("cx", "cy", "rx", "ry"))
            return ellipse(cx, cy, abs(rx), abs(ry), _angle(given)), frozenset(), True
        case "cuboid":
            return box_around([parse_float(given.get(key)) for key in _CUBOID_CORNERS]), frozenset(), True
        case "mask":
            shape = _read_mask(given, height, width)
            if shape is not None:
                return shape, frozenset(), True
            left, top, w, h = (parse_float(given.get(key)) for key in ("left", "top", "width", "height"))
            return box_from_corners(left, top, left + w, top + h), frozenset({"bad_segmentation"}), True
    return None, frozenset(), False


def _read_box(given: dict[str, str]) -> Shape | None:
    """A box by its corners, turned around its centre."""
    x1, y1, x2, y2 = (parse_float(given.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = _angle(given)
    if angle == 0:
        return box_from_corners(x1, y1, x2, y2)
    return rotated_box_around_center((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, angle)


def _angle(given: dict[str, str]) -> float:
    return math.radians(parse_float(given.get("rotation", "0")))


def _read_points(text: str) -> list[float]:
    """ "x1,y1;x2,y2" as x1, y1, x2, y2; NaN for what is not a number."""
    numbers: list[float] = []
    for pair in text.split(";") if text.strip() else ():
        x, _, y = pair.partition(",")
        numbers += [parse_float(x), parse_float(y)]
    return numbers


def _read_mask(given: dict[str, str], height: int, width: int) -> Shape | None:
    """A mask in its own window: alternating runs of background and mask, row by row."""
    left, top, w, h = (parse_int(given.get(key)) for key in ("left", "top", "width", "height"))
    if left is None or top is None or w is None or h is None or w <= 0 or h <= 0 or w * h > MAX_IMAGE_PIXELS:
        return None
    try:
        runs = np.array(list(map(int, given.get("rle", "").split(","))), np.int64)
    except (ValueError, OverflowError):
        return None
    if runs.min() < 0 or runs.max() > w * h or int(runs.sum()) != w * h:
        return None
    window = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    return mask_in_window(window, left, top, height, width)
