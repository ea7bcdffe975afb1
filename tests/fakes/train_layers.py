"""Layers for the readers of `synthgen.dataloading`: any number of rows, all of one small photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthgen.dataloading.augment import AugmentConfig
from synthgen.dataloading.config import DataLoaderConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.source_config import TrainSource
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Caption, Rle, Sample
from synthgen.storage.shard_store import Shard, ShardStore

HEIGHT, WIDTH = 12, 16
PHOTO = "photo.png"
CATEGORIES = ("cat", "dog", "cup")


def mask(x1: int, y1: int, x2: int, y2: int) -> Rle:
    """A rectangle's pixels."""
    drawn = np.zeros((HEIGHT, WIDTH), np.bool_)
    drawn[y1:y2, x1:x2] = True
    return encode_mask(drawn)


def annotation(number: int, category: str = "cat", **more: Any) -> Annotation:
    """A human mask of 6 x 4 pixels, in the box (2, 3, 6, 4)."""
    human: dict[str, Any] = {"segmentation": mask(2, 3, 8, 7), "mask_source": "human"}
    return Annotation(number, (2.0, 3.0, 6.0, 4.0), category, **{**human, **more})


def phrase(text: str, **more: Any) -> Caption:
    return Caption(text, **{"source": "human", **more})


def row(number: int, *annotations: Annotation, dataset: str = "toy", **more: Any) -> Sample:
    """A row with the key "toy/7"."""
    sample = Sample(number, f"{dataset}/{number}", PHOTO, HEIGHT, WIDTH, annotations or (annotation(number),))
    return replace(sample, **more)


def commit(
    root: Path, rows: int | Sequence[Sample], *, name: str = "toy/train/human", shards: int = 1, made: Callable = row,
    categories: Sequence[str] = CATEGORIES,
) -> str:  # fmt: skip
    """Write a layer of some rows, cut in shards of about one length, and its photograph; returns its name."""
    dataset, split, layer = name.split("/")
    samples = [made(i, dataset=dataset) for i in range(rows)] if isinstance(rows, int) else list(rows)
    store = ShardStore(root / "store")
    for i in range(shards):
        part = samples[i * len(samples) // shards : (i + 1) * len(samples) // shards]
        store.commit(Shard(dataset, split, layer, i, shards), part, {"categories": list(categories)})
    (root / "photos").mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "photos" / PHOTO)
    return name


def source(root: Path, name: str = "toy/train/human", task: str = "instance", **more: Any) -> TrainSource:
    return TrainSource(shards=name, task=task, **{"images": root / "photos", **more})


def manifest(root: Path, *sources: TrainSource, seed: int = 0, cache_mib: int = 0, **more: Any) -> Manifest:
    """A manifest with views of 32 x 32 pixels."""
    augment = AugmentConfig(size=32, scale=(0.5, 1.5), semantic_crop_size=32, foreground_size=32)
    dataloader = DataLoaderConfig(cache_mib=cache_mib)
    return Manifest(
        name="toy", seed=seed, store=root / "store", mixture=sources, augment=augment, dataloader=dataloader, **more
    )
