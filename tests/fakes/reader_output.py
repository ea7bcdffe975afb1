"""What a reader yields, as dictionaries and as samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from synthgen.formats.readers import AnnotationBatch, DatasetFiles, ImageBatch
from synthgen.ingest.ingest import ingest
from synthgen.records.sample import ANNOTATION_FLAGS, Annotation, Sample
from synthgen.storage.shard_store import ShardStore


def read_layer(
    module: Any, files: DatasetFiles, layer: str
) -> tuple[dict[int, tuple[str, str, int, int]], list[dict[str, Any]]]:
    """Images by id, and annotations as dictionaries with their category's name."""
    images, rows, names = {}, [], {}
    for part in module.read(files, layer):
        if isinstance(part, ImageBatch):
            assert part.image_id.dtype == np.int64 and part.height.dtype == part.width.dtype == np.int32
            for i, image_id in enumerate(part.image_id.tolist()):
                assert image_id not in images
                images[image_id] = (part.file_name[i], part.image_key[i], int(part.height[i]), int(part.width[i]))
        elif isinstance(part, AnnotationBatch):
            assert part.bbox.shape == (len(part.id), 4) and part.bbox.dtype == np.float64
            assert set(part.flags) <= set(ANNOTATION_FLAGS)
            for i in range(len(part.id)):
                rows.append(
                    {
                        "image_id": int(part.image_id[i]),
                        "id": int(part.id[i]),
                        "bbox": tuple(part.bbox[i].tolist()),
                        "category": int(part.category[i]),
                        "iscrowd": bool(part.iscrowd[i]),
                        "flags": {flag for flag, on in part.flags.items() if on[i]},
                        "payload": part.payload[i] if part.payload is not None else None,
                    }
                )
        else:
            names.update(part.names)
    for row in rows:
        row["category"] = names.get(row["category"])
    return images, rows


def make_sample(images: dict[int, tuple[str, str, int, int]], rows: list[dict[str, Any]], image_id: int) -> Sample:
    file_name, key, height, width = images[image_id]
    return Sample(
        image_id, key, file_name, height, width,
        tuple(Annotation(r["id"], r["bbox"], r["category"], flags=tuple(sorted(r["flags"]))) for r in rows),
    )  # fmt: skip


def ingest_layer(tmp_path: Path, module: Any, files: DatasetFiles, layer: str) -> list[Sample]:
    store = ShardStore(tmp_path)
    ingest(store, module, files, name="given", split="all", layer=layer)
    return [sample for shard in store.list_shards("given", "all", layer) for sample in store.read_samples(shard)]
