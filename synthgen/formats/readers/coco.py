"""COCO instances: boxes, and human masks as a layer of their own.

The splits of 2014 and 2017 are the same photographs, divided in two ways: never train on one and evaluate on the other.
Their keys are the same, so that the trainer sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import Annotations, Categories, Files, Images
from synthgen.formats.readers._coco_images import key_by_name
from synthgen.formats.readers._instances import Image, complete, find_images, find_json
from synthgen.formats.readers._instances import read as read_instances

SPLITS = ("train2017", "val2017", "train2014", "val2014")
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]


def files(root: Path, split: str, annotations: Path | None) -> Files:
    """annotations/instances_<split>.json and the folder <split>, as the release unpacks.

    Raises:
        SynthgenError: there is no such JSON.
    """
    return Files({"instances": find_json(root, (f"instances_{split}.json",), annotations)}, find_images(root, split))


def read(files: Files, layer: str) -> Iterator[Images | Annotations | Categories]:
    """The content of the file; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name=_name)


def _name(image: Image) -> tuple[str, str]:
    return image.file_name or f"{image.id:012d}.jpg", key_by_name(image.id, image.file_name)
