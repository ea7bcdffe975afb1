"""Masks of drawn photographs as other programs write them: COCO instances, COCO results, PNG files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fakes import coco_dataset
from synthgen.formats.readers import coco_json
from synthgen.ingest.ingest import ingest
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore

SIZE = (72, 96)
PLACE = ("boxes", "train", "annotations")


def write_world(folder: Path, *, images: int = 8, objects: int = 3, shard_size: int = 3) -> dict[str, Any]:
    """A dataset of drawn photographs, ingested into `folder`/shards; returns its JSON."""
    path = coco_dataset.write_coco_dataset(folder, images=images, objects=objects)
    files = coco_json.files(folder / "photos", "train", path)
    ingest(ShardStore(folder / "shards"), coco_json, files, name="boxes", split="train", shard_size=shard_size)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def ellipse(bbox: list[float]) -> NDArray[np.bool_]:
    """The ellipse in a box: bool [H, W], the size of the photographs."""
    x, y, w, h = bbox
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return ((columns + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((rows + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1


def coco_rle(bbox: list[float]) -> dict[str, Any]:
    """The ellipse in a box as a COCO RLE."""
    return {"size": list(SIZE), "counts": encode_mask(ellipse(bbox)).counts.decode()}


def with_masks(world: dict[str, Any], **members: Any) -> dict[str, Any]:
    """The dataset's JSON with a mask in each annotation, and further members."""
    annotations = [{**one, "segmentation": coco_rle(one["bbox"]), **members} for one in world["annotations"]]
    return {**world, "annotations": annotations}


def results(world: dict[str, Any]) -> list[dict[str, Any]]:
    """A list of COCO results."""
    return [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "segmentation": coco_rle(one["bbox"]),
            "score": round(0.5 + 0.001 * number, 4),
        }
        for number, one in enumerate(world["annotations"])
    ]


def write_id_maps(folder: Path, world: dict[str, Any], *, by_id: bool) -> None:
    """One PNG for each image, in which each object has its annotation's id, or a number from 1."""
    folder.mkdir()
    for image in world["images"]:
        labels = np.zeros(SIZE, np.uint16)
        own = [one for one in world["annotations"] if one["image_id"] == image["id"]]
        for number, one in enumerate(own, start=1):
            labels[ellipse(one["bbox"])] = one["id"] if by_id else len(own) + 1 - number
        Image.fromarray(labels).save(folder / f"{Path(image['file_name']).stem}.png")


def write_binary_masks(folder: Path, world: dict[str, Any]) -> None:
    """A folder of PNG files for each image, named by annotation ids."""
    names = {image["id"]: Path(image["file_name"]).stem for image in world["images"]}
    for one in world["annotations"]:
        place = folder / names[one["image_id"]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ellipse(one["bbox"]).astype(np.uint8) * 255).save(place / f"{one['id']}.png")


def rows(store: Path, layer: str, split: str = "train") -> list[Sample]:
    """The images of a layer of the dataset."""
    shards = ShardStore(store)
    return [sample for shard in shards.list_shards("boxes", split, layer) for sample in shards.read_samples(shard)]


def annotations(store: Path, layer: str) -> dict[int, Annotation]:
    """The annotations of a layer, by id."""
    return {a.id: a for sample in rows(store, layer) for a in sample.annotations}


def layer_files(store: Path, layer: str) -> dict[str, bytes]:
    """The shards of a layer."""
    return {path.name: path.read_bytes() for path in sorted((store / "boxes/train" / layer).glob("*.parquet"))}
