"""A layer of drawn images with masks of all kinds: scored, by people, missing, and boxes that are not finite."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Caption, Sample
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

LAYER = "toy/train/masks"
CATEGORIES = ("cat", "dog", "bird")
SIZE = (40, 60)
RECIPE = {"stage": "masks", "dataset": "toy", "split": "train", "plugin": "grabcut", "options": {"side": 256}}


def make_annotation(number: int, rng: random.Random) -> Annotation:
    """The annotation with this id; every seventh has no mask, every fifth is by a person, some lack a score."""
    x, y, w, h = rng.randrange(30), rng.randrange(20), rng.randrange(3, 30), rng.randrange(3, 20)
    mask = np.zeros(SIZE, np.bool_)
    mask[y : y + h, x : x + w] = True
    mask[y : y + h // 2, x : x + 1] = False
    box = (float(x), float(y), float(w), float(h))
    category = CATEGORIES[number % 3]
    if number % 7 == 0:
        return Annotation(number, box, category, flags=("empty_mask",))
    if number % 5 == 0:
        return Annotation(number, box, category, segmentation=encode_mask(mask), mask_source="human")
    return Annotation(
        number,
        box,
        category,
        segmentation=encode_mask(mask),
        mask_source="grabcut",
        predicted_iou=round(rng.random(), 4) if number % 3 else None,
        stability_score=round(rng.random(), 4),
        box_iou=round(rng.random(), 4),
        soft_iou=round(rng.random(), 4) if number % 4 else None,
        captions=(Caption("a cat", "attributes"), Caption("the left cat", "human")) if number % 2 else (),
    )


def make_samples(count: int = 150, seed: int = 0) -> list[Sample]:
    """`count` images with 0 to 4 annotations each; the last one has an error."""
    rng, samples, number = random.Random(seed), [], 0
    for image in range(1, count + 1):
        own = []
        for _ in range(rng.randrange(5)):
            number += 1
            own.append(make_annotation(number, rng))
        error = "no such file" if image == count else None
        samples.append(Sample(image, f"toy/{image}", f"{image:04d}.png", *SIZE, tuple(own), error))
    return samples


def not_finite(number: int, *, has_mask: bool) -> Annotation:
    """An annotation whose box is not finite."""
    mask = np.zeros(SIZE, np.bool_)
    mask[3:7, 5:11] = True
    return Annotation(
        number,
        (math.nan, 1.0, math.inf, 2.0),
        "cat",
        flags=("degenerate",),
        segmentation=encode_mask(mask) if has_mask else None,
    )


def commit_layer(
    root: Path, samples: list[Sample], *, sizes: tuple[int, ...] = (70, 0, 64, 16), num_shards: int | None = None
) -> ShardStore:
    """Commit `LAYER` below `root/store` in shards of these sizes, and record the image folder `root/photos`."""
    store, start = ShardStore(root / "store"), 0
    for index, size in enumerate(sizes):
        footer = {
            "fingerprint": "f",
            "recipe": RECIPE,
            "categories": list(CATEGORIES),
            "counts": {"images": size, "masks": 1},
        }
        shard = Shard(*LAYER.split("/"), index, num_shards or len(sizes))
        store.commit(shard, samples[start : start + size], footer)
        start += size
    (root / "photos").mkdir(exist_ok=True)
    record_image_folder(store, *LAYER.split("/"), root / "photos")
    return store


def draw_photo(root: Path, file_name: str) -> np.ndarray:
    """Write the photograph of a name below `root/photos`; returns its pixels, uint8 [H, W, 3]."""
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    path = root / "photos" / file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels
