"""Masks of Label Studio's brush: run lengths of bits."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from fakes.brush_rle import encode_brush_rle
from hypothesis import given
from hypothesis import strategies as st

from synthgen.formats.readers._brush_rle import decode_brush_rle


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1), st.booleans())
def test_any_mask_comes_back(height, width, share, seed, single_values):
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < share) * rng.integers(1, 256)
    found = decode_brush_rle(encode_brush_rle(mask, single_values=single_values), height, width)
    assert found.shape == (height, width) and (found == (mask > 0)).all()


def test_a_long_run_is_several_blocks():
    mask = np.ones((300, 400), np.uint8)
    assert decode_brush_rle(encode_brush_rle(mask), 300, 400).all()


def test_only_alpha_counts():
    """A pixel of 4 values: red 9, green 9, blue 9, alpha 0; and one with alpha 9 only."""
    bits = f"{8:032b}" + f"{7:05b}" + "0010" * 4
    bits += "1" + "00" + "010" + f"{9:08b}" + "0" + "00" + "000" + f"{0:08b}"
    bits += "1" + "00" + "010" + f"{0:08b}" + "0" + "00" + "000" + f"{9:08b}"
    bits += "0" * (-len(bits) % 8)
    found = decode_brush_rle([int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)], 1, 2)
    assert found.tolist() == [[False, True]]


@given(st.lists(st.integers(0, 255), max_size=60))
def test_bytes_of_strangers_are_a_mask_or_a_value_error(some):
    head = [0, 0, 0, 4 * 6, *encode_brush_rle(np.zeros((2, 3)))[4:7]]
    with contextlib.suppress(ValueError):
        assert decode_brush_rle(head + some, 2, 3).shape == (2, 3)


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (2, 4), (2**20, 2**20)])
def test_another_size_is_refused(size):
    with pytest.raises(ValueError, match=r"size|values"):
        decode_brush_rle(encode_brush_rle(np.zeros((2, 3))), *size)
