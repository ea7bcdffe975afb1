"""Layers to export: drawn photographs with masks of a model and of people, in a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synthgen.export.exporters import ExportCategory, ExportContext, ExportItem, ExportLicense
from synthgen.records.rle import encode_mask, rle_area
from synthgen.records.sample import Annotation, Caption, Rle, Sample

SIZE = (48, 64)
CATEGORIES = (ExportCategory(3, "cat", "animal"), ExportCategory(7, "dog", "animal"), ExportCategory(9, "cup"))
LICENSES = (ExportLicense(1, "Attribution License", "http://creativecommons.org/licenses/by/2.0/"),)


def ring_mask(top: int = 4, left: int = 6, height: int = 20, width: int = 24, *, hole: bool = True) -> Rle:
    """A rectangle, with a hole in its middle."""
    mask = np.zeros(SIZE, np.bool_)
    mask[top : top + height, left : left + width] = True
    if hole:
        mask[top + height // 3 : top + 2 * height // 3, left + width // 3 : left + 2 * width // 3] = False
    return encode_mask(mask)


def make_annotation(number: int, *, hole: bool = True, source: str = "sam vit_h", **changes: object) -> Annotation:
    """The annotation with this id; its place, category and scores follow from it."""
    category = CATEGORIES[number % len(CATEGORIES)]
    top, left = number % 20, (number * 3) % 30
    values: dict[str, object] = {
        "id": number,
        "bbox": (float(left), float(top), 24.0, 20.0),
        "category": category.name,
        "segmentation": ring_mask(top, left, hole=hole),
        "mask_source": source,
        "predicted_iou": 0.9,
        "stability_score": 0.8,
        "box_iou": 1.0,
        "soft_iou": 0.7,
        "captions": (Caption("a <b>cat</b>", "human"),),
        "category_id": category.id,
    }
    return Annotation(**(values | changes))  # type: ignore[arg-type]


def make_sample(number: int, annotations: tuple[Annotation, ...], **changes: object) -> Sample:
    """The image with this id."""
    values: dict[str, object] = {
        "image_id": number,
        "image_key": f"toy/{number}",
        "file_name": f"{number:04d}.png",
        "height": SIZE[0],
        "width": SIZE[1],
        "annotations": annotations,
    }
    return Sample(**(values | changes))  # type: ignore[arg-type]


def make_context(folder: Path, **changes: object) -> ExportContext:
    """A context whose folder exists."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {
        "folder": folder,
        "layer": "toy/train/masks",
        "recipe": {"stage": "masks", "plugin": "sam", "options": {"variant": "vit_h"}},
        "description": "toy/train/masks, made by synthgen with sam variant=vit_h",
        "categories": CATEGORIES,
        "licenses": LICENSES,
        "splits": ("train", "val"),
        "images": "none",
        "version": "1.2.3",
    }
    return ExportContext(**(values | changes))  # type: ignore[arg-type]


def make_items(count: int = 6) -> list[ExportItem]:
    """Images with one to three annotations, every third in the split val."""
    items, number = [], 0
    for i in range(1, count + 1):
        own = []
        for _ in range(1 + i % 3):
            number += 1
            own.append(make_annotation(number))
        sample = make_sample(i, tuple(own))
        areas = tuple(0 if a.segmentation is None else rle_area(a.segmentation) for a in sample.annotations)
        items.append(ExportItem("val" if i % 3 == 0 else "train", sample, sample.file_name, None, areas))
    return items
