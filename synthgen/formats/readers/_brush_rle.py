"""Masks of Label Studio's brush: run lengths of the bits of RGBA pixels (thi.ng's rle-pack).

The list holds bytes. Their bits, the highest first, are: 32 bits for the number of values; 5 bits for the bits of a
value minus 1; four times 4 bits for the bits of a length minus 1; then blocks. A block has 1 bit (1 = a run of one
value, 0 = single values), 2 bits that choose one of the four sizes, a length minus 1 of that size, and one or `length`
values. The values are the red, green, blue and alpha of the pixels, row by row. A pixel is in the mask if its alpha is
not 0.

Format: https://github.com/HumanSignal/label-studio-converter/blob/master/label_studio_converter/brush.py (`decode_rle`)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.images.decode import MAX_IMAGE_PIXELS

_CHANNELS = 4
_MAX_BYTES = 2**22  # some 10 s; the masks of brushes have some 10 kB


def decode_brush_rle(rle: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The mask, bool [H, W].

    Args:
        rle: list of bytes, whole numbers from 0 to 255; untrusted.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        ValueError: it is not such a list, or not of this size.
    """
    if not isinstance(rle, list) or len(rle) > _MAX_BYTES or not 0 < height * width <= MAX_IMAGE_PIXELS:
        raise ValueError("not a list, too long, or the image has no size")
    bits = _Bits(bytes(rle))  # a ValueError or TypeError for anything but 0 to 255
    total = bits.read(32)
    if total != height * width * _CHANNELS:
        raise ValueError(f"it has {total} values, and the image {height * width * _CHANNELS}")
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    ends: list[int] = []  # the value after each run, and whether the run is mask; a single value is a run of 1
    are_mask: list[bool] = []
    position = 0
    while position < total:
        kind = bits.read(3)
        length = bits.read(length_bits[kind & 3]) + 1
        if position + length > total:
            raise ValueError("a run ends after the image")
        if kind & 4:
            position += length
            ends.append(position)
            are_mask.append(bits.read(value_bits) != 0)
        else:
            for _ in range(length):
                position += 1
                ends.append(position)
                are_mask.append(bits.read(value_bits) != 0)
    # The alpha of pixel p is value 4 p + 3, so e values hold the alphas of e // 4 pixels.
    pixels = np.diff(np.array(ends, np.int64) // _CHANNELS, prepend=0)
    return np.repeat(np.array(are_mask), pixels).reshape(height, width)


class _Bits:
    """Reads bits from the highest of the first byte on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def read(self, count: int) -> int:
        """The number in the next `count` bits, at most 32."""
        first, last = self._position // 8, (self._position + count + 7) // 8
        if last > len(self._data):
            raise ValueError("it ends too early")
        number = int.from_bytes(self._data[first:last])
        self._position += count
        return number >> (8 * last - self._position) & ((1 << count) - 1)
