"""Masks for Label Studio's brush; `synthgen.formats.readers._brush_rle` describes and reads the format.

A mask becomes the bytes that `encode_rle` of label-studio-converter gives, without the zero byte that it appends where
the bits fill the last one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthgen.records.rle import MaskWindow

_CHANNELS = 4
_MASK = 255  # the value of the red, green, blue and alpha of a pixel in the mask
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_HEADER_BITS = 32 + 5 + 4 * len(_LENGTH_BITS)


def encode_brush_rle(window: MaskWindow, height: int, width: int) -> list[int]:
    """The bytes of a mask: numbers from 0 to 255.

    Args:
        window: the mask.
        height: of the image, in pixels; the window lies within.
        width: of the image, in pixels.
    """
    total = height * width * _CHANNELS
    ends = _run_ends(window, width)
    runs = np.diff(np.append(ends * _CHANNELS, total), prepend=0)  # background first; only that run may be empty
    is_mask = np.arange(runs.size) % 2 == 1
    runs, is_mask = runs[runs > 0], is_mask[runs > 0]
    # A block holds at most 2^16 values, so a longer run takes several: full ones, then the rest.
    most = 1 << _LENGTH_BITS[-1]
    blocks = -(-runs // most)
    is_last = np.zeros(int(blocks.sum()), np.bool_)
    is_last[np.cumsum(blocks) - 1] = True
    lengths = np.where(is_last, np.repeat(runs - (blocks - 1) * most, blocks), most)
    kind = np.searchsorted([1 << bits for bits in _LENGTH_BITS], lengths)
    bits = np.array(_LENGTH_BITS)[kind]
    values = np.repeat(is_mask, blocks) * _MASK
    codes = ((4 + kind << bits) + lengths - 1 << _VALUE_BITS) + values  # 4 = a run of one value
    sizes = 3 + bits + _VALUE_BITS
    header = total
    for count, size in ((_VALUE_BITS - 1, 5), *((one - 1, 4) for one in _LENGTH_BITS)):
        header = header << size | count
    return np.packbits(_bits(np.append(header, codes), np.append(_HEADER_BITS, sizes))).tolist()


def _run_ends(window: MaskWindow, width: int) -> NDArray[np.int64]:
    """Where mask begins and where it ends, by turns, row by row, in pixels of the image: int64 [2 * R]."""
    rows = np.pad(window.pixels, ((0, 0), (1, 1)))  # no run leaves its row
    row, column = np.nonzero(rows[:, 1:] != rows[:, :-1])
    ends = (row + window.top) * width + column + window.left
    # A run at the end of a row continues at the start of the next one if the window is as wide as the image.
    joined = np.flatnonzero(ends[1:] == ends[:-1])
    return np.delete(ends, [*joined, *(joined + 1)])


def _bits(numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The lowest bits of each number, the highest of them first: uint8 [sum of `sizes`], 0 or 1."""
    ends = np.cumsum(sizes)
    place = np.repeat(ends, sizes) - 1 - np.arange(ends[-1])
    return (np.repeat(numbers, sizes) >> place & 1).astype(np.uint8)
