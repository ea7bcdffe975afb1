"""DaTaSeg's masks, drawn by people, of 1,000 photographs of Objects365's val split: a COCO-style file.

The photographs are Objects365's own and carry its keys: whoever trains on `objects365/val` has seen them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import Annotations, Categories, Files, Images
from synthgen.formats.readers._instances import complete, find_images, find_json
from synthgen.formats.readers._instances import read as read_instances
from synthgen.formats.readers._objects365 import MARKS, MarkedBox, MarkedMask, name

SPLITS = ("val",)
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]


def files(root: Path, split: str, annotations: Path | None) -> Files:
    """o365_instance_seg_val.json below root or root/annotations, and the folder <split> of Objects365.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_json(root, (f"o365_instance_seg_{split}.json",), annotations)
    return Files({"instances": source}, find_images(root, split))


def read(files: Files, layer: str) -> Iterator[Images | Annotations | Categories]:
    """The content of the file; see `synthgen.formats.readers`."""
    return read_instances(files, layer, name=name, kind=MarkedBox, masked_kind=MarkedMask, flags=MARKS)
