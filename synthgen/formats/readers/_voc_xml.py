"""Pascal VOC's XML as plain values, and the masks of its objects from `SegmentationObject/`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers._label_regions import split_label_regions
from synthgen.formats.readers._numbers import parse_float, parse_pixels
from synthgen.formats.readers._shapes import (
    BAD_MASK,
    Box,
    Shape,
    box_from_corners,
    polygon,
    rotated_box_around_center,
)
from synthgen.formats.readers._xml_nodes import XmlNode, read_xml
from synthgen.images.decode import ImageError, load_label_map

_MAX_XML_BYTES = 2**26  # of one image; VOC's own have 1 to 20 kB
_VOID = 255
_VOID_BORDER = 5  # pixels that are void around VOC's masks
_MIN_MASK_IOU = 0.5  # of an object's box with the box of its mask, without or with the void border
_TRUE = frozenset({"1", "true", "yes"})
_OWN_DATABASE = re.compile(r"the voc\s?\d{4} database", re.IGNORECASE)
_OWN_ANNOTATION = re.compile(r"pascal voc\s?\d{4}", re.IGNORECASE)
_COORDINATE = re.compile(r"([xy])_?(\d{1,6})")


class VocObject(NamedTuple):
    """An `<object>`.

    Attributes:
        name: its category.
        shapes: one for each box of it; None = the box cannot be read.
        flags: "difficult" as the file says; "bad_segmentation" if a polygon of it cannot be read.
        parts: names of its `<part>` elements.
    """

    name: str
    shapes: list[Shape | None]
    flags: list[str]
    parts: list[str]


class VocImage(NamedTuple):
    """An `<annotation>`: its file name as written, its size in pixels (0 = unknown), its objects."""

    filename: str
    height: int
    width: int
    objects: list[VocObject]


def read_voc_xml(path: Path) -> VocImage:
    """One XML file.

    Args:
        path: untrusted file.

    Raises:
        LabelFileError: it is not such XML.
    """
    root = read_xml(path, "annotation", _MAX_XML_BYTES)
    source = root.find("source")
    counts_from_one = source is not None and bool(
        _OWN_DATABASE.match(source.text_at("database")) or _OWN_ANNOTATION.match(source.text_at("annotation"))
    )
    return VocImage(
        root.text_at("filename"),
        parse_pixels(_whole_text(root.text_at("size", "height"))),
        parse_pixels(_whole_text(root.text_at("size", "width"))),
        [_read_object(node, 1.0 if counts_from_one else 0.0) for node in root.find_all("object")],
    )


def read_object_masks(path: Path, image: VocImage) -> tuple[dict[int, bytes], list[int]]:
    """The masks of a PNG of `SegmentationObject/`.

    Args:
        path: the PNG; untrusted.
        image: content of the XML of the same photograph.

    Returns:
        payloads by the number of the object, from 1; `BAD_MASK` for one that is not its object's, and for all if the
            PNG cannot be read; the numbers in the PNG that no object has.
    """
    everything = range(1, len(image.objects) + 1)
    try:
        regions = split_label_regions(_load_object_numbers(path), {0, _VOID})
    except ImageError:
        return dict.fromkeys(everything, BAD_MASK), []
    payloads: dict[int, bytes] = {}
    surplus = []
    for region in regions:
        if region.label in everything:
            fits = _is_mask_of(region.bbox, image.objects[region.label - 1])
            payloads[region.label] = (Shape(region.bbox, mask=region.mask).payload() if fits else None) or BAD_MASK
        else:
            surplus.append(region.label)
    return payloads, surplus


def _load_object_numbers(path: Path) -> NDArray[np.integer]:
    """The numbers of objects in a PNG, [H, W]: of a palette or grey PNG its values, as VOC writes them.

    In colour, as Datumaro and labelme's scripts may write them, the numbers whose colours these are in VOC's palette.

    Args:
        path: the PNG; untrusted.

    Raises:
        ImageError: not such a PNG.
    """
    try:
        return load_label_map(path)
    except ImageError:
        packed = load_label_map(path, color_coded=True)
    colors = np.array([_voc_color(number) for number in range(256)])
    order = np.argsort(colors)
    places = np.searchsorted(colors[order], packed).clip(max=255)
    if (colors[order][places] != packed).any():
        raise ImageError("has colours that are not in VOC's palette")
    return np.asarray(order[places], np.uint8)


def _voc_color(number: int) -> int:
    """65536 * red + 256 * green + blue of a number in VOC's palette (`VOClabelcolormap` of the development kit)."""
    channels = (sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))
    red, green, blue = channels
    return red << 16 | green << 8 | blue


def _read_object(node: XmlNode, first_pixel: float) -> VocObject:
    shapes: list[Shape | None] = []
    outlines = [polygon(_outline(own)) for own in node.find_all("polygon")]
    drawn = tuple(points for own in outlines if own is not None for points in own.polygons)
    for box in node.find_all("bndbox"):
        x1, y1, x2, y2 = (parse_float(box.text_at(tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
        shapes.append(box_from_corners(x1 - first_pixel, y1 - first_pixel, x2, y2))
    for box in node.find_all("robndbox"):
        numbers = [parse_float(box.text_at(tag)) for tag in ("cx", "cy", "w", "h", "angle")]
        shapes.append(rotated_box_around_center(*numbers))
    if not shapes and drawn:
        shapes.append(polygon([v for outline in drawn for v in outline]))
    if drawn and len(shapes) == 1 and shapes[0] is not None:
        shapes = [shapes[0]._replace(polygons=drawn)]
    flags = ["difficult"] if node.text_at("difficult").lower() in _TRUE else []
    if None in outlines:
        flags.append("bad_segmentation")
    return VocObject(
        _clean(node.find("name")),
        shapes or [None],
        flags,
        [_clean(part.find("name")) for part in node.find_all("part")],
    )


def _outline(node: XmlNode) -> list[float]:
    """The points of a polygon: elements x1, y1, x2, y2, ..., or elements that hold x and y."""
    found: dict[tuple[int, str], float] = {}
    for place, child in enumerate(node.children):
        match = _COORDINATE.fullmatch(child.tag)
        if match:
            found[int(match[2]), match[1]] = parse_float(child.text.strip())
        elif child.children:
            found[place, "x"] = parse_float(child.text_at("x"))
            found[place, "y"] = parse_float(child.text_at("y"))
    numbers = sorted({number for number, _ in found})
    return [found.get((number, axis), math.nan) for number in numbers for axis in "xy"]


def _is_mask_of(bbox: Box, thing: VocObject) -> bool:
    """Whether a mask's box agrees with one of an object's boxes; true for an object without a box."""
    boxes = [shape.bbox for shape in thing.shapes if shape is not None]
    x, y, w, h = bbox
    border = _VOID_BORDER
    grown = (x - border, y - border, w + 2 * border, h + 2 * border)
    return not boxes or max(max(_iou(box, bbox), _iou(box, grown)) for box in boxes) >= _MIN_MASK_IOU


def _iou(a: Box, b: Box) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def _whole_text(text: str) -> str:
    """ "500.0" as "500": some exporters write sizes as floats."""
    number = parse_float(text)
    return str(int(number)) if math.isfinite(number) and number == int(number) else text


def _clean(node: XmlNode | None) -> str:
    return node.text.encode("utf-8", "replace").decode() if node is not None else ""
