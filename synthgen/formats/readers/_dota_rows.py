"""Reads the rows of DOTA label files: the four corners of a rotated box, its class, whether it is difficult.

    imagesource:GoogleEarth
    gsd:0.146343590398
    2753 2408 2861 2385 2888 2468 2805 2502 plane 0

The first two lines are missing after splitting into tiles. Coordinates are absolute pixels. The format:
https://captain-whu.github.io/DOTA/dataset.html
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from synthgen.formats.readers._label_lines import first_lines

#: A longer name of a class is a row that cannot be read.
MAX_NAME_CHARS = 200

_MAX_LINE_BYTES = 10_000
_HEADER = re.compile(r"(imagesource|gsd|acquisition dates?)\s*:", re.IGNORECASE)
_SEPARATOR = re.compile(r"[\s,]+")

#: Distance in pixels up to which a corner counts as one of the upright box: coordinates in text are rounded.
_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class DotaRow:
    """One line of a label file.

    Attributes:
        name: the class; "" for a row that cannot be read.
        box: XYWH of the upright box around the corners, pixels; NaN for a row that cannot be read.
        is_rotated: the corners are not those of an upright box.
        is_difficult: the row says so.
        line: its number in the file, from 1.
        reason: why it cannot be read; "" if it can.
    """

    name: str
    box: tuple[float, float, float, float]
    is_rotated: bool
    is_difficult: bool
    line: int
    reason: str = ""


def parse_row(data: bytes, line: int) -> DotaRow | None:
    """One line that is not blank; None for a line of the header. A line of another form has a `reason`."""
    if len(data) > _MAX_LINE_BYTES:
        return _broken(line, f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        return _broken(line, "the line is not text in UTF-8")
    if _HEADER.match(text):
        return None
    words = [word for word in _SEPARATOR.split(text) if word]
    if len(words) < 9:
        return _broken(line, f"has {len(words)} values; a row has eight coordinates, a class and 0 or 1")
    corners = parse_corners(words[:8])
    if corners is None:
        return _broken(line, "one of the first eight values is not a number")
    difficulty = _parse_whole(words[-1]) if len(words) > 9 else 0
    if difficulty is None:
        return _broken(line, f"'{words[-1][:24]}' is not 0 or 1, which ends a row")
    # A name of several words is one name.
    name = " ".join(words[8:-1] if len(words) > 9 else words[8:])
    if len(name) > MAX_NAME_CHARS:
        return _broken(line, f"its class has {len(name):,} characters")
    return DotaRow(name, _upright_box(corners), not _is_upright(corners), difficulty > 0, line)


def parse_corners(words: list[str]) -> list[tuple[float, float]] | None:
    """The four corners (x, y) in eight texts; None if they are not finite numbers."""
    try:
        numbers = [math.nan if "_" in word else float(word) for word in words]  # Python reads 1_0 as 10
    except ValueError:
        return None
    if len(numbers) != 8 or not all(map(math.isfinite, numbers)):
        return None
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def looks_like_labels(path: Path) -> bool:
    """Whether a text file begins with rows of DOTA: eight numbers and a name. Reads its start only."""
    for line in first_lines(path) or ():
        words = [word for word in _SEPARATOR.split(line.decode("utf-8", "replace")) if word]
        if len(words) >= 9 and parse_corners(words[:8]) is not None and not _is_number(words[8]):
            return True
    return False


def _upright_box(corners: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*corners, strict=True)
    left, top = min(xs), min(ys)
    return left, top, max(xs) - left, max(ys) - top


def _is_upright(corners: list[tuple[float, float]]) -> bool:
    """Whether each corner of the upright box is one of the given ones."""
    x, y, width, height = _upright_box(corners)
    wanted = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return all(any(abs(a - x1) <= _TOLERANCE and abs(b - y1) <= _TOLERANCE for a, b in corners) for x1, y1 in wanted)


def _parse_whole(word: str) -> int | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 2**31 else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _broken(line: int, reason: str) -> DotaRow:
    nowhere = (math.nan, math.nan, math.nan, math.nan)
    return DotaRow("", nowhere, is_rotated=False, is_difficult=False, line=line, reason=reason)
