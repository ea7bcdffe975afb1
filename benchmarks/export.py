"""Exports of a large layer of real masks: CPU time and memory, beside the loop that a user would write.

    python benchmarks/export.py --annotations instances_train2017.json --images train2017 --count 200000 \\
        [--to coco --to yolo] [--folder FOLDER]

The masks of a COCO file are repeated under new ids until the layer has `--count` images. Each line is a process of its
own: `read` reads all records, `loop` reads them and writes the same members of COCO's annotations with msgspec, without
checks and without the rest of the file. Exports check every mask. The ratio is CPU time over that of `loop`. For
formats of polygons, `contours` decodes each mask and calls `cv2.findContours`, and the ratio is over that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from synthgen.export.options import ExportOptions
from synthgen.export.run import EXPORTERS
from synthgen.formats.readers import coco_json
from synthgen.ingest.ingest import ingest
from synthgen.layers.layer import load_layer
from synthgen.plugins import list_plugins
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore

LAYER = "big/train/masks"
SHARD = 1000

#: Formats whose work is the outline of each mask.
POLYGON_FORMATS = ("yolo", "roboflow")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--annotations", type=Path, required=True)
    options.add_argument("--images", type=Path, required=True)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--to", action="append", help=f"default: {', '.join(list_plugins(EXPORTERS))}")
    options.add_argument("--folder", type=Path, help="keep the layer there")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = given.folder or Path(scratch)
        objects = make_layer(folder, given.annotations, given.images, given.count)
        print(f"{given.count:,} images, {objects:,} masks\n")
        print("| | CPU s | masks/s | ratio | peak memory, MiB |\n| --- | ---: | ---: | ---: | ---: |")
        show("read", objects, run(read, folder), None)
        _, loop = show("loop", objects, run(write_loop, folder), None)
        formats = given.to or list_plugins(EXPORTERS)
        contours = None
        if set(formats) & set(POLYGON_FORMATS):
            _, contours = show("contours", objects, run(find_contours, folder), None)
        for name in formats:
            show(name, objects, run(export, folder, name), contours if name in POLYGON_FORMATS else loop)


def make_layer(folder: Path, annotations: Path, images: Path, count: int) -> int:
    """Write the layer; returns the number of its masks."""
    store = ShardStore(folder / "shards")
    files = coco_json.files(images, "train", annotations)
    ingest(store, coco_json, files, name="source", split="train", layer="human")
    source = load_layer(store.root, "source/train/human")
    names = [field.name for field in fields(Sample)]
    base = [Sample(**{name: getattr(sample, name) for name in names}) for sample in source]
    footer = store.read_footer(store.list_shards("source", "train", "human")[0]) or {}
    members = {key: value for key, value in footer.items() if key != "identity"}
    number, shards = 0, -(-count // SHARD)
    for index in range(shards):
        rows = []
        for image in range(index * SHARD, min((index + 1) * SHARD, count)):
            sample, own = base[image % len(base)], []
            for annotation in sample.annotations:
                number += 1
                own.append(
                    replace(annotation, id=number, mask_source="sam vit_h", predicted_iou=0.9, area=None, iscrowd=False)
                )
            key = f"{image:012d}"
            rows.append(
                replace(sample, image_id=image + 1, image_key=key, file_name=f"{key}.jpg", annotations=tuple(own))
            )
        store.commit(Shard("big", "train", "masks", index, shards), rows, members)
    return number


def run(part: Callable[..., None], folder: Path, *arguments: str) -> tuple[float, float]:
    """CPU seconds and peak memory in MiB of a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_measure, args=(part, folder, queue, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{part.__name__} ended with {process.exitcode}")
    seconds, memory = queue.get()
    return seconds, memory


def _measure(part: Callable[..., None], folder: Path, queue: multiprocessing.SimpleQueue, *arguments: str) -> None:  # type: ignore[type-arg]
    load_layer(folder / "shards", LAYER)[0]  # imports
    began = time.process_time()
    part(folder, *arguments)
    queue.put((time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def read(folder: Path) -> None:
    for _ in load_layer(folder / "shards", LAYER):
        pass


def write_loop(folder: Path) -> None:
    import msgspec
    from pycocotools import mask as coco_mask

    encode = msgspec.json.Encoder().encode
    with (folder / "loop.json").open("wb") as file:
        for sample in load_layer(folder / "shards", LAYER):
            for a in sample.annotations:
                if a.segmentation is None:
                    continue
                size, counts = list(a.segmentation.size), a.segmentation.counts
                record = {
                    "id": a.id,
                    "image_id": sample.image_id,
                    "category_id": a.category_id,
                    "bbox": a.bbox,
                    "area": float(coco_mask.area({"size": size, "counts": counts})),
                    "iscrowd": int(a.iscrowd),
                    "segmentation": {"size": size, "counts": counts.decode()},
                    "mask_source": a.mask_source,
                }
                for name in ("predicted_iou", "stability_score", "box_iou", "soft_iou"):
                    if (score := getattr(a, name)) is not None:
                        record[name] = score
                file.write(encode(record) + b",\n")
    (folder / "loop.json").unlink()


def find_contours(folder: Path) -> None:
    import cv2
    import numpy as np

    for sample in load_layer(folder / "shards", LAYER):
        for a in sample.annotations:
            if a.segmentation is not None:
                mask = decode_mask(a.segmentation).astype(np.uint8)
                cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)


def export(folder: Path, name: str) -> None:
    out = folder / f"out-{name}"
    load_layer(folder / "shards", LAYER).export(name, out, options=ExportOptions(image_mode="none"))
    shutil.rmtree(out)


def show(name: str, objects: int, found: tuple[float, float], base: float | None) -> tuple[float, float]:
    """Print one row of the table; returns the memory and the seconds."""
    seconds, memory = found
    ratio = "" if base is None else f"{seconds / base:.2f}"
    print(f"| {name} | {seconds:.1f} | {objects / seconds:,.0f} | {ratio} | {memory:,.0f} |", flush=True)
    return memory, seconds


if __name__ == "__main__":
    main()
