"""Drawn images of noise and gradients, and how they are saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def random_pixels(height: int = 12, width: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save_image(path: Path, pixels: np.ndarray | Image.Image, **how) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **how)
    return path
