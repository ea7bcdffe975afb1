"""Shards against one COCO JSON and against a JSON per image: the same masks, written and read in the same run.

    python benchmarks/store.py [--images 1000] [--masks 25]

Prints images/s and bytes an image, the best of three rounds each. JSON is given every advantage: the faster of the
standard library's encoders, no sync to disk, and its reading ends with plain dictionaries where ours ends with records.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.records.rle import encode_mask_window
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import Shard, ShardStore

HEIGHT, WIDTH = 480, 640
SHARD = 1000
ROUNDS = 3


def blob(rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """A wavy outline with a hole now and then, of COCO's spread of sizes: bool [h, w], and its top left corner."""
    radius = float(np.clip(rng.lognormal(3.4, 0.9), 3, 200))
    h = min(HEIGHT, int(2.8 * radius * rng.uniform(0.5, 1)) + 3)
    w = min(WIDTH, int(2.8 * radius * rng.uniform(0.5, 1)) + 3)
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    angle, waves = np.arctan2(y, x), rng.integers(2, 24, size=5)
    edge = 0.75 + sum(rng.normal(0, 0.25) / n * np.cos(n * angle + rng.uniform(0, 6.28)) for n in waves)
    mask = np.hypot(x, y) < edge
    if rng.random() < 0.1:
        mask &= np.hypot(x - 0.2, y) > 0.15
    mask[h // 2, w // 2] = True
    return mask, int(rng.integers(0, HEIGHT - h + 1)), int(rng.integers(0, WIDTH - w + 1))


def samples(images: int, masks: int) -> list[Sample]:
    """Images with masks, no two of them alike, or compression would shine."""
    rng = np.random.default_rng(0)
    made = []
    for image in range(images):
        annotations = []
        for place in range(masks):
            mask, top, left = blob(rng)
            rle = encode_mask_window(mask, top, left, HEIGHT, WIDTH)
            ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            tight = (left + xs[0], top + ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1)
            bbox = tuple(round(float(v + rng.uniform(-1, 1)), 2) for v in tight)
            annotations.append(
                Annotation(
                    image * masks + place, bbox, f"category {rng.integers(365)}", segmentation=rle,
                    mask_source="sam vit_h", predicted_iou=round(float(rng.uniform(0.5, 1)), 4),
                    stability_score=round(float(rng.uniform(0.5, 1)), 4), box_iou=round(float(rng.uniform(0.5, 1)), 4),
                )
            )  # fmt: skip
        name = f"{image:012d}"
        made.append(Sample(image, f"bench/{name}", f"patch{image % 50}/{name}.jpg", HEIGHT, WIDTH, tuple(annotations)))
    return made


def as_coco(some: list[Sample]) -> dict[str, Any]:
    """The same content as a COCO results file would hold it."""
    return {
        "images": [
            {"id": s.image_id, "key": s.image_key, "file_name": s.file_name, "height": s.height, "width": s.width}
            for s in some
        ],
        "annotations": [
            {
                "id": a.id, "image_id": s.image_id, "category": a.category, "bbox": a.bbox, "iscrowd": int(a.iscrowd),
                "isthing": int(a.isthing), "flags": a.flags, "mask_source": a.mask_source,
                "segmentation": {"size": a.segmentation.size, "counts": a.segmentation.counts.decode()},
                "predicted_iou": a.predicted_iou, "stability_score": a.stability_score, "box_iou": a.box_iou,
            }
            for s in some
            for a in s.annotations
        ],
    }  # fmt: skip


class Shards:
    """Ours: committed, synced to disk, read back as records."""

    def __init__(self, root: Path, count: int) -> None:
        self.store = ShardStore(root)
        shards = -(-count // SHARD)
        self.shards = [Shard("bench", "train", "masks", index, shards) for index in range(shards)]

    def write(self, made: list[Sample]) -> None:
        for shard in self.shards:
            self.store.commit(shard, made[shard.index * SHARD : (shard.index + 1) * SHARD], {"recipe": {}})

    def read(self) -> int:
        return sum(len(s.annotations) for shard in self.shards for s in self.store.read_samples(shard))

    def keys(self) -> int:
        return sum(len(b) for shard in self.shards for b in self.store.read_columns(shard, ["image_key"]))


class OneJson:
    """One COCO JSON for all."""

    def __init__(self, root: Path) -> None:
        self.path = root / "annotations.json"

    def write(self, made: list[Sample]) -> None:
        self.path.write_text(json.dumps(as_coco(made)))

    def read(self) -> int:
        return len(json.loads(self.path.read_text())["annotations"])

    def keys(self) -> int:
        return len([image["key"] for image in json.loads(self.path.read_text())["images"]])


class JsonPerImage:
    """A JSON beside each image, as labelling tools write them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, made: list[Sample]) -> None:
        for sample in made:
            (self.root / f"{sample.image_id:012d}.json").write_text(json.dumps(as_coco([sample])))

    def read(self) -> int:
        return sum(len(json.loads(path.read_text())["annotations"]) for path in sorted(self.root.iterdir()))

    def keys(self) -> int:
        return len([json.loads(path.read_text())["images"][0]["key"] for path in sorted(self.root.iterdir())])


def best(rounds: int, function: Callable[[], Any]) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=25, help="an image")
    given = parser.parse_args()
    made = samples(given.images, given.masks)
    counts = statistics.mean(len(a.segmentation.counts) for s in made for a in s.annotations)
    print(f"{given.images} images of {given.masks} masks, {counts:.0f} bytes of RLE a mask")
    root = Path(tempfile.mkdtemp(prefix="bench-store-"))
    try:
        rows: dict[str, list[float]] = {}
        for name in ("shards", "one COCO JSON", "a JSON per image"):
            folder = root / name
            folder.mkdir()
            form = (
                Shards(folder, given.images) if name == "shards"
                else OneJson(folder) if name == "one COCO JSON"
                else JsonPerImage(folder)
            )  # fmt: skip
            write = best(ROUNDS, lambda form=form: form.write(made))
            assert form.read() == given.images * given.masks
            assert form.keys() == given.images
            read, keys = best(ROUNDS, form.read), best(ROUNDS, form.keys)
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            rows[name] = [given.images / write, given.images / read, given.images / keys, size / given.images]
    finally:
        shutil.rmtree(root)
    print(f"{'':18}{'write':>14}{'read':>14}{'keys only':>14}{'size':>14}")
    for name, (write, read, keys, size) in rows.items():
        print(f"{name:18}{write:>10,.0f} i/s{read:>10,.0f} i/s{keys:>10,.0f} i/s{size:>10,.0f} B/i")
    ours = rows["shards"]
    for name in list(rows)[1:]:
        theirs = rows[name]
        print(
            f"shards against {name}: write {ours[0] / theirs[0]:.1f}x, read {ours[1] / theirs[1]:.1f}x, "
            f"keys {ours[2] / theirs[2]:.0f}x as fast, {ours[3] / theirs[3]:.2f}x the size"
        )


if __name__ == "__main__":
    main()
