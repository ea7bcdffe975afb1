"""LabelMe's JSON: its shapes as objects."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import msgspec

from synthgen.formats.readers._label_files import LabelFileError, OtherFormatError, read_label_file
from synthgen.formats.readers._numbers import parse_float, parse_pixels
from synthgen.formats.readers._object_rows import ObjectRows, label_text
from synthgen.formats.readers._shape_groups import ShapeGroups
from synthgen.formats.readers._shapes import (
    Shape,
    box_around,
    box_from_corners,
    ellipse,
    mask_in_window,
    polygon,
    rotated_box,
)
from synthgen.images.decode import ImageError, load_label_map

_MAX_JSON_BYTES = 2**28  # with a copy of the image
_MAX_LENIENT_BYTES = 2**25  # Python's own parser takes twenty times as much memory
_IGNORED_LABELS = frozenset({"__ignore__", "_background_"})


class _File(msgspec.Struct):
    # Loose on purpose: a wrong value makes one shape unreadable, not the file.
    shapes: Any = None
    imagePath: Any = None  # noqa: N815 - the format's name
    imageData: msgspec.Raw = msgspec.Raw()  # noqa: N815 - not decoded
    imageHeight: Any = None  # noqa: N815
    imageWidth: Any = None  # noqa: N815


class LabelMeImage(NamedTuple):
    """A JSON.

    Attributes:
        shapes: as the file has them.
        image_path: with forward slashes; "" if it gives none.
        has_image_data: whether it holds a copy of the image.
        height, width: in pixels; 0 = unknown.
    """

    shapes: list[Any]
    image_path: str
    has_image_data: bool
    height: int
    width: int


def read_labelme_json(path: Path, on_bytes: Callable[[int], None] | None = None) -> LabelMeImage:
    """One JSON; `imageData` is skipped without decoding.

    Args:
        path: untrusted file.
        on_bytes: called with the number of bytes read; None = not called.

    Raises:
        LabelFileError: it is not LabelMe's JSON.
    """
    content = read_label_file(path, _MAX_JSON_BYTES).removeprefix(b"\xef\xbb\xbf")
    if on_bytes is not None:
        on_bytes(len(content))
    try:
        found = msgspec.json.decode(content, type=_File)
        has_data = memoryview(found.imageData).nbytes > len(b"null")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = _decode_leniently(content)
        found = _File(value.get("shapes"), value.get("imagePath"))
        found.imageHeight, found.imageWidth = value.get("imageHeight"), value.get("imageWidth")
        has_data = bool(value.get("imageData"))
    if not isinstance(found.shapes, list):
        raise OtherFormatError("has no list of 'shapes'")
    given = found.imagePath if isinstance(found.imagePath, str) else ""
    return LabelMeImage(
        found.shapes,
        PureWindowsPath(given).as_posix() if given else "",
        has_data,
        parse_pixels(found.imageHeight),
        parse_pixels(found.imageWidth),
    )


def add_shapes(rows: ObjectRows, image_id: int, file_name: str, shapes: list[Any], height: int, width: int) -> None:
    """Add the objects of an image.

    Args:
        rows: gets the objects, and findings about shapes that are none.
        image_id: of an image that was added to `rows`.
        file_name: of the image, for examples of findings.
        shapes: as the JSON lists them; untrusted.
        height: of the image in pixels; 0 = unknown.
        width: of the image in pixels; 0 = unknown.
    """
    objects = ShapeGroups()
    for number, value in enumerate(shapes, start=1):
        one = value if isinstance(value, dict) else {}
        kind, label = _shape_type(one), label_text(one.get("label"))
        if label in _IGNORED_LABELS:
            rows.add_finding("ignored_region", "shapes", file_name, f"shape {number}, {kind} '{label}'")
            continue
        if kind not in _READERS and kind != "mask":
            rows.add_finding("not_an_object", "shapes", file_name, f"shape {number}, {kind} '{label}'")
            continue
        points, flags = _points(one.get("points")), set[str]()
        shape = _READERS[kind](points) if kind != "mask" else _mask(one, points, height, width)
        if kind == "mask" and shape is None:
            shape = _box_of_mask(points)
            flags.add("bad_segmentation")
        if one.get("difficult") is True:
            flags.add("difficult")
        group = one.get("group_id")
        objects.add(label, shape, frozenset(flags), str(group)[:100] if isinstance(group, int | str) else None)
    objects.add_to(rows, image_id, height, width)


def _shape_type(shape: dict[str, Any]) -> str:
    """The type of a shape; early versions write none, and have polygons only."""
    kind = shape.get("shape_type")
    if kind in (None, ""):
        return "polygon"
    return kind if isinstance(kind, str) else "unknown"


def _points(value: object) -> list[float]:
    """x1, y1, x2, y2, ...; NaN for what is not a number."""
    numbers: list[float] = []
    for point in value if isinstance(value, list) else ():
        pair = point if isinstance(point, list) and len(point) == 2 else (math.nan, math.nan)
        numbers += [parse_float(pair[0]), parse_float(pair[1])]
    return numbers


def _rectangle(points: list[float]) -> Shape | None:
    """Two opposite corners in any order; or all four."""
    if len(points) == 8:
        return rotated_box(points)
    return box_around(points) if len(points) == 4 else None


def _circle(points: list[float]) -> Shape | None:
    """A circle of its centre and a point on it."""
    if len(points) != 4:
        return None
    radius = math.hypot(points[2] - points[0], points[3] - points[1])
    return ellipse(points[0], points[1], radius, radius)


_READERS: dict[str, Callable[[list[float]], Shape | None]] = {
    "rectangle": _rectangle,
    "polygon": polygon,
    "quadrilateral": polygon,
    "circle": _circle,
    "oriented_rectangle": rotated_box,
    "rotation": rotated_box,
}


def _mask(shape: dict[str, Any], points: list[float], height: int, width: int) -> Shape | None:
    """A PNG in base64; its first pixel lies at the first point."""
    if len(points) < 2 or not all(map(math.isfinite, points[:2])) or not isinstance(shape.get("mask"), str):
        return None
    try:
        window = load_label_map(io.BytesIO(base64.b64decode(shape["mask"])))
    except (ImageError, binascii.Error, ValueError):
        return None
    return mask_in_window(window, round(points[0]), round(points[1]), height, width)


def _box_of_mask(points: list[float]) -> Shape | None:
    """The box of a mask that cannot be read: its first and last pixel are given."""
    return box_from_corners(points[0], points[1], points[2] + 1, points[3] + 1) if len(points) == 4 else None


def _decode_leniently(content: bytes) -> dict[str, Any]:
    """JSON as Python writes it, with NaN and single halves of surrogate pairs."""
    if len(content) > _MAX_LENIENT_BYTES:
        raise LabelFileError("is not valid JSON in UTF-8")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise LabelFileError("is not valid JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise OtherFormatError("is not an object with 'shapes'")
    return value
