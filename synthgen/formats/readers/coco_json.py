"""COCO-style JSON files of users: boxes, and masks if present. Needs `--annotations`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._coco_records import CocoImage
from synthgen.formats.readers._instances import complete, find_annotation_file, mask_problems, shorten_mask
from synthgen.formats.readers._instances import read_instances as read_instances

SPLITS = ("train",)
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "mask_problems", "read", "shorten_mask"]

_COCO_URL = re.compile(r"https?://(?:images|farm\d*)\.cocodataset\.org/(?:[^?#]*/)?(?:COCO_\w+_)?(\d{12})\.jpg")


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:  # noqa: ARG001 - a file of one's own has no splits
    """The file that `annotations` names; images are below `root`.

    Raises:
        SynthgenError: no file is named, or it is not there.
    """
    if annotations is None:
        raise SynthgenError("dataset 'coco-json' reads a file of your own; name it with --annotations FILE.json")
    return DatasetFiles({"instances": find_annotation_file(root, (), annotations)}, root)


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the file; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name_and_key=_name_and_key)


def _name_and_key(image: CocoImage) -> tuple[str, str]:
    """A COCO photograph has COCO's key, whatever its id in this file; others get a key from the file name."""
    coco = _COCO_URL.fullmatch(image.coco_url)
    return image.file_name or image.coco_url.rsplit("/", 1)[-1], f"coco/{coco[1]}" if coco else ""
