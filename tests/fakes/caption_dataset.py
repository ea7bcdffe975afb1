"""Photographs of coloured shapes, and what a person said of each: the box alone tells which shape is meant."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

from synthgen.records.sample import Annotation, Caption, Sample
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 230), "white": (240, 240, 240)}
SIZE = (120, 90)  # width, height

LAYER = "shapes/train/human"


def write_caption_dataset(folder: Path, *, images: int = 6, seed: int = 0) -> Path:
    """Write `folder/shards` with the layer `LAYER`, and `folder/photos`: in each corner a shape of another colour.

    Two phrases are said of each shape, of a word for its colour and of its kind: "red ball", "a red ball".
    """
    rng = random.Random(seed)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    samples = []
    for number in range(images):
        picture = Image.new("RGB", SIZE, (rng.randrange(90), rng.randrange(90), rng.randrange(90)))
        pen = ImageDraw.Draw(picture)
        annotations = []
        for corner, colour in enumerate(rng.sample(sorted(COLORS), 4)):
            w, h = rng.randrange(28, 50), rng.randrange(22, 38)
            x, y = (corner % 2) * 60 + rng.randrange(60 - w), (corner // 2) * 45 + rng.randrange(45 - h)
            kind = rng.choice(["cat", "cup"])
            (pen.ellipse if kind == "cat" else pen.rectangle)((x, y, x + w - 1, y + h - 1), fill=COLORS[colour])
            said = tuple(Caption(text, "human") for text in (f"{colour} {kind}", f"A {colour} {kind}."))
            annotations.append(Annotation(4 * number + corner, (x, y, w, h), "", captions=said))
        picture.save(photos / f"{number}.png")
        samples.append(Sample(number, f"shapes/{number}", f"{number}.png", SIZE[1], SIZE[0], tuple(annotations)))
    dataset, split, layer = LAYER.split("/")
    store = ShardStore(folder / "shards")
    store.commit(Shard(dataset, split, layer, 0, 1), samples, {"categories": []})
    record_image_folder(store, dataset, split, layer, photos)
    return folder
