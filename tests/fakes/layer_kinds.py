"""A small store with a layer of every kind that a manifest may name, and empty files for its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Caption, Sample
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

SIZE = (8, 10)
BOX = (0.0, 0.0, 4.0, 8.0)
MASK = encode_mask(np.asfortranarray(np.arange(80).reshape(SIZE) % 10 < 4))


def write_layer(
    store: ShardStore,
    name: str,
    keys: Iterable[str],
    annotation: Callable[[int], Annotation],
    *,
    shards: int = 1,
    planned: int | None = None,
    images: Path | None = None,
    errors: int = 0,
) -> None:
    """Write a layer with one image for each key and two annotations an image, cut into `shards` of `planned`.

    Args:
        images: a folder in which every image has an (empty) file.
        errors: so many of the first images have one.
    """
    dataset, split, own = name.split("/")
    samples = []
    for i, key in enumerate(keys):
        file_name = f"{key.rpartition('/')[2]}.jpg"
        if images is not None:
            images.mkdir(parents=True, exist_ok=True)
            (images / file_name).touch()
        error = "no such file" if i < errors else None
        samples.append(Sample(i, key, file_name, *SIZE, (annotation(2 * i), annotation(2 * i + 1)), error))
    for index in range(shards):
        part = samples[index * len(samples) // shards : (index + 1) * len(samples) // shards]
        footer = {"recipe": {"stage": "toy"}, "fingerprint": f"print of {name}", "categories": ["dog", "sky"]}
        store.commit(Shard(dataset, split, own, index, planned or shards), part, footer)
    if images is not None:
        record_image_folder(store, dataset, split, own, images)


def boxed(i: int) -> Annotation:
    return Annotation(i, BOX, "dog")


def human(i: int) -> Annotation:
    return Annotation(i, BOX, "dog", segmentation=MASK, mask_source="human")


def panoptic(i: int) -> Annotation:
    name = ("dog", "sky")[i % 2]
    return Annotation(i, BOX, name, isthing=i % 2 == 0, segmentation=MASK, mask_source="human")


def machine_masked(i: int) -> Annotation:
    """By a segmenter that predicts no IoU."""
    return Annotation(i, BOX, "dog", segmentation=MASK, mask_source="grabcut", stability_score=0.8, box_iou=0.9)


def captioned(i: int) -> Annotation:
    """A drawn mask, and captions without scores."""
    captions = (Caption("a dog", "attributes", category_match=True, reasons=("only_category",)),)
    return Annotation(i, BOX, "dog", segmentation=MASK, mask_source="grabcut", box_iou=0.9, captions=captions)


def scored(i: int) -> Annotation:
    """Masks and captions that all have their scores; every other one of them is bad."""
    captions = (Caption("a dog", "ofa base", score=-0.5 - 2 * (i % 2)),)
    return Annotation(
        i,
        BOX,
        "dog",
        segmentation=MASK,
        mask_source="sam vit_b",
        predicted_iou=0.9 - 0.4 * (i % 2),
        stability_score=0.9,
        box_iou=0.9,
        captions=captions,
    )


def region(i: int) -> Annotation:
    return Annotation(i, BOX, "", captions=(Caption("the left dog", "human"),))


def referred(i: int) -> Annotation:
    captions = (Caption("the left dog", "human"),)
    return Annotation(i, BOX, "dog", segmentation=MASK, mask_source="human", captions=captions)


def coco_keys(*numbers: int) -> list[str]:
    """Keys of COCO's photographs."""
    return [f"coco/{number:012d}" for number in numbers]


def write_store(folder: Path) -> Path:
    """The store `folder/shards`, with its images in `folder/images`; what a layer lacks follows from its name."""
    root, images = folder / "shards", folder / "images"
    store = ShardStore(root)
    train, val = coco_keys(*range(8)), coco_keys(*range(100, 104))
    write_layer(store, "coco/train2017/annotations", train, boxed, images=images)
    write_layer(store, "coco/train2017/human", train, human)
    write_layer(store, "coco/train2017/masks", train, machine_masked, shards=4)
    write_layer(store, "coco/train2017/captions", train, captioned)
    write_layer(store, "coco/train2017/scored", train, scored, shards=2)
    write_layer(store, "coco/train2017/part", train[:2], machine_masked, planned=3)
    write_layer(store, "coco/train2017/errors", train, machine_masked, errors=3)
    write_layer(store, "coco/val2017/human", val, human, images=images)
    write_layer(store, "coco/val2017/panoptic", val, panoptic)
    write_layer(store, "coco/val2017/masks", val, machine_masked)
    own = (f"visual_genome/{i}" for i in range(5))
    write_layer(store, "vg/train/regions", [*coco_keys(5, 102, 103), *own], region, images=images)
    write_layer(store, "refcoco/val/human", coco_keys(200, 201), referred, images=images)
    write_layer(store, "lost/train/human", ["lost/1"], human)
    return root
