"""COCO instances: boxes, and human masks as a layer of their own.

The splits of 2014 and 2017 are the same photographs, divided in two ways: never train on one and evaluate on the other.
Their keys are the same, so the leakage checks detect it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._coco_images import coco_file_name, coco_key_from_name
from synthgen.formats.readers._coco_records import CocoImage
from synthgen.formats.readers._instances import (
    complete,
    find_annotation_file,
    find_split_folder,
    mask_problems,
    shorten_mask,
)
from synthgen.formats.readers._instances import read_instances as read_instances
from synthgen.formats.readers._release import splits_with_files

TITLE = "COCO"
LOOKS_FOR = "annotations/instances_train2017.json and the like"
SPLITS = ("train2017", "val2017", "train2014", "val2014")
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
    """annotations/instances_<split>.json and the folder <split>, as the release unpacks.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: another JSON of instances; None = the release's.

    Raises:
        SynthgenError: there is no such JSON.
    """
    return DatasetFiles(
        {"instances": find_annotation_file(root, (f"instances_{split}.json",), annotations)},
        find_split_folder(root, split),
    )


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of `files`, as `layer`; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name_and_key=_name_and_key)


def _name_and_key(image: CocoImage) -> tuple[str, str]:
    return coco_file_name(image.id, image.file_name), coco_key_from_name(image.id, image.file_name)
