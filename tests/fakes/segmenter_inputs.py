"""Images and boxes for segmenters."""

from __future__ import annotations

import numpy as np


def draw_ellipse(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """A red ellipse on noisy blue, at 30 to 70 % of the image's sides."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    disc = np.hypot(y - 0.5, x - 0.5) < 0.2
    return np.where(disc[..., None], (200, 40, 40), rng.integers(60, 140, (height, width, 3)) * (0.4, 0.6, 1)).astype(
        np.uint8
    )


def box_array(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def random_boxes(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sides = np.sort(rng.random((count, 2, 2)), axis=1) * (width, height)  # two corners, x and y
    sides[:, 1] = np.minimum(np.maximum(sides[:, 1], sides[:, 0] + 0.5), (width, height))
    sides[:, 0] = np.minimum(sides[:, 0], sides[:, 1] - 0.25)
    return sides.reshape(-1, 4).astype(np.float32)


def segment_one(segmenter, image, prompts):
    (found,) = segmenter.segment([image], [prompts])
    return found
