"""Resizes images, or a window of the resized image, with antialiasing: pixel for pixel as Pillow and detectron2."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
    *,
    bicubic: bool = False,
) -> NDArray[np.uint8]:
    """A window of the resized image. The cost depends on the window.

    The whole image as one window equals Pillow's `resize(..., BILINEAR)`, or BICUBIC, bit for bit. A smaller window may
    differ where the exact value is halfway between two levels: Pillow stores the position of a window in 32 bits, so
    such a value may be rounded the other way.

    Args:
        image: uint8 [H, W, 3].
        size: (height, width) of the whole image after resizing, in pixels.
        window: (top, left, height, width) in pixels of the resized image, within it; None = all of it.
        bicubic: Pillow's BICUBIC instead of BILINEAR.

    Returns:
        uint8 [height, width, 3] of the window; read-only, as it may be the image itself.
    """
    top, left, height, width = window or (0, 0, *size)
    pixels = 2 if bicubic else 1
    rows, y1, y2 = _source_span(top, height, size[0], image.shape[0], pixels)
    columns, x1, x2 = _source_span(left, width, size[1], image.shape[1], pixels)
    if size == image.shape[:2]:
        return np.ascontiguousarray(image[top : top + height, left : left + width])
    seen = Image.fromarray(np.ascontiguousarray(image[rows, columns]))
    how = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    return np.asarray(seen.resize((width, height), how, box=(x1, y1, x2, y2)))


def _source_span(start: int, length: int, new: int, old: int, filter_radius: int) -> tuple[slice, float, float]:
    """The source pixels of a window along one axis: the slice of the image, and the window's ends in it.

    The filter reaches `filter_radius` new pixels, but at least as many old ones, beyond the window's ends.
    """
    begin, end = start * old / new, (start + length) * old / new
    reach = filter_radius * max(old / new, 1) + 1
    first, last = max(0, math.floor(begin - reach)), min(old, math.ceil(end + reach))
    return slice(first, last), begin - first, min(end - first, last - first)
