"""Names of image files: their suffixes, and the paths that a name in an annotation file may stand for.

Archives unpack to other names than annotation files use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

#: Suffixes of photographs and label maps.
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif")
)

#: Objects365 names its images `images/v1/patch8/x.jpg`; its archives unpack to `patch8/x.jpg`.
_FOLDERS_NOT_IN_ARCHIVES = (("images", "v1"), ("images", "v2"))

# COCO moved the same photographs into other folders in 2017. A number is one photograph in all of them.
_COCO_2014 = re.compile(r"COCO_(train2014|val2014)_(\d{12}\.jpg)")
_COCO_2017 = re.compile(r"\d{12}\.jpg")
_FOLDERS_2017 = {"train2014": ("train2017",), "val2014": ("train2017", "val2017")}
_FOLDERS_2014 = {"train2017": ("train2014", "val2014"), "val2017": ("val2014",)}


def candidate_paths(root: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths below `root` that the parts of an image's name may stand for; see `images.decode.find_image`."""
    yield from _paths_of_name(root, parts)
    if not all(part.isascii() for part in parts):
        for form in ("NFC", "NFD"):
            other = tuple(unicodedata.normalize(form, part) for part in parts)
            if other != parts:
                yield from _paths_of_name(root, other)


def _paths_of_name(root: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield parts
    if parts[:2] in _FOLDERS_NOT_IN_ARCHIVES and len(parts) > 2:
        yield parts[2:]
    above = root.absolute().parts  # as the user wrote it: symbolic links are not resolved
    for name in (parts, *_coco_year_aliases(parts)):
        if name != parts:
            yield name
        for depth in range(1, min(len(name), len(above))):
            if above[-depth:] == name[:depth]:
                yield name[depth:]


def _coco_year_aliases(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """`train2014/COCO_train2014_000000460986.jpg` as `train2017/000000460986.jpg`, and vice versa."""
    *above, folder, name = ("", *parts)
    if (match := _COCO_2014.fullmatch(name)) and folder in ("", match[1]):
        found = [(match[1], name)] if not folder else []
        found += [(other, match[2]) for other in _FOLDERS_2017[match[1]]]
        yield from ((*above[1:], *other) for other in found)
    elif folder in _FOLDERS_2014 and _COCO_2017.fullmatch(name):
        yield from ((*above[1:], other, f"COCO_{other}_{name}") for other in _FOLDERS_2014[folder])
