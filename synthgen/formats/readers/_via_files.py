"""VIA's files as images with regions: JSON of projects and exports, and CSV."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from synthgen.errors import SynthgenError
from synthgen.formats.readers._json_members import stream_members
from synthgen.formats.readers._label_files import LabelFileError, open_label_file
from synthgen.formats.readers._numbers import parse_float
from synthgen.formats.readers._object_rows import label_text
from synthgen.formats.readers._shapes import Shape, box_from_size, ellipse, polygon

#: Names of the attribute that is usually the class, the best first.
CLASS_ATTRIBUTES = ("class", "classes", "label", "labels", "category", "name", "names", "type", "object")

_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_MAX_LINE = 2**20  # bytes of a line of a CSV
_MAX_ATTRIBUTES = 10_000


class ViaRegion(NamedTuple):
    """A region as the file has it: its shape, and its attributes; {} for what is not an object."""

    shape: dict[str, Any]
    attributes: dict[str, Any]


class ViaImage(NamedTuple):
    """Some regions of an image; in a CSV, an image comes once for each region.

    Attributes:
        file_name: as the file has it; "" = it gives none.
        regions: in the order of the file.
        problem: why a line of a CSV cannot be read; "" if it can.
    """

    file_name: str
    regions: list[ViaRegion]
    problem: str = ""


def read_via_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> Iterator[ViaImage]:
    """The images of a file, in its order.

    Args:
        path: CSV if its suffix is `.csv`, else JSON; untrusted.
        on_bytes: called with the number of further bytes read, for progress; None = not called.

    Raises:
        SynthgenError: it is not VIA's.
    """
    if path.suffix.lower() == ".csv":
        yield from _read_csv(path, on_bytes)
        return
    for _, value in stream_members(path, "_via_img_metadata", on_bytes):
        if "filename" in value or "regions" in value:  # else settings of a project
            yield ViaImage(label_text(value.get("filename")), _regions(value.get("regions")))


def count_attributes(images: Iterator[ViaImage]) -> tuple[Counter[str], int]:
    """How many regions have a value for each attribute, and how many regions there are."""
    counts: Counter[str] = Counter()
    total = 0
    for image in images:
        for region in image.regions:
            total += 1
            for name, value in region.attributes.items():
                if region_labels(value) and (name in counts or len(counts) < _MAX_ATTRIBUTES):
                    counts[name] += 1
    return counts, total


def choose_class_attribute(counts: Mapping[str, int]) -> str | None:
    """The attribute that is the class: one with a usual name, if at least half as many regions have it as any other.

    Else the one that most regions have; of equals, the first by name.
    """
    if not counts:
        return None
    most = max(counts.values())
    usual = [name for name in counts if name.strip().lower() in CLASS_ATTRIBUTES and 2 * counts[name] >= most]
    if usual:
        return min(usual, key=lambda name: (CLASS_ATTRIBUTES.index(name.strip().lower()), name))
    return min(counts, key=lambda name: (-counts[name], name))


def region_labels(value: object) -> list[str]:
    """The labels in the value of an attribute: a text, a number, or a checkbox with several (name -> true)."""
    if isinstance(value, dict):
        return [label_text(name) for name, chosen in value.items() if chosen is True or chosen == "true"]
    text = label_text(value)
    return [text] if text.strip() else []


def read_via_shape(given: dict[str, Any]) -> tuple[Shape | None, str, bool]:
    """A region's shape, its name, and whether it is an object."""
    name = label_text(given.get("name")) or "unknown"
    x, y, w, h, cx, cy = (parse_float(given.get(key)) for key in ("x", "y", "width", "height", "cx", "cy"))
    match name:
        case "rect" | "rectangle":
            return box_from_size(x, y, w, h), name, True
        case "circle":
            radius = parse_float(given.get("r"))
            return ellipse(cx, cy, radius, radius), name, True
        case "ellipse":
            rx, ry = parse_float(given.get("rx")), parse_float(given.get("ry"))
            return ellipse(cx, cy, abs(rx), abs(ry), parse_float(given.get("theta", 0))), name, True
        case "polygon":
            return polygon(_points(given)), name, True
    return None, name, not given


def _points(given: dict[str, Any]) -> list[float]:
    """x1, y1, x2, y2, ... of two lists of the same length; empty if they are not."""
    xs, ys = given.get("all_points_x"), given.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        return []
    return [parse_float(value) for pair in zip(xs, ys, strict=True) for value in pair]


def _regions(value: object) -> list[ViaRegion]:
    """The regions of an image: a list, or in VIA 1 an object with the keys "0", "1", ..."""
    some = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = []
    for one in some:
        region = one if isinstance(one, dict) else {}
        shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
        found.append(
            ViaRegion(shape if isinstance(shape, dict) else {}, attributes if isinstance(attributes, dict) else {})
        )
    return found


def _read_csv(path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[ViaImage]:
    try:
        with open_label_file(path) as file:
            lines = csv.reader(_lines(file, path, on_bytes))
            header = [name.strip().lstrip("#") for name in _next_line(lines) or []]
            if not set(_COLUMNS) <= set(header):
                missing = ", ".join(name for name in _COLUMNS if name not in header)
                raise SynthgenError(f"{path} has no column {missing} in its first line; is it an export of VIA?")
            columns = [header.index(name) for name in _COLUMNS]
            while (line := _next_line(lines)) is not None:
                if line:
                    yield _csv_image(line, columns, lines.line_num)
    except LabelFileError as why:
        raise SynthgenError(f"{path} {why}; check the path and its permissions") from None


def _next_line(lines: Any) -> list[str] | None:
    """The next line; [""] for one that cannot be parsed, None at the end."""
    try:
        line: list[str] | None = next(lines, None)
    except csv.Error:
        return [""]
    return line


def _csv_image(line: list[str], columns: list[int], number: int) -> ViaImage:
    if max(columns) >= len(line):
        return ViaImage("", [], f"line {number} has {len(line)} columns, or cannot be read")
    name, shape, attributes = (line[column] for column in columns)
    found = ViaRegion(_json_object(shape), _json_object(attributes))
    is_empty = shape.strip() in ("", "{}")  # an image without a region
    return ViaImage(name.encode("utf-8", "replace").decode(), [] if is_empty else [found])


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _lines(file: BinaryIO, path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[str]:
    first = True
    while line := file.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise SynthgenError(f"{path} has a line of more than {_MAX_LINE >> 20} MiB; is it an export of VIA?")
        if on_bytes is not None:
            on_bytes(len(line))
        yield line.decode("utf-8-sig" if first else "utf-8", "replace")
        first = False
