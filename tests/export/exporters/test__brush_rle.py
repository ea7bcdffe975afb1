"""Label Studio's brush: the decoder gives back the mask, and the bytes are those of Label Studio's own encoder."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from fakes.brush_rle import encode_brush_rle as encode_as_described
from hypothesis import given
from numpy.typing import NDArray

from synthgen.export.exporters._brush_rle import encode_brush_rle
from synthgen.formats.readers._brush_rle import decode_brush_rle
from synthgen.records.rle import decode_mask_window, encode_mask

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def encode(mask: NDArray[np.bool_]) -> list[int]:
    return encode_brush_rle(decode_mask_window(encode_mask(mask)), *mask.shape)


@given(MASKS)
def test_the_decoder_gives_back_the_mask(mask: NDArray[np.bool_]) -> None:
    assert (decode_brush_rle(encode(mask), *mask.shape) == mask).all()


@given(MASKS)
def test_the_bytes_are_those_of_label_studio(mask: NDArray[np.bool_]) -> None:
    theirs = encode_as_described(mask * 255)
    own = encode(mask)
    assert own == theirs[: len(own)] and theirs[len(own) :] in ([], [0])


@pytest.mark.parametrize("pixels", [1, 2, 4, 64, 2**14 - 1, 2**14, 2**14 + 1, 3 * 2**14])
@pytest.mark.parametrize("value", [False, True])
def test_runs_at_the_limits_of_a_block(pixels: int, value: bool) -> None:
    """A block holds at most 2^16 values, which are four a pixel."""
    mask = np.full((2, pixels), value)
    mask[1] = not value
    assert (decode_brush_rle(encode(mask), 2, pixels) == mask).all()
    assert encode(mask) == encode_as_described(mask * 255)[: len(encode(mask))]
