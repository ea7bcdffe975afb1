"""Label Studio's encoder of brush masks, written from the description of its format."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIZES = (3, 4, 8, 16)


def encode_brush_rle(mask: NDArray[Any], *, single_values: bool = False) -> list[int]:
    """The bytes of a mask [H, W], whose value is in all four channels, as `mask2rle` of label-studio-converter.

    `single_values`: write blocks of single values where possible, as thi.ng's encoder may.
    """
    values = np.repeat(np.asarray(mask, np.uint8).ravel(), 4).tolist()
    bits = [f"{len(values):032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    if single_values:
        for start in range(0, len(values), 8):
            some = values[start : start + 8]
            bits += ["0", "00", f"{len(some) - 1:03b}", *(f"{value:08b}" for value in some)]
    else:
        for value, run in groupby(values):
            left = len(list(run))
            while left:
                length = min(left, 2**16)
                size = next(i for i, own in enumerate(_SIZES) if length <= 2**own)
                bits += ["1", f"{size:02b}", f"{length - 1:0{_SIZES[size]}b}", f"{value:08b}"]
                left -= length
    text = "".join(bits)
    text += "0" * (8 - len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]
