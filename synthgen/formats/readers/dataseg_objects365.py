"""DaTaSeg's human masks for 1,000 photographs of Objects365's val split, in a COCO-style file.

The photographs are Objects365's and have its keys, so the leakage checks detect training on `objects365/val`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._instances import (
    complete,
    find_annotation_file,
    find_split_folder,
    mask_problems,
    shorten_mask,
)
from synthgen.formats.readers._instances import read_instances as read_instances
from synthgen.formats.readers._objects365 import FLAG_FIELDS, Objects365Box, Objects365Mask, name_and_key

SPLITS = ("val",)
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "mask_problems", "read", "shorten_mask"]


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """o365_instance_seg_val.json below root or root/annotations, and the folder <split> of Objects365.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the JSON file, if it lies elsewhere.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_annotation_file(root, (f"o365_instance_seg_{split}.json",), annotations)
    return DatasetFiles({"instances": source}, find_split_folder(root, split))


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of `files`, as `layer`; see `synthgen.formats.readers`."""
    return read_instances(
        files,
        layer,
        name_and_key=name_and_key,
        box_type=Objects365Box,
        mask_type=Objects365Mask,
        flag_fields=FLAG_FIELDS,
    )
