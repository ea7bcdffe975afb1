"""COCO's photographs, which several datasets annotate: their key, their folders, their names.

A number is one photograph in every release, so it is the key. The releases of 2014 and 2017 lay the same photographs
into other folders under other names; `records.images.find` finds either by the other, so that what stands in a shard
does not depend on which of them lies on this disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

COCO_IMAGE_FOLDERS = ("train2017", "val2017", "train2014", "val2014")

_NUMBERED = re.compile(r"(?:^|[/_])(\d{12})\.(?:jpg|png)$")
_COCO_2014_NAME = re.compile(r"COCO_(train2014|val2014)_\d{12}\.jpg")


def coco_image_key(image_id: int) -> str:
    """The `image_key` of a photograph, in whichever dataset it is."""
    return f"coco/{image_id:012d}"


def coco_key_from_name(image_id: int, file_name: str) -> str:
    """The same, for a file in COCO's format that may be anybody's: "" where its photographs are not named as COCO's."""
    found = _NUMBERED.search(file_name)
    own = not file_name or (found is not None and int(found[1]) == image_id)
    return coco_image_key(image_id) if own else ""


def add_coco_folder(file_name: str) -> str:
    """A photograph's path below COCO's own folder, where its bare name tells it (that of 2014)."""
    match = _COCO_2014_NAME.fullmatch(file_name)
    return f"{match[1]}/{file_name}" if match else file_name


def find_coco_image_folder(root: Path, names: Sequence[str] = COCO_IMAGE_FOLDERS) -> Path:
    """The folder that holds train2017/ or another of COCO's, for a dataset without photographs of its own.

    That is root, root/images, the `coco` beside root or, as RefCOCO's authors have it, the images/mscoco/images beside
    root; else root. Any of `names` makes it such a folder.
    """
    places = (root, root / "images", root.parent / "coco", root.parent / "images" / "mscoco" / "images")
    return next((place for place in places for name in names if (place / name).is_dir()), root)
