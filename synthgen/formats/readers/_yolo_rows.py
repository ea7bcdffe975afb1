"""Reads the rows of YOLO label files: boxes, polygons, rotated boxes and keypoints, one object a line.

The forms are those of Ultralytics (https://docs.ultralytics.com/datasets/detect/, /segment/, /obb/, /pose/). All
numbers are fractions of the image's width and height:

    class cx cy w h [confidence]           a box: its centre and size
    class x1 y1 x2 y2 x3 y3 ...            a polygon of three or more points; a rotated box is one of four
    class cx cy w h px py [v] px py [v]    a box with keypoints, where `kpt_shape` in data.yaml says how many
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from synthgen.formats.readers._label_lines import first_lines, read_label_lines

#: A longer line is a row that cannot be read.
MAX_LINE_BYTES = 2**20

#: A value beyond this is not a fraction of the image, but pixels or percent.
_MAX_FRACTION = 1.5


class RowKind(IntEnum):
    """What the numbers of a row are."""

    BROKEN = 0
    BOX = 1
    BOX_WITH_CONFIDENCE = 2
    BOX_WITH_KEYPOINTS = 3
    POLYGON = 4


@dataclass(frozen=True, slots=True)
class YoloRow:
    """One line of a label file.

    Attributes:
        kind: what it holds.
        class_id: its class; None if that cannot be read.
        box: x, y, width, height as fractions of the image, x and y of the upper left corner; NaN for a broken row.
        polygon: x1, y1, x2, y2, ... as fractions of the image.
        line: its number in the file, from 1.
        reason: why it cannot be read.
        is_fraction: no value is far beyond the image, as values in pixels or percent are.
    """

    kind: RowKind
    class_id: int | None
    box: tuple[float, float, float, float]
    line: int
    polygon: Sequence[float] = ()
    reason: str = ""
    is_fraction: bool = True


_NO_BOX = (math.nan, math.nan, math.nan, math.nan)


def read_label_file(path: Path, kpt_shape: tuple[int, int] | None = None) -> tuple[list[YoloRow], int] | None:
    """The rows of a label file and its size in bytes; None if there is no such file. Blank lines are skipped.

    Args:
        path: untrusted; may be missing.
        kpt_shape: (keypoints, numbers of each) of the dataset; a row of that length is a box with keypoints.

    Raises:
        LabelFileError: it is not a file, is too large, or is not text.
    """
    found = read_label_lines(path)
    if found is None:
        return None
    lines, size = found
    return [parse_row(line, number, kpt_shape) for number, line in lines], size


def parse_row(line: bytes, number: int, kpt_shape: tuple[int, int] | None = None) -> YoloRow:
    """One line that is not blank; a line of another form gives a row of the kind BROKEN with a reason."""
    if len(line) > MAX_LINE_BYTES:
        return _broken(number, f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
    first, *rest = line.split()
    class_id = _parse_class(first)
    if class_id is None:
        if not rest and line.count(b",") >= 4:
            return _broken(number, "its values are separated by commas; separate them by blanks")
        return _broken(number, f"{_show(first)} is not a class number")
    try:
        if b"_" in line:  # Python reads 1_0 as 10
            raise ValueError
        values = tuple(map(float, rest))
    except ValueError:
        return _broken(number, _explain(rest), class_id)
    if not all(map(math.isfinite, values)):
        return _broken(number, "a value is not finite", class_id)
    fraction = not values or max(map(abs, values[:4] if len(values) <= 5 else values)) <= _MAX_FRACTION
    count = len(values)
    if kpt_shape is not None and count == 4 + kpt_shape[0] * kpt_shape[1]:
        fraction = max(map(abs, values[:4])) <= _MAX_FRACTION
        return YoloRow(RowKind.BOX_WITH_KEYPOINTS, class_id, _corner_box(values), number, is_fraction=fraction)
    if count in (4, 5):
        kind = RowKind.BOX if count == 4 else RowKind.BOX_WITH_CONFIDENCE
        return YoloRow(kind, class_id, _corner_box(values), number, is_fraction=fraction)
    if _look_like_keypoints(values):
        return _broken(number, "its values look like keypoints; write kpt_shape into data.yaml", class_id)
    if count >= 6 and count % 2 == 0:
        box = _tight_box(values)
        packed = array("d", values)  # a quarter of the memory
        return YoloRow(RowKind.POLYGON, class_id, box, number, packed, is_fraction=fraction)
    form = "a box has 4, a polygon an even number from 6 on"
    return _broken(number, f"has {count} values after the class; {form}", class_id)


def looks_like_labels(path: Path) -> bool | None:
    """Whether a text file begins with a YOLO row; None if it is empty. Reads its start only."""
    filled = first_lines(path)
    if filled is None:
        return False
    return any(map(_starts_like_row, filled)) if filled else None


def _starts_like_row(line: bytes) -> bool:
    """Whether a line has a class and four or more numbers."""
    words = line.split()
    try:
        return len(words) >= 5 and _parse_class(words[0]) is not None and all(map(math.isfinite, map(float, words)))
    except ValueError:
        return False


def _parse_class(word: bytes) -> int | None:
    """A class number, which some exporters write as `0.0`; None if it is none."""
    try:
        value = float(word) if word.isascii() and b"_" not in word else math.nan
    except ValueError:
        return None
    return int(value) if abs(value) < 2**31 and value.is_integer() else None


def _corner_box(values: tuple[float, ...]) -> tuple[float, float, float, float]:
    cx, cy, width, height = values[:4]
    return cx - width / 2, cy - height / 2, width, height


def _tight_box(values: tuple[float, ...]) -> tuple[float, float, float, float]:
    xs, ys = values[::2], values[1::2]
    left, top = min(xs), min(ys)
    return left, top, max(xs) - left, max(ys) - top


def _look_like_keypoints(values: tuple[float, ...]) -> bool:
    """Whether values behind a box are x, y, visibility with a visibility of 2, which is no fraction of an image."""
    seen = values[6::3]
    return len(values) >= 7 and (len(values) - 4) % 3 == 0 and 2.0 in seen and set(seen) <= {0.0, 1.0, 2.0}


def _explain(words: list[bytes]) -> str:
    """Why one of the words is not a number."""
    for word in words:
        try:
            if b"_" not in word:
                float(word)
                continue
        except ValueError:
            pass
        comma = "; write a point, not a comma, before the decimals" if b"," in word else ""
        return f"{_show(word)} is not a number{comma}"
    return "a value is not a number"


def _show(word: bytes) -> str:
    return f"'{word[:24].decode('utf-8', 'replace')}{'...' if len(word) > 24 else ''}'"


def _broken(number: int, reason: str, class_id: int | None = None) -> YoloRow:
    return YoloRow(RowKind.BROKEN, class_id, _NO_BOX, number, reason=reason)
