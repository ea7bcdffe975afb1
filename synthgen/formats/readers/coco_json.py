"""COCO-style JSON files of users: boxes, and masks if present; one file, or a folder as exporters lay it out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._ade20k import key_from_text_id
from synthgen.formats.readers._coco_folders import find_coco_splits, looks_like_coco, split_of_file
from synthgen.formats.readers._coco_records import CocoImage
from synthgen.formats.readers._instances import complete, find_annotation_file, mask_problems, shorten_mask
from synthgen.formats.readers._instances import read_instances as read_instances

TITLE = "COCO JSON"
SPLITS = ("train",)
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True
LOOKS_FOR = (
    "a JSON file with 'images' and 'annotations', alone in a folder or in the folder of each split, or several such "
    "files with their splits in their names, such as annotations/instances_train.json"
)

__all__ = [
    "LAYERS",
    "LAYOUT_SPLITS",
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

_COCO_URL = re.compile(r"https?://(?:images|farm\d*)\.cocodataset\.org/(?:[^?#]*/)?(?:COCO_\w+_)?(\d{12})\.jpg")


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of a COCO JSON file at `path`, or of a folder of such files; see `_coco_folders`."""
    if path.is_dir():
        return tuple(find_coco_splits(path)) or None
    return (split_of_file(path),) if looks_like_coco(path) else None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The file that `annotations` names, with images below `root`; else the split's file and images in a folder.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the JSON file; None = find it in `root`.

    Raises:
        SynthgenError: no file is named, or it is not there.
    """
    if annotations is not None:
        return DatasetFiles({"instances": find_annotation_file(root, (), annotations)}, root)
    splits = find_coco_splits(root)
    if split not in splits:
        have = f" (it has {', '.join(splits)})" if splits else ""
        raise SynthgenError(
            f"no COCO JSON file of the split '{split}' in {root}{have}; name your file with --annotations FILE.json"
        )
    return DatasetFiles({"instances": splits[split].annotations}, splits[split].image_folder)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of `files`, as `layer`; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name_and_key=_name_and_key)


def _name_and_key(image: CocoImage) -> tuple[str, str]:
    """A COCO photograph has COCO's key, whatever its id in this file, and one of ADE20K its key; others get a key from
    the file name.
    """
    coco = _COCO_URL.fullmatch(image.coco_url)
    key = f"coco/{coco[1]}" if coco else key_from_text_id(image.id_text, image.file_name)
    return image.file_name or image.coco_url.rsplit("/", 1)[-1], key
