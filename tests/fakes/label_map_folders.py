"""Layers of folders of photographs and label maps, and files for such folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from synthgen.formats.readers import (
    DatasetFiles,
)
from synthgen.ingest.ingest import IngestReport, ingest
from synthgen.records.rle import rle_bbox_xyxy
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore


def ingest_layer(
    folder: Path, module: ModuleType, files: DatasetFiles, layer: str = "human"
) -> tuple[list[Sample], IngestReport]:
    store = ShardStore(folder / "store")
    report = ingest(store, module, files, name="given", split="all", layer=layer)
    return [s for shard in store.list_shards("given", "all", layer) for s in store.read_samples(shard)], report


def ingest_both_layers(folder: Path, module: ModuleType, files: DatasetFiles) -> list[Sample]:
    """The layer of masks, which is the layer of boxes but for the masks."""
    boxes, few = ingest_layer(folder, module, files, "annotations")
    samples, many = ingest_layer(folder, module, files)
    assert (few.images, few.annotations, few.errors) == (many.images, many.annotations, many.errors)
    assert few.masks == 0
    for box_sample, sample in zip(boxes, samples, strict=True):
        assert box_sample.error == sample.error
        for box, masked in zip(box_sample.annotations, sample.annotations, strict=True):
            assert (box.id, box.bbox, box.category, box.isthing, box.flags) == (
                masked.id, masked.bbox, masked.category, masked.isthing, masked.flags
            )  # fmt: skip
            if masked.segmentation is not None:
                assert masked.mask_source == "human"
                assert masked.segmentation.size == (sample.height, sample.width)
                x1, y1, x2, y2 = rle_bbox_xyxy(masked.segmentation)
                assert masked.bbox == (x1, y1, x2 - x1, y2 - y1)
    return samples


def write_photograph(path: Path, size: tuple[int, int] = (8, 6), **options: Any) -> None:
    """An image file of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 99, 199)).save(path, **options)


def write_label_map(path: Path, values: Any, dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype)).save(path)


def filled_labels(value: int, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    return np.full(size[::-1], value, np.uint8)


def all_annotations(samples: list[Sample]) -> list[Annotation]:
    return [a for s in samples for a in s.annotations]


def write_instance_map(path: Path, pixels: Sequence[tuple[Any, tuple[int, int]]]) -> None:
    """An instance map of ADE20K, 8 x 6 pixels: place -> (one of the 100 classes, number of the object)."""
    values = np.zeros((6, 8, 3), np.uint8)
    for place, (label, number) in pixels:
        values[place] = (label, number, 0)
    write_label_map(path, values)
