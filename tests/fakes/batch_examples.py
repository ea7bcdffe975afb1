"""An example of random pixels, and a manifest of a small mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fakes import train_layers
from fakes.train_layers import annotation, phrase, row
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.transforms import Example


def make_example(size: tuple[int, int], canvas: tuple[int, int], has_mask: list[bool]) -> Example:
    rng = np.random.default_rng(0)
    n, inside = len(has_mask), (slice(None, size[0]), slice(None, size[1]))
    image = np.full((*canvas, 3), 128, np.uint8)
    image[inside] = rng.integers(0, 256, (*size, 3))
    masks, ignore = np.zeros((sum(has_mask), *canvas), np.bool_), np.zeros(canvas, np.bool_)
    masks[(slice(None), *inside)] = rng.random((sum(has_mask), *size)) < 0.5
    ignore[inside] = rng.random(size) < 0.1
    return Example(
        image=image,
        texts=("a", "b"),
        labels=np.arange(n) % 2,
        boxes_xyxy=np.tile(np.array([[1, 2, 5, 4]], np.float32), (n, 1)),
        has_mask=np.array(has_mask, np.bool_),
        masks=masks,
        mask_weights=np.full(n, 0.5, np.float32),
        ignore=ignore,
        size=size,
        orig_size=(99, 98),
        annotation_ids=tuple((i,) for i in range(n)),
    )


def small_manifest(root: Path, rows: int = 90, **more: Any) -> Manifest:
    """Two sources of a few rows, so that ten batches are more than an epoch of one of them."""
    samples = [row(i, annotation(i, captions=(phrase(f"cat {i}"), phrase("left one")))) for i in range(rows)]
    train_layers.commit(root, samples, shards=2)
    sources = [train_layers.source(root, ratio=2), train_layers.source(root, task="referring")]
    return train_layers.manifest(root, *sources, **more)
