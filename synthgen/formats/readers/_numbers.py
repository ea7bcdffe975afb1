"""Parses numbers as annotation files spell them: in quotes, as floats, or missing."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Python's int() and float() also read underscores, outer blanks and digits of other scripts: "1_23" would be 123.
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_WHOLE_AS_FLOAT = re.compile(r"([+-]?[0-9]{1,20})\.0{0,20}")
_NOT_IN_A_NUMBER = re.compile(r"[^!-~]|_")

_MAX_DIGITS = 400  # of a number in quotes; the longest float64 in full has some 330

#: Texts that mean true; files spell a flag as a number, a boolean or a text.
_TRUE = frozenset({"true", "yes", "t", "y"})


def parse_float(value: object) -> float:
    """A number, in quotes or not; NaN otherwise. Blanks around it are no error."""
    if isinstance(value, str):
        value = value.strip(" \t\r\n")
        if len(value) > _MAX_DIGITS or _NOT_IN_A_NUMBER.search(value):
            return math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def parse_floats(values: list[Any]) -> NDArray[np.float64]:
    """`parse_float` of many values, float64 [N]; fast where they are numbers."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            pass
    return np.array([parse_float(value) for value in values], np.float64)


def parse_int(value: object) -> int | None:
    """An integer, in quotes or not, that fits 64 bits; None otherwise.

    In quotes it is ASCII digits with an optional sign, and nothing else. For ids, which may be texts, use
    `_ids.parse_id`.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value):
            return None
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def parse_pixels(value: object) -> int:
    """A height or a width; 0 = unknown. "480.0" is 480."""
    as_float = _WHOLE_AS_FLOAT.fullmatch(value) if isinstance(value, str) else None
    found = parse_int(as_float[1] if as_float else value)
    return found if found is not None and 0 < found < 2**31 else 0


def parse_flag(value: object) -> bool:
    """True for a non-zero number, and for "true" or "yes" in any case; False for anything else.

    NaN, null, lists and objects are False.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE:
        return True
    number = parse_float(value)
    return number != 0 and not math.isnan(number)
