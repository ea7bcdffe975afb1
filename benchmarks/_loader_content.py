"""What `loader.py` measures on: one set of annotations as a COCO JSON, as shards and as WebDataset's tars."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from ingest import PATCHES, write

from synthgen.formats.readers import DatasetFiles, coco_json, objects365
from synthgen.images.decode import find_image
from synthgen.ingest import ingest
from synthgen.storage.shard_store import ShardStore

#: Images in a tar; tars that are written of Objects365's shape, whose pixels would be 250 GB.
TAR, TARS = 1000, 2

MANIFEST = """
name: benchmark
store: shards
mixture: [{{shards: bench/train/{layer}, task: {task}}}]
"""


def prepare(folder: Path, data: Path, *, scale: float, repeat: int, tars: bool) -> dict[str, Any]:
    """Write it all below `folder`; returns the values of `Content` that follow from it.

    Args:
        data: a folder of COCO's layout, whose train2017 is used.
        scale: share of Objects365's images and boxes; 0 = COCO's own annotations, `repeat` times over.
        tars: False = none.
    """
    photographs = (data / "train2017").absolute()
    file = folder / "annotations.json"
    source = json.loads((data / "annotations" / "instances_train2017.json").read_text())
    if scale:
        images, boxes = write(
            file, scale, [(one["file_name"], one["height"], one["width"]) for one in source["images"]]
        )
        root, masks, reader, layers, task = folder / "images", 0, objects365, ["annotations"], "detection"
        root.mkdir()
        for patch in range(PATCHES):
            (root / f"patch{patch}").symlink_to(photographs)
    else:
        content = again(source, repeat)
        file.write_text(json.dumps(content))
        images, boxes = len(content["images"]), len(content["annotations"])
        root, masks, reader, layers, task = photographs, boxes, coco_json, ["annotations", "human"], "instance"
    for layer in layers:
        files = DatasetFiles({"instances": file}, root)
        ingest.ingest(ShardStore(folder / "shards"), reader, files, name="bench", split="train", layer=layer)
    (folder / "manifest.yaml").write_text(MANIFEST.format(layer=layers[-1], task=task))
    listed = -(-images // pack(folder, root, layers[-1], most=TAR * TARS if scale else images)) if tars else 0
    return {
        "folder": str(folder),
        "images": str(root),
        "photographs": [str(photographs / one["file_name"]) for one in source["images"]],
        "size": images,
        "boxes": boxes,
        "masks": masks,
        "tars": listed,
    }


def again(source: dict[str, Any], repeat: int) -> dict[str, Any]:
    """COCO's annotations several times over, with ids of their own."""
    images, annotations, ids = [], [], itertools.count(1)
    for turn in range(repeat):
        images += [{**one, "id": one["id"] + turn * 10**7} for one in source["images"]]
        annotations += [
            {**one, "id": next(ids), "image_id": one["image_id"] + turn * 10**7} for one in source["annotations"]
        ]
    return {**source, "images": images, "annotations": annotations}


def pack(folder: Path, root: Path, layer: str, *, most: int) -> int:
    """Write tars of the first images, JPEG and JSON as they would be written for training; returns how many images."""
    import webdataset as wds

    tars, store = folder / "tars", ShardStore(folder / "shards")
    tars.mkdir()
    shards = store.list_shards("bench", "train", layer)
    (tars / "names.json").write_text(json.dumps((store.read_footer(shards[0]) or {})["categories"]))
    chosen = itertools.islice((sample for shard in shards for sample in store.read_samples(shard)), most)
    with wds.ShardWriter(str(tars / "%05d.tar"), maxcount=TAR, verbose=0) as tar:
        for sample in chosen:
            found = [
                {"id": a.id, "bbox": a.bbox, "iscrowd": a.iscrowd, "category": a.category}
                | ({"segmentation": {"size": m.size, "counts": m.counts.decode()}} if (m := a.segmentation) else {})
                for a in sample.annotations
            ]
            tar.write(
                {
                    "__key__": f"{sample.image_id:012d}",
                    "jpg": find_image(root, sample.file_name).read_bytes(),
                    "json": {"height": sample.height, "width": sample.width, "annotations": found},
                }
            )
        return int(tar.total)
