"""Numbers as files spell them: what is read, and what Python's int() and float() would read wrongly."""

from __future__ import annotations

import math

import pytest

from synthgen.formats.readers._numbers import parse_flag, parse_float, parse_floats, parse_int, parse_pixels


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7),
        ("7", 7),
        ("-7", -7),
        ("007", 7),
        (7.0, 7),
        (2**63 - 1, 2**63 - 1),
        ("1_23", None),
        ("12_3", None),
        (" 7", None),
        ("7\n", None),
        ("٣", None),
        ("７", None),
        ("7.0", None),
        ("0x7", None),
        ("", None),
        (True, None),
        (None, None),
        (7.5, None),
        (math.nan, None),
        (2**63, None),
        ("9" * 5000, None),
        ([7], None),
    ],
)
def test_whole_numbers(value, number):
    assert parse_int(value) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1.5, 1.5),
        ("1.5", 1.5),
        (" 1.5 ", 1.5),
        ("-1e3", -1000.0),
        ("inf", math.inf),
        ("1_0", None),
        ("٣.٥", None),
        ("1,5", None),
        ("", None),
        (True, None),
        (None, None),
        (10**400, None),
        ("1" * 1_000_000, None),
    ],
)
def test_numbers(value, number):
    found = parse_float(value)
    assert math.isnan(found) if number is None else found == number
    assert parse_floats([value, 2])[1] == 2.0


@pytest.mark.parametrize(
    ("value", "pixels"),
    [(480, 480), ("480", 480), (480.0, 480), ("480.0", 480), ("480.5", 0), ("4_80", 0), (-1, 0), (2**31, 0), (None, 0)],
)
def test_sizes(value, pixels):
    assert parse_pixels(value) == pixels


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "true", "True", " yes ", 2, -1])
def test_flags_that_are_set(value):
    assert parse_flag(value)


@pytest.mark.parametrize(
    "value", [0, 0.0, False, "0", "0.0", "false", "no", "", None, [], [1], {"a": 1}, math.nan, "1_0", "maybe"]
)
def test_flags_that_are_not_set(value):
    assert not parse_flag(value)
