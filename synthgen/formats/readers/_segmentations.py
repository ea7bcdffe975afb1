"""Reads the `segmentation` of a COCO-style annotation as exporters write it, and says what is wrong with it.

COCO has lists of polygons [[x1, y1, x2, y2, ...], ...] and RLE {"size": [height, width], "counts": ...}
(https://cocodataset.org/#format-data). Exporters also write one polygon as a flat list of numbers, and polygons as
lists of points [[x, y], ...]. Each of these can be read in one way only, so they are read, and flagged.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers._numbers import parse_floats, parse_pixels
from synthgen.images.decode import MAX_IMAGE_PIXELS
from synthgen.records.rle import MAX_MASK_PIXELS, MAX_POLYGON_PERIMETER, check_polygons, rle_bbox_xyxy, rle_from_coco
from synthgen.records.sample import Rle

_POLYGONS = msgspec.json.Decoder(list[list[float]])
_SUMMARY_MARK, _SUMMARY = b"\x00polygon ", struct.Struct("<4d")  # JSON has no byte 0

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a segmentation says.

    Attributes:
        polygons: float64 [2 * points] each, x1, y1, x2, y2, ..., finite, absolute pixels; None if it has none.
        rle: its run lengths; None if it is no RLE.
        problems: by flag (`ANNOTATION_FLAGS`), the reason.
    """

    polygons: list[NDArray[np.float64]] | None = None
    rle: Rle | None = None
    problems: dict[str, str] | None = None


def draw_segmentation(payload: bytes, height: int, width: int) -> tuple[Rle | None, dict[str, str]]:
    """The mask of a segmentation, and by flag what is wrong with it. The mask is None with "bad_segmentation".

    Args:
        payload: JSON of the segmentation; untrusted.
        height: of the image in pixels; 0 = unknown: then no mask is made.
        width: of the image in pixels; 0 = unknown: then no mask is made.
    """
    if not 0 < height * width <= MAX_IMAGE_PIXELS:
        return None, {"bad_segmentation": "a mask needs the size of its image"}
    try:
        value = _decode(payload)
        if not (isinstance(value, list) and _is_normalised(value, height, width)):
            return rle_from_coco(value, height, width), {}  # the usual spelling
    except Exception:  # noqa: S110 - bad polygons raise many types: TypeError, OverflowError, ...
        pass
    found = read_segmentation(payload, height, width)
    problems = dict(found.problems or {})
    if found.polygons is None:
        return found.rle, problems
    return rle_from_coco([part.tolist() for part in found.polygons], height, width), problems


def summarize_polygon(payload: bytes) -> bytes:
    """What `find_problems` needs of one polygon in COCO's spelling: its limits; any other payload is returned as it is.

    So `synthgen doctor` sorts some 40 bytes by image, not the polygon.
    """
    try:
        parts = _POLYGONS.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return payload
    if len(parts) != 1 or len(parts[0]) < 6 or len(parts[0]) % 2:
        return payload
    x, y = parts[0][::2], parts[0][1::2]
    limits = min(x), max(x), min(y), max(y)
    if len(x) * max(limits[1] - limits[0], limits[3] - limits[2]) > MAX_POLYGON_PERIMETER:
        return payload  # its outline may be too long
    return _SUMMARY_MARK + _SUMMARY.pack(*limits)


def find_problems(payload: bytes, height: int, width: int) -> dict[str, str]:
    """What is wrong with a segmentation: flag of `ANNOTATION_FLAGS` -> reason. Nothing is drawn.

    Args:
        payload: JSON of the segmentation, or what `summarize_polygon` made of it.
        height: of the image in pixels; 0 = unknown: then only what does not depend on it is checked.
        width: of the image in pixels; 0 = unknown, as for `height`.
    """
    if not payload.startswith(_SUMMARY_MARK):
        return dict(read_segmentation(payload, height, width).problems or {})
    left, right, top, bottom = _SUMMARY.unpack(payload[len(_SUMMARY_MARK) :])
    if not (height and width):
        return {}
    if left < -width or right > 2 * width or top < -height or bottom > 2 * height:
        return {"bad_segmentation": f"part 1 of 1 {_far_outside(height, width)}"}
    if min(height, width) > 1 and min(left, top) >= 0 and max(right, bottom) <= 1:
        return {"bad_segmentation": _normalised(height, width)}
    return {}


def find_mask_box(value: object) -> Box | None:
    """The tight box (x, y, width, height) of a decoded segmentation, absolute pixels; None without a readable mask.

    The box of polygons is that of their points, as pycocotools computes it (`COCO.loadRes`). The box of an RLE is that
    of its pixels.
    """
    if value is None or value == [] or value == {}:
        return None
    found = _read_value(value, 0, 0)
    if found.polygons:
        low = np.min([part.reshape(-1, 2).min(axis=0) for part in found.polygons], axis=0).tolist()
        high = np.max([part.reshape(-1, 2).max(axis=0) for part in found.polygons], axis=0).tolist()
        box = (low[0], low[1], high[0] - low[0], high[1] - low[1])
        return box if all(map(math.isfinite, box)) else None
    if found.rle is not None:
        x1, y1, x2, y2 = rle_bbox_xyxy(found.rle)
        return (x1, y1, x2 - x1, y2 - y1) if x2 > x1 else None
    return None


def find_rle_size(payload: bytes) -> tuple[int, int] | None:
    """(height, width) that an RLE states, pixels; None if the payload is no valid RLE."""
    if not payload.startswith(b"{"):
        return None
    rle = read_segmentation(payload, 0, 0).rle
    return rle.size if rle is not None else None


def read_segmentation(payload: bytes, height: int, width: int) -> Segmentation:
    """Read a segmentation in any known spelling; never raises for bad content.

    Args:
        payload: JSON of the segmentation; untrusted.
        height: of the image in pixels; 0 = unknown.
        width: of the image in pixels; 0 = unknown.
    """
    try:
        return _read_value(_decode(payload), height, width)
    except (ValueError, RecursionError):
        return _bad("it is not valid JSON, or nested too deeply")


def _read_value(value: object, height: int, width: int) -> Segmentation:
    try:
        if isinstance(value, list) and value:
            return _read_polygons(value, height, width)
        if isinstance(value, dict):
            return _read_rle(value, height, width)
    except SynthgenError as why:
        return _bad(str(why).removeprefix("segmentation: "))
    except (ValueError, OverflowError, TypeError) as why:
        return _bad(str(why))
    return _bad("it is neither a list of polygons nor an RLE of size and counts")


def _decode(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return json.loads(payload)  # it may have NaN


def _bad(reason: str) -> Segmentation:
    return Segmentation(problems={"bad_segmentation": reason})


# --- Polygons --------------------------------------------------------------------------------------------------------


def _read_polygons(value: list[Any], height: int, width: int) -> Segmentation:
    parts, how = _split_parts(value)
    problems, good = {}, []
    if how:
        problems["flat_polygon"] = how
    for number, part in enumerate(parts, start=1):
        read = _read_part(part, height, width)
        if isinstance(read, np.ndarray):
            good.append(read)
        elif "bad_polygon_part" not in problems:
            problems["bad_polygon_part"] = f"part {number:,} of {len(parts):,} {read}"
    if not good:
        return _bad(problems["bad_polygon_part"])
    if height and width:
        if min(height, width) > 1 and all(part.min() >= 0 and part.max() <= 1 for part in good):
            return _bad(_normalised(height, width))
        check_polygons([part.tolist() for part in good], height, width)
    return Segmentation(polygons=good, problems=problems)


def _split_parts(value: list[Any]) -> tuple[list[Any], str]:
    """The polygons, as lists of numbers; and how they are written, if not as COCO writes them."""
    if not any(isinstance(item, list | dict) for item in value):
        return [value], f"a flat list of {len(value):,} numbers, read as one polygon"
    if _are_points(value):
        return [_flatten(value)], f"a list of {len(value):,} points, read as one polygon"
    points = [_are_points(part) for part in value]
    parts = [_flatten(part) if yes else part for part, yes in zip(value, points, strict=True)]
    return parts, "polygons written as lists of points" if any(points) else ""


def _are_points(part: object) -> bool:
    """Whether it is a list of pairs, and so cannot be a list of polygons."""
    return (
        isinstance(part, list)
        and bool(part)
        and all(isinstance(p, list) and len(p) == 2 and not isinstance(p[0], list | dict) for p in part)
    )


def _flatten(points: list[list[Any]]) -> list[Any]:
    return [number for point in points for number in point]


def _read_part(part: object, height: int, width: int) -> NDArray[np.float64] | str:
    """The numbers of a polygon, or what is wrong with it."""
    if not isinstance(part, list):
        return f"is {_describe(part)}, not a list of numbers"
    if not part:
        return "is empty"
    if len(part) % 2:
        return f"has {len(part):,} numbers, and each point needs two"
    if len(part) < 6:
        return f"has {len(part):,} numbers, and a polygon needs at least three points"
    numbers = parse_floats(part)
    if not np.isfinite(numbers).all():
        return f"has {_describe(part[int(np.argmin(np.isfinite(numbers)))])} where a number should be"
    if height and width:
        xy, size = numbers.reshape(-1, 2), np.array([width, height])
        if not ((xy >= -size) & (xy <= 2 * size)).all():
            return _far_outside(height, width)
    return numbers


def _is_normalised(parts: list[Any], height: int, width: int) -> bool:
    """Whether all coordinates are fractions of a larger image. Stops at the first that is not."""
    return (
        min(height, width) > 1
        and all(isinstance(part, list) for part in parts)
        and all(isinstance(v, int | float) and 0 <= v <= 1 for part in parts for v in part)
    )


def _far_outside(height: int, width: int) -> str:
    return f"lies far outside the image of {width} x {height}"


def _normalised(height: int, width: int) -> str:
    return f"its coordinates look normalised: all lie between 0 and 1, the image is {width} x {height}"


def _describe(value: object) -> str:
    """A value of a JSON file for a message, shortened."""
    kinds = {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value)) or ascii(value)[:40]


# --- RLE -------------------------------------------------------------------------------------------------------------


def _read_rle(value: dict[str, Any], height: int, width: int) -> Segmentation:
    if "counts" not in value:
        return _bad(f"it has no 'counts' (its keys: {', '.join(ascii(key)[:20] for key in list(value)[:5]) or 'none'})")
    size = value.get("size")
    own = [parse_pixels(v) for v in size] if isinstance(size, list) and len(size) == 2 else []
    if not all(own) or not own or own[0] * own[1] > MAX_MASK_PIXELS:
        return _bad("its RLE has no 'size' of height and width")
    if height and width and own == [width, height] != [height, width]:
        return _bad(f"height and width of its RLE are exchanged: {own}, the image is {height} high and {width} wide")
    if height and width and own != [height, width]:
        return _bad(f"its RLE is {own[0]} high and {own[1]} wide, the image is {height} high and {width} wide")
    counts = value["counts"]
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        counts = counts[2:-1].replace("\\\\", "\\")  # Python's spelling of bytes, from str(rle["counts"])
    return Segmentation(rle=rle_from_coco({"size": own, "counts": counts}, own[0], own[1]))
