"""Objects365, v2 release: boxes.

Category numbers differ between the train file and the val file, so names come from the same file as the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._instances import find_annotation_file, find_split_folder
from synthgen.formats.readers._instances import read_instances as read_instances
from synthgen.formats.readers._objects365 import FLAG_FIELDS, Objects365Box, name_and_key

SPLITS = ("train", "val")
LAYERS = ("annotations",)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """zhiyuan_objv2_<split>.json below root or root/annotations, and the folder <split>, as the release unpacks.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_annotation_file(root, (f"zhiyuan_objv2_{split}.json",), annotations)
    return DatasetFiles({"instances": source}, find_split_folder(root, split))


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the file; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name_and_key=name_and_key, box_type=Objects365Box, flag_fields=FLAG_FIELDS)
