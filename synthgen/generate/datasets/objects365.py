"""Objects365, v2 release: boxes.

The categories are numbered otherwise in the train file than in the val file: names come from the same file, always.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from synthgen.generate.datasets import Annotations, Categories, Files, Images
from synthgen.generate.datasets._instances import Box, Image, Int64, find_images, find_json, truth
from synthgen.generate.datasets._instances import read as read_instances

SPLITS = ("train", "val")
LAYERS = ("annotations",)


class _Box(Box, gc=False):
    isfake: Int64 = 0
    isreflected: Int64 = 0

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        found = super().mend(value)
        found.isfake, found.isreflected = truth(value.get("isfake")), truth(value.get("isreflected"))
        return found


def files(root: Path, split: str, annotations: Path | None) -> Files:
    """zhiyuan_objv2_<split>.json below root or root/annotations, and the folder <split>, as the release unpacks.

    Raises:
        SynthgenError: there is no such JSON.
    """
    source = find_json(root, (f"zhiyuan_objv2_{split}.json",), annotations)
    return Files({"instances": source}, find_images(root, split))


def read(files: Files, layer: str) -> Iterator[Images | Annotations | Categories]:
    """The content of the file; see `synthgen.generate.datasets`."""
    return read_instances(files, layer, name=_name, kind=_Box, flags={"fake": "isfake", "reflected": "isreflected"})


def _name(image: Image) -> tuple[str, str]:
    return image.file_name, f"objects365/{image.id:08d}"
