"""LVIS, v1 and v0.5: COCO's photographs with more than a thousand categories, boxes and human masks.

Annotators did not look for all categories in every image. Each image lists the categories that were looked for and not
found, and those with more objects than annotations. Any other category without an annotation may be present or not.

Its splits are not COCO's: LVIS val has photographs of both COCO folders, so the image root holds train2017/ and
val2017/. Version 1 has no file names, version 0.5 has those of 2014; both have the URL, which ends in the 2017 path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._coco_images import add_coco_folder, coco_image_key, find_coco_image_folder
from synthgen.formats.readers._coco_records import CocoImage, LvisImage
from synthgen.formats.readers._instances import complete, find_annotation_file, mask_problems, shorten_mask
from synthgen.formats.readers._instances import read_instances as read_instances
from synthgen.formats.readers._release import splits_with_files

TITLE = "LVIS"
LOOKS_FOR = "lvis_v1_train.json and the like"
SPLITS = ("train", "val")
LAYERS = ("annotations", "human")

__all__ = [
    "LAYERS",
    "LOOKS_FOR",
    "SPLITS",
    "TITLE",
    "complete",
    "files",
    "mask_problems",
    "read",
    "recognize",
    "shorten_mask",
]


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose files are in the release's folder, `path`."""
    return splits_with_files(path, SPLITS, files)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """lvis_v1_<split>.json, else lvis_v0.5_<split>.json, below root or root/annotations; images are COCO's.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the JSON file, if it lies elsewhere.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_annotation_file(root, (f"lvis_v1_{split}.json", f"lvis_v0.5_{split}.json"), annotations)
    return DatasetFiles({"instances": source}, find_coco_image_folder(root))


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of `files`, as `layer`; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name_and_key=_name_and_key, image_type=LvisImage)


def _name_and_key(image: CocoImage) -> tuple[str, str]:
    tail = image.coco_url.split("/")[-2:]
    return "/".join(tail) if len(tail) == 2 else add_coco_folder(image.file_name), coco_image_key(image.id)
