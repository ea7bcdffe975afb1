"""Segmenters with tiny SAM checkpoints, and images and boxes for them."""

from __future__ import annotations

import numpy as np

from synthgen import plugins

PLUGIN_PACKAGE = "generate.segmenters"


def build_segmenter(checkpoints, name="sam", **options):
    own = {"checkpoint": checkpoints[name], "device": "cpu", "self_test": False, **options}
    return plugins.build_plugin(PLUGIN_PACKAGE, name, own)


def draw_image(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(5, 30) + y / rng.uniform(5, 30) + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(128 + 90 * np.stack(waves, 2) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def random_boxes(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return (corners * np.array([width, height] * 2)).astype(np.float32)
