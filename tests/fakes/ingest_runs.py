"""Annotation files for an ingest, and the shards that it makes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from synthgen.formats.readers import DatasetFiles, coco_json
from synthgen.ingest import ingest
from synthgen.storage.shard_store import ShardStore


def write_annotations(
    path: Path, *, images: int = 200, boxes: int = 3000, order: str = "iac", seed: int = 0
) -> DatasetFiles:
    """A COCO-style file with its members in some order, annotations shuffled."""
    rng = random.Random(seed)
    parts = {
        "i": ("images", [{"id": i, "file_name": f"{i}.jpg", "height": 90, "width": 120} for i in range(images)]),
        "a": (
            "annotations",
            [
                {
                    "id": i,
                    "image_id": rng.randrange(images),
                    "category_id": rng.randrange(5),
                    "bbox": [rng.uniform(-5, 100), rng.uniform(0, 60), rng.uniform(0, 30), rng.uniform(0, 30)],
                    "segmentation": [[1, 1, 20 + i % 7, 1, 20, 20]],
                }
                for i in rng.sample(range(boxes), boxes)
            ],
        ),
        "c": ("categories", [{"id": i, "name": f"c{i}"} for i in range(5)]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(parts[key] for key in order)))
    return DatasetFiles({"instances": path}, path.parent)


def ingest_layer(store: Path, files: DatasetFiles, layer: str = "annotations", **options: Any) -> ingest.IngestReport:
    return ingest.ingest(ShardStore(store), coco_json, files, name="d", split="train", layer=layer, **options)


def read_layer_files(store: Path, layer: str = "annotations") -> dict[str, bytes]:
    """Every file of a layer but its log."""
    folder = ShardStore(store).layer_folder("d", "train", layer)
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "_log"}
