"""Writes PNG files of label maps, masks and coloured segment ids, with texts.

For label maps, this takes a third of the time of Pillow and of OpenCV at the same compression: no row is compared with
the one above it. OpenCV writes no texts.

Format: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEVEL = 3  # of zlib. 6 takes twice the time for half the bytes
_STRIP_PIXELS = 2**20  # pixels that are compressed at once: what is copied for it stays small


def write_png(path: Path, pixels: NDArray[Any], texts: Mapping[str, str]) -> None:
    """Write a greyscale or an RGB PNG. Its folder must exist.

    Args:
        path: the file; it must not exist.
        pixels: uint8 or uint16 [H, W], or uint8 [H, W, 3] RGB; with at least one pixel.
        texts: keyword -> text; each becomes a tEXt chunk. Characters beyond ASCII become question marks.

    Raises:
        FileExistsError: there is such a file.
    """
    height, width = pixels.shape[:2]
    depth, color_type = 8 * pixels.dtype.itemsize, 2 if pixels.ndim == 3 else 0
    with path.open("xb") as file:
        file.write(_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)))
        for keyword, text in texts.items():
            file.write(_chunk(b"tEXt", f"{keyword}\0{text}".encode("ascii", "replace")))
        packer = zlib.compressobj(_LEVEL)
        step = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, step):
            rows = np.ascontiguousarray(pixels[top : top + step], f">u{pixels.dtype.itemsize}")
            lines = np.zeros((len(rows), 1 + rows[0].nbytes), np.uint8)  # each begins with its filter: 0 = none
            lines[:, 1:] = rows.reshape(len(rows), -1).view(np.uint8)
            if packed := packer.compress(lines.tobytes()):
                file.write(_chunk(b"IDAT", packed))
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
