"""Contact sheets: many pictures on one image of limited size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: A sheet is at most this wide, in pixels, and about as high.
_MAX_SHEET_WIDTH = 4800


def make_thumbnail(picture: NDArray[np.uint8], *, num_pictures: int, width: int = 640) -> NDArray[np.uint8]:
    """A picture scaled for a contact sheet of `num_pictures`: `width` pixels wide, or less on a full sheet.

    Keep only thumbnails, so that many pictures need little memory.

    Args:
        picture: uint8 [H, W, 3] RGB.
        num_pictures: how many pictures the sheet will hold.
        width: of the result, in pixels, at most.
    """
    width = min(width, max(1, _MAX_SHEET_WIDTH // _num_columns(num_pictures)))
    size = width, max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def make_contact_sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One contact sheet of thumbnails, row by row: uint8 [H, W, 3].

    Args:
        pictures: uint8 [h, w, 3] RGB each, all of one width.
    """
    columns, width = _num_columns(len(pictures)), pictures[0].shape[1] if len(pictures) else 1
    small = [Image.fromarray(p) for p in pictures]
    rows = [small[i : i + columns] for i in range(0, len(small), columns)]
    heights = [max(p.height for p in row) for row in rows]
    page = Image.new("RGB", (width * min(columns, max(len(small), 1)), max(sum(heights), 1)), (24, 24, 24))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for place, one in enumerate(row):
            page.paste(one, (place * width, top))
        top += height
    return np.asarray(page)


def _num_columns(count: int) -> int:
    return max(1, math.ceil(math.sqrt(count)))
