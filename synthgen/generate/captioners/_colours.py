"""Colour names: the eleven basic terms of English (Berlin and Kay, 1969), or none for ambiguous colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Index of a colour -> its name; 0 is no name.
COLOR_NAMES = ("", "black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

#: A region has a colour that covers at least this share.
MIN_COLOR_SHARE = 0.6

#: Sample points of a region along each side.
_GRID_POINTS = 24

#: (hue from, below, lightness from, below, chroma from, below) in OKLCh, degrees and [0, 1]. There are gaps
#: between the focal colours. A colour in a gap, such as turquoise, has no name.
_FOCAL_RANGES: dict[str, list[tuple[float, float, float, float, float, float]]] = {
    "red": [(16, 33, 0.35, 0.70, 0.13, 1)],
    "orange": [(46, 78, 0.66, 0.87, 0.135, 1)],
    "yellow": [(88, 114, 0.76, 1, 0.11, 1)],
    "green": [(122, 170, 0.25, 0.92, 0.06, 1)],
    "blue": [(222, 278, 0.22, 0.90, 0.06, 1)],
    "purple": [(290, 332, 0.22, 0.62, 0.07, 1)],
    "pink": [(338, 360, 0.64, 0.93, 0.055, 1), (0, 16, 0.66, 0.93, 0.055, 1)],
    "brown": [(30, 80, 0.28, 0.52, 0.042, 0.13), (40, 72, 0.28, 0.58, 0.06, 0.14)],
}
#: Below this chroma a colour is achromatic; below this lightness it is black.
_GRAY_MAX_CHROMA, _BLACK_MAX_LIGHTNESS = 0.022, 0.22


def dominant_color(image: NDArray[np.uint8], box_xyxy: NDArray[np.float32]) -> str:
    """The name of the colour that covers most of the middle of a box; "" where no name fits.

    Args:
        image: uint8 [H, W, 3] RGB.
        box_xyxy: float32 [4], absolute pixels; its middle is half of it along each side.
    """
    x1, y1, x2, y2 = (float(v) for v in box_xyxy)
    middle = (np.arange(_GRID_POINTS) + 0.5) / _GRID_POINTS / 2 + 0.25
    columns = np.clip((x1 + (x2 - x1) * middle).astype(np.int64), 0, image.shape[1] - 1)
    rows = np.clip((y1 + (y2 - y1) * middle).astype(np.int64), 0, image.shape[0] - 1)
    counts = np.bincount(classify_colors(image[np.ix_(rows, columns)]).ravel(), minlength=len(COLOR_NAMES))
    best = int(counts.argmax())
    return COLOR_NAMES[best] if counts[best] >= MIN_COLOR_SHARE * counts.sum() else ""


def classify_colors(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number in `COLOR_NAMES` of each colour.

    Args:
        pixels: uint8 [..., 3] sRGB.

    Returns:
        int64 [...].
    """
    lightness, chroma, hue = _oklch(pixels)
    found = np.zeros(lightness.shape, np.int64)
    for name, ranges in _FOCAL_RANGES.items():
        for h1, h2, l1, l2, c1, c2 in ranges:
            inside = (hue >= h1) & (hue < h2) & (lightness >= l1) & (lightness < l2) & (chroma >= c1) & (chroma < c2)
            found[inside] = COLOR_NAMES.index(name)
    grey = chroma < _GRAY_MAX_CHROMA
    found[(grey & (lightness < 0.32)) | (lightness < _BLACK_MAX_LIGHTNESS)] = COLOR_NAMES.index("black")
    found[grey & (lightness >= 0.42) & (lightness < 0.80)] = COLOR_NAMES.index("grey")
    found[grey & (lightness >= 0.90)] = COLOR_NAMES.index("white")
    return found


def _oklch(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """sRGB to lightness [0, 1], chroma, and hue in degrees of OKLab (Ottosson, 2020), where distances look equal."""
    signal = pixels / 255.0
    linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    a, b = lab[..., 1], lab[..., 2]
    return lab[..., 0], np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
