"""Bitmasks: images whose four channels hold numbers, not colours, such as the class and the object of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthgen.images.decode import convert_strips, decode_numbers
from synthgen.images.image_error import ImageError
from synthgen.images.packed import ImageSource


def load_bitmask(path: ImageSource) -> NDArray[np.uint32]:
    """Decode a PNG with four channels: 2**24 * red + 2**16 * green + 2**8 * blue + alpha, uint32 [H, W].

    Args:
        path: a file, or an image in an archive; untrusted.

    Raises:
        ImageError: missing, truncated, too large, or not a PNG with four channels of eight bits.
    """
    return decode_numbers(path, _check_is_bitmask, lambda image: convert_strips(image, _pack_channels))


def _check_is_bitmask(image: Image.Image) -> None:
    if image.format != "PNG" or image.mode != "RGBA":
        raise ImageError(f"is a {image.format} of mode {image.mode}, and a bitmask is a PNG of mode RGBA")


def _pack_channels(strip: Image.Image) -> NDArray[np.uint32]:
    """The four bytes of each pixel as one number, the first byte the highest."""
    return np.ascontiguousarray(np.asarray(strip)).view(">u4")[..., 0].astype(np.uint32)
