"""Structs in Thrift's compact protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.images.thrift_compact import parse_struct


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint(value * 2 if value >= 0 else -value * 2 - 1)


def test_each_type() -> None:
    data = (
        b"\x11\x12"  # true and false: the type is the value
        + b"\x13\x07"  # one byte
        + b"\x15" + zigzag(-3)
        + b"\x18\x02ab"
        + b"\x19\x25" + zigzag(5) + zigzag(-6)  # two numbers
        + b"\x1c\x15" + zigzag(9) + b"\0"  # a struct
        + b"\x06" + zigzag(40) + zigzag(2**40)  # a field with a number of its own
        + b"\x17" + b"\0\0\0\0\0\0\xf8\x3f\0"
    )  # fmt: skip
    fields, used = parse_struct(data + b"rest")
    assert fields == {1: True, 2: False, 3: 7, 4: -3, 5: b"ab", 6: [5, -6], 7: {1: 9}, 40: 2**40, 41: 1.5}
    assert used == len(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_struct_or_an_error(data: bytes) -> None:
    try:
        _, used = parse_struct(data)
        assert 0 < used <= len(data)
    except (IndexError, ValueError):
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"\x1c" * 40,  # structs in structs
        b"\x19" * 40,  # lists in lists
        b"\x19\xf3" + varint(2**40) + b"\1" * 2_000,  # a list that says it has very many members
        b"\x15" + b"\xff" * 30,  # a number without end
        b"\x1b\x00",  # a map, which Parquet does not use
    ],
)
def test_nesting_numbers_and_lists_are_bounded(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_struct(data)


def test_a_struct_that_goes_on_is_told_from_a_damaged_one() -> None:
    for data in (b"", b"\x15", b"\x18\x09abc", b"\x15\x02"):
        with pytest.raises(IndexError):
            parse_struct(data)
