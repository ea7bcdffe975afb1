"""Shared by datasets that annotate COCO's photographs: image keys, folders, file names.

A number is one photograph in every release, so it is the key. The releases of 2014 and 2017 have the same photographs
in other folders under other names; `images.decode.find_image` finds either. So shards do not depend on which release is
on this disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from synthgen.formats.readers._ids import is_text_id

COCO_IMAGE_FOLDERS = ("train2017", "val2017", "train2014", "val2014")

_NUMBERED = re.compile(r"(?:^|[/_])(\d{12})\.(?:jpg|png)$")
_COCO_2014_NAME = re.compile(r"COCO_(train2014|val2014)_\d{12}\.jpg")


def coco_image_key(image_id: int) -> str:
    """The `image_key` of a COCO photograph, in any dataset; "" for an id that is a text, as COCO's are numbers."""
    return "" if is_text_id(image_id) else f"coco/{image_id:012d}"


def coco_file_name(image_id: int, file_name: str) -> str:
    """The file name of a photograph: that of the file, else COCO's of 2017; "" for an id that is a text."""
    return file_name or ("" if is_text_id(image_id) else f"{image_id:012d}.jpg")


def coco_key_from_name(image_id: int, file_name: str) -> str:
    """The same for any COCO-style file: "" if the file name is not COCO's."""
    found = _NUMBERED.search(file_name)
    own = not file_name or (found is not None and int(found[1]) == image_id)
    return coco_image_key(image_id) if own else ""


def add_coco_folder(file_name: str) -> str:
    """A photograph's path below COCO's folder, if its file name implies it (names of 2014)."""
    match = _COCO_2014_NAME.fullmatch(file_name)
    return f"{match[1]}/{file_name}" if match else file_name


def find_coco_image_folder(root: Path, names: Sequence[str] = COCO_IMAGE_FOLDERS) -> Path:
    """The folder that contains train2017/ or another COCO folder, for a dataset without its own photographs.

    It is root, root/images, `coco` beside root, or images/mscoco/images beside root (RefCOCO's layout), whichever
    contains any of `names`; else root.
    """
    places = (root, root / "images", root.parent / "coco", root.parent / "images" / "mscoco" / "images")
    return next((place for place in places for name in names if (place / name).is_dir()), root)
