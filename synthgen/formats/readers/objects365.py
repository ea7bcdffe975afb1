"""Objects365, v2 release: boxes.

The categories are numbered otherwise in the train file than in the val file: names come from the same file, always.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import Annotations, Categories, Files, Images
from synthgen.formats.readers._instances import find_images, find_json
from synthgen.formats.readers._instances import read as read_instances
from synthgen.formats.readers._objects365 import MARKS, MarkedBox, name

SPLITS = ("train", "val")
LAYERS = ("annotations",)


def files(root: Path, split: str, annotations: Path | None) -> Files:
    """zhiyuan_objv2_<split>.json below root or root/annotations, and the folder <split>, as the release unpacks.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_json(root, (f"zhiyuan_objv2_{split}.json",), annotations)
    return Files({"instances": source}, find_images(root, split))


def read(files: Files, layer: str) -> Iterator[Images | Annotations | Categories]:
    """The content of the file; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name=name, kind=MarkedBox, flags=MARKS)
