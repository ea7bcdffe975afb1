"""Runs of small numbers and plain byte strings."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.images.parquet_encodings import decode_levels, split_plain


def bit_packed(values: list[int], width: int) -> bytes:
    """Groups of eight, the first value in the lowest bits."""
    values = values + [0] * (-len(values) % 8)
    number = sum(value << (i * width) for i, value in enumerate(values))
    return bytes([(len(values) // 8) << 1 | 1]) + number.to_bytes(len(values) * width // 8, "little")


def run(value: int, count: int, width: int) -> bytes:
    return bytes([count << 1]) + value.to_bytes(-(-width // 8), "little")


@given(
    width=st.integers(1, 20),
    parts=st.lists(st.tuples(st.booleans(), st.integers(0, 2**20), st.integers(1, 5)), min_size=1, max_size=6),
)
def test_runs_and_groups(width: int, parts: list[tuple[bool, int, int]]) -> None:
    data, expected = b"", []
    for is_run, seed, count in parts:
        values = [(seed * (i * (not is_run) + 1)) % 2**width for i in range(count if is_run else 8 * count)]
        data += run(values[0], count, width) if is_run else bit_packed(values, width)
        expected += values
    assert decode_levels(data, width, len(expected)).tolist() == expected
    assert decode_levels(data, width, 1).tolist() == expected[:1]
    with pytest.raises(IndexError):
        decode_levels(data, width, len(expected) + 1)


@pytest.mark.parametrize("data", [b"", b"\x00\x01", b"\xff" * 20, b"\x03"])
def test_damaged_runs_are_errors(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        decode_levels(data, 1, 8)
    with pytest.raises(ValueError, match="32 bits"):
        decode_levels(data, 33, 8)


def test_plain_values() -> None:
    data = b"".join(struct.pack("<I", len(value)) + value for value in (b"a", b"", b"bcd"))
    assert split_plain(memoryview(data), 3) == [b"a", b"", b"bcd"]
    for wrong, count in ((data, 4), (data[:-1], 3), (data, 2**40), (b"\xff\xff\xff\xff", 1)):
        with pytest.raises((ValueError, struct.error)):
            split_plain(memoryview(wrong), count)
