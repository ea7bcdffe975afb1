"""Applies the color steps of a view to pixels: brightness, contrast, saturation, hue, sharpness."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

#: Kernel of Pillow's `ImageFilter.SMOOTH`, which `ImageEnhance.Sharpness` uses as the blurred image.
_SMOOTH_KERNEL = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def apply_color_steps(image: NDArray[np.uint8], steps: tuple[tuple[str, float], ...]) -> NDArray[np.uint8]:
    """Apply steps in order; each result is rounded down to whole levels and clipped to 0..255.

    Args:
        image: uint8 [H, W, 3], RGB; it is not changed.
        steps: (name, amount) each:
            add, multiply: to and by every level (SSD's brightness and contrast; Pillow's `ImageEnhance.Brightness`);
            saturate: HSV saturation times the amount; hue: turned by the amount times two degrees (both SSD's);
            contrast, sharpen: away from the mean grey, away from the smoothed image (Pillow's `ImageEnhance`);
            an amount of 1 changes nothing.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: no such step.
    """
    for name, amount in steps:
        if name == "add":
            image = _apply_table(image, _LEVELS + np.float32(amount))
        elif name == "multiply":
            image = _apply_table(image, _LEVELS * np.float32(amount))
        elif name == "contrast":
            grey = np.floor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)
            image = _apply_table(image, grey + (_LEVELS - grey) * np.float32(amount))
        elif name == "sharpen":
            image = _sharpen(image, amount)
        elif name in ("saturate", "hue"):
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # H is 0..179
            channel = 1 if name == "saturate" else 0
            table = _LEVELS * np.float32(amount) if name == "saturate" else (_LEVELS + round(amount)) % 180
            hsv[..., channel] = _apply_table(np.ascontiguousarray(hsv[..., channel]), table)
            image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
        else:
            raise ValueError(f"no change of colour named '{name}'")
    return image


_LEVELS = np.arange(256, dtype=np.float32)


def _apply_table(levels: NDArray[np.uint8], table: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Replace each level by the entry of a table of 256, clipped and rounded down as the references do."""
    return np.asarray(cv2.LUT(levels, np.clip(table, 0, 255).astype(np.uint8)), np.uint8)


def apply_channel_tables(image: NDArray[np.uint8], tables: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Replace each level of an image by the entry of its channel's table.

    Args:
        image: uint8 [H, W, 3].
        tables: float32 [3, 256], the new value of each level, for each channel.
        out: float32 [3, H, W], filled here; may be a view.
    """
    for plane, table, to in zip(cv2.split(image), tables, out, strict=True):
        cv2.LUT(plane, table, dst=to)


def _sharpen(image: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    smooth = cv2.filter2D(image, -1, _SMOOTH_KERNEL)
    blend = smooth + (image.astype(np.float32) - smooth) * np.float32(amount)
    sharp: NDArray[np.uint8] = np.clip(blend, 0, 255).astype(np.uint8)
    for edge in (np.s_[:1], np.s_[-1:], np.s_[:, :1], np.s_[:, -1:]):  # Pillow does not smooth the border
        sharp[edge] = image[edge]
    return sharp
