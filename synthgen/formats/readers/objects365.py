"""Objects365, v2 release: boxes.

Category numbers differ between the train file and the val file, so names come from the same file as the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._instances import find_annotation_file, find_split_folder
from synthgen.formats.readers._instances import read_instances as read_instances
from synthgen.formats.readers._objects365 import FLAG_FIELDS, Objects365Box, name_and_key
from synthgen.formats.readers._release import splits_with_files

TITLE = "Objects365"
LOOKS_FOR = "zhiyuan_objv2_train.json or zhiyuan_objv2_val.json"
SPLITS = ("train", "val")
LAYERS = ("annotations",)


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose files are in the release's folder, `path`."""
    return splits_with_files(path, SPLITS, files)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """zhiyuan_objv2_<split>.json below root or root/annotations, and the folder <split>, as the release unpacks.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the JSON file, if it lies elsewhere.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_annotation_file(root, (f"zhiyuan_objv2_{split}.json",), annotations)
    return DatasetFiles({"instances": source}, find_split_folder(root, split))


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of `files`, as `layer`; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name_and_key=name_and_key, box_type=Objects365Box, flag_fields=FLAG_FIELDS)
