"""Parses numbers as annotation files spell them: in quotes, as floats, or missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def parse_float(value: object) -> float:
    """A number, in quotes or not; NaN otherwise."""
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
    """An integer, in quotes or not, that fits 64 bits; None otherwise."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def parse_pixels(value: object) -> int:
    """A height or a width; 0 = unknown."""
    found = parse_int(value)
    return found if found is not None and 0 < found < 2**31 else 0
