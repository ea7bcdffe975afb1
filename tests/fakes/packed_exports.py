"""Hand-made exports: a context, images with annotations of all kinds, and the steps of `run_export`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fakes.image_files import random_pixels, save_image
from synthgen.export.exporters import (
    ExportCategory,
    ExportContext,
    ExportItem,
    ExportLicense,
    ExportNotes,
    ImageMode,
)
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Annotation, Caption, Rle, Sample

HOSTILE = '<img src=x onerror=alert(1)>|"; --\n# ``` ](http://evil.example) \u202e'

CATEGORIES = (
    ExportCategory(3, "cat", "animal"),
    ExportCategory(17, HOSTILE),
    ExportCategory(90, "Straße 🚗"),
)
LICENSES = (ExportLicense(1, "CC BY", "https://creativecommons.org/licenses/by/4.0/"), ExportLicense(2, HOSTILE, "x"))
RECIPE = {"stage": "masks", "segmenter": "lite", "options": {"precision": "fp32"}}


def make_context(folder: Path, images: ImageMode = "embed", splits: tuple[str, ...] = ("train",)) -> ExportContext:
    """A context with a new folder."""
    folder.mkdir(parents=True)
    return ExportContext(
        folder=folder,
        layer="pets/train/masks",
        recipe=RECIPE,
        description=f"Masks of {HOSTILE} by lite.",
        categories=CATEGORIES,
        licenses=LICENSES,
        splits=splits,
        images=images,
        version="0.0.test",
    )


def make_mask(height: int, width: int, seed: int) -> Rle:
    """A rectangle with a hole and a part beside it."""
    mask = np.zeros((height, width), np.bool_)
    mask[1 + seed % 3 : height - 1, 2 : width - 5] = True
    mask[4:6, 5:8] = False
    mask[3:5, width - 3 : width - 1] = True
    return encode_mask(mask)


def make_sample(number: int, file_name: str, height: int = 12, width: int = 20) -> Sample:
    """An image with a scored mask, a box alone, a crowd of the source and a mask whose box is not finite."""
    mask, nan = make_mask(height, width, number), float("nan")
    annotations = (
        Annotation(
            id=10 * number,
            bbox=(2.125, 1.1, 15.3, 9.7),
            category="cat",
            category_id=3,
            segmentation=mask,
            mask_source="lite",
            predicted_iou=0.875,
            box_iou=0.1 + 0.2,
            soft_iou=nan,
            captions=(Caption("a grey cat", "ofa base"), Caption(HOSTILE, "human")),
            flags=("clipped",),
            provenance="reviewed",
        ),
        Annotation(id=10 * number + 1, bbox=(0.0, 0.0, 5.0, 6.0), category=HOSTILE, category_id=17),
        Annotation(
            id=10 * number + 2,
            bbox=(2.0, 1.0, 15.0, 10.0),
            category="Straße 🚗",
            category_id=90,
            iscrowd=True,
            segmentation=mask,
            mask_source="human",
            area=77.5,
        ),
        Annotation(
            id=10 * number + 3,
            bbox=(nan, nan, nan, nan),
            category="cat",
            category_id=3,
            segmentation=mask,
            mask_source="lite",
        ),
        Annotation(id=10 * number + 4, bbox=(nan, 0.0, 1.0, 1.0), category="cat", category_id=3),
    )
    return Sample(
        image_id=1_000 + number,
        image_key="",
        file_name=file_name,
        height=height,
        width=width,
        annotations=annotations[: 5 if number % 2 == 0 else 2],
        license_id=(1, 2, None, 7)[number % 4],
        neg_categories=("cat",) if number % 3 == 0 else None,
    )


def make_item(split: str, sample: Sample, file_name: str, image: Path | None) -> ExportItem:
    """An item with the areas of its masks."""
    masks = (annotation.segmentation for annotation in sample.annotations)
    areas = tuple(0 if mask is None else int(decode_mask(mask).sum()) for mask in masks)
    return ExportItem(split, sample, file_name, image, areas)


def make_items(images: Path, count: int, splits: tuple[str, ...] = ("train",), **how: Any) -> list[ExportItem]:
    """Images of noise, saved in a folder, in the splits by turns; half of them PNG."""
    images.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(count):
        name = f"a.b {number}.{'jpg' if number % 2 else 'png'}"
        path = save_image(images / name, random_pixels(12, 20, number), **how)
        items.append(make_item(splits[number % len(splits)], make_sample(number, f"sub/{name}"), name, path))
    return items


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """New files have no room, as on a full disk."""
    real = Path.open

    def open_without_room(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return real(Path("/dev/full"), "wb") if "x" in mode else real(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", open_without_room)


def run_exporter(
    module: ModuleType, context: ExportContext, items: Iterable[ExportItem], **options: Any
) -> tuple[int, ExportNotes]:
    """All steps of an export; returns the annotations written, and the notes."""
    exporter = module.build(context, module.OPTIONS(**options))
    written = 0
    try:
        for item in items:
            if context.images in ("link", "copy"):
                link = context.folder / exporter.image_folder(item.split) / item.file_name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(item.image)
            written += len(exporter.write(item))
        notes = exporter.finish()
    finally:
        exporter.close()
    return written, notes


def drawn_by_people(items: list[ExportItem]) -> list[ExportItem]:
    """The same items with masks that readers take for the layer of human masks."""
    return [
        replace(
            item,
            sample=replace(
                item.sample, annotations=tuple(replace(a, mask_source="human") for a in item.sample.annotations)
            ),
        )
        for item in items
    ]
