"""Samples with masks, and exporters that are run on them without a layer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthgen.export.exporters import ExportCategory, ExportContext, ExportItem, ExportLicense, ExportNotes
from synthgen.records.rle import encode_mask, rle_area, rle_bbox_xyxy, rle_from_coco
from synthgen.records.sample import Annotation, Sample

#: Names that break files whose writer does not escape them.
HOSTILE_NAMES = (
    """a" onload='x' <b>&amp;</b> ]]> \\" """.strip(),
    "</image><image name='x'>",
    "=cmd|' /C calc'!A0",
    "zero\0width\x1b\ufffe",
    "日本語 🐈 \u202e",
    "$image",
)


def context(folder: Path, names: Sequence[str] = ("cat", "dog"), **changes: Any) -> ExportContext:
    """The context of an export into `folder`, which is created; category ids are 11, 12, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = ExportContext(
        folder=folder,
        layer="own/train/masks",
        recipe={"stage": "masks", "segmenter": "lite"},
        description="own/train/masks, made by synthgen",
        categories=tuple(ExportCategory(11 + i, name) for i, name in enumerate(names)),
        licenses=(ExportLicense(1, "Attribution License", "https://example.org/by"),),
        splits=("train",),
        images="link",
        version="1.0",
    )
    return replace(plain, **changes)


def annotation(
    number: int, mask: NDArray[Any] | None, category: str = "cat", category_id: int = 11, **members: Any
) -> Annotation:
    """An annotation with a mask, bool [H, W], by "lite", whose box is the mask's own, unless `members` say else."""
    if mask is None:
        return Annotation(
            number, members.pop("bbox", (1.0, 2.0, 3.0, 4.0)), category, category_id=category_id, **members
        )
    rle = encode_mask(mask)
    x1, y1, x2, y2 = rle_bbox_xyxy(rle)
    own: dict[str, Any] = {"bbox": (x1, y1, x2 - x1, y2 - y1), "mask_source": "lite"} | members
    return Annotation(number, category=category, category_id=category_id, segmentation=rle, **own)


def sample(number: int, *annotations: Annotation, size: tuple[int, int] = (30, 40), name: str = "") -> Sample:
    """An image of `size` (height, width)."""
    return Sample(number, f"own/{number}", name or f"{number}.jpg", *size, annotations)


def rectangle(top: int, left: int, height: int, width: int, size: tuple[int, int] = (30, 40)) -> NDArray[np.bool_]:
    """A mask of `size` (height, width) with one rectangle."""
    mask = np.zeros(size, np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def random_masks(count: int, size: tuple[int, int] = (30, 40), seed: int = 0) -> list[NDArray[np.bool_]]:
    """Masks with holes, parts and lines that touch the border, bool [H, W]; none is empty."""
    rng = np.random.default_rng(seed)
    masks = []
    for number in range(count):
        mask = np.zeros(size, np.bool_)
        top, left = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
        inside = mask[top : top + rng.integers(2, size[0]), left : left + rng.integers(2, size[1])]
        inside[:] = rng.random(inside.shape) < (0.3, 0.9, 1.0)[number % 3]
        mask[top, left] = True
        masks.append(mask)
    return masks


def export(
    module: Any,
    given: ExportContext,
    samples: Iterable[Sample] | Mapping[str, Iterable[Sample]],
    *,
    draw_images: bool = True,
    **options: Any,
) -> tuple[ExportNotes, int]:
    """Run an exporter as `run_export` does, on samples by split; returns its notes, and how many it wrote.

    `draw_images`: lay a grey image for each sample into the exporter's folder.
    """
    by_split = samples if isinstance(samples, Mapping) else {given.splits[0]: samples}
    exporter = module.build(given, module.OPTIONS(**options))
    written = 0
    try:
        for split, some in by_split.items():
            for one in some:
                if draw_images and given.images != "none":
                    path = given.folder / exporter.image_folder(split) / one.file_name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (one.width, one.height), (90, 90, 90)).save(path)
                areas = tuple(rle_area(a.segmentation) if a.segmentation is not None else 0 for a in one.annotations)
                written += len(exporter.write(ExportItem(split, one, one.file_name, None, areas)))
        return exporter.finish(), written
    finally:
        exporter.close()


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Path below a folder -> content, of all files but images of the samples."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".jpg"
    }


def human_samples(folder: Path, coco: Path) -> tuple[ExportContext, list[Sample]]:
    """The context of an export into `folder`, and the samples of a folder of COCO with their human masks."""
    content = json.loads(next(coco.glob("annotations/instances_*.json")).read_text())
    names = {record["id"]: record["name"] for record in content["categories"]}
    of_image: dict[int, list[Annotation]] = {}
    sizes = {record["id"]: (record["height"], record["width"]) for record in content["images"]}
    for record in content["annotations"]:
        image, category = record["image_id"], record["category_id"]
        mask = rle_from_coco(record["segmentation"], *sizes[image])
        own = Annotation(record["id"], tuple(record["bbox"]), names[category], bool(record["iscrowd"]))
        own = replace(own, segmentation=mask, mask_source="human", category_id=category)
        of_image.setdefault(image, []).append(own)
    samples = [
        sample(record["id"], *of_image.get(record["id"], ()), size=sizes[record["id"]], name=record["file_name"])
        for record in content["images"]
    ]
    return context(folder, categories=tuple(ExportCategory(*one) for one in names.items())), samples
