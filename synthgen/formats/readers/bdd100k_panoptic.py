"""BDD100K's panoptic segmentation: bitmasks with a class, attributes and an object number in each pixel.

The release unpacks to `bdd100k/{images/10k,labels/pan_seg/bitmasks}/{train,val}`. A bitmask is a PNG of four channels:
red is the class, green the attributes, and 256 * blue + alpha the object
(https://doc.bdd100k.com/format.html#bitmask). An object is an annotation; a class of stuff has one for all its pixels.

Class 0, "unlabeled", makes no annotation. The benchmark leaves objects with the attribute "crowd" or "ignore" out of
the evaluation, so both are crowds here; "ignore" is the flag `ignored`, too. "truncated" and "occluded" are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._image_mask_pairs import RegionMeaning, complete, pair_files, read_pairs
from synthgen.formats.readers._label_regions import relabel_in_place
from synthgen.formats.readers._release import splits_with_files
from synthgen.images.bitmask import load_bitmask

TITLE = "BDD100K panoptic"
SPLITS = ("train", "val")
LAYERS = ("annotations", "human")
LOOKS_FOR = "the folders labels/pan_seg/bitmasks/train or val, and images/10k/train or val"

__all__ = ["LAYERS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_NAME_LIST = """
dynamic, ego vehicle, ground, static, parking, rail track, road, sidewalk, bridge, building, fence, garage, guard rail,
tunnel, wall, banner, billboard, lane divider, parking sign, pole, polegroup, street light, traffic cone,
traffic device, traffic light, traffic sign, traffic sign frame, terrain, vegetation, sky, person, rider, bicycle, bus,
car, caravan, motorcycle, trailer, train, truck
"""

#: By class, from 1 on (https://github.com/bdd100k/bdd100k/blob/master/bdd100k/label/label.py).
CATEGORY_NAMES = tuple(name.strip() for name in _NAME_LIST.split(","))

#: The classes from "person" on are things (`hasInstances` in the same file).
STUFF_LABELS = frozenset(range(1, 31))

_BITMASK_FOLDERS = ("labels/pan_seg/bitmasks", "pan_seg/bitmasks", "bitmasks")
_IMAGE_FOLDERS = ("images/10k", "10k", "images")
_STEM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}")  # of the release's files
_IGNORE, _CROWD = 1, 2  # bits of the green channel


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose bitmasks and photographs are in the release's folder, `path`."""
    return splits_with_files(path, SPLITS, files)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The release's folders below root or root/bdd100k.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: a user's own folder of bitmasks; its photographs are below `root` or in the user's image folder.

    Raises:
        SynthgenError: the folders are missing.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise SynthgenError(f"{annotations} is no folder; --annotations should name the folder of the bitmasks")
        return DatasetFiles({"images": root, "labels": annotations}, root)
    for place in (root, root / "bdd100k"):
        bitmasks = next((place / one / split for one in _BITMASK_FOLDERS if (place / one / split).is_dir()), None)
        images = next((place / one / split for one in _IMAGE_FOLDERS if (place / one / split).is_dir()), None)
        if bitmasks is not None and images is not None:
            return DatasetFiles({"images": images, "labels": bitmasks}, images)
    raise SynthgenError(
        f'no folders images/10k/{split} and labels/pan_seg/bitmasks/{split} in {root}; unpack "10K Images" and '
        '"Panoptic Segmentation" of BDD100K there, or name the two with --images and --annotations'
    )


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the bitmasks; see `synthgen.formats.readers`. The boxes are the objects' own.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a folder is missing, or no photograph has a bitmask.
    """
    pairs = pair_files(files.sources["images"], files.sources["labels"])
    stems = [PurePosixPath(pair.file_name).stem for pair in pairs]
    pairs = [
        replace(pair, image_key=f"bdd100k/{stem}") if _STEM.fullmatch(stem) else pair
        for pair, stem in zip(pairs, stems, strict=True)
    ]
    yield from read_pairs(
        pairs, files, load_bitmask_regions, ignore_labels={0}, with_masks=layer == "human", explain=_explain
    )
    yield Categories(dict(enumerate(CATEGORY_NAMES, start=1)), STUFF_LABELS)


def load_bitmask_regions(path: Path) -> NDArray[np.uint32]:
    """The bitmask as `images.bitmask.load_bitmask` gives it, uint32 [H, W], with 0 where no object is.

    The benchmark's own tools take object 0 and class 0 for background
    (https://github.com/bdd100k/bdd100k/blob/master/bdd100k/common/bitmask.py).

    Args:
        path: untrusted PNG.

    Raises:
        ImageError: it cannot be decoded, or is no bitmask.
    """
    return relabel_in_place(load_bitmask(path), _without_background)


def _without_background(pixels: NDArray[Any], _: slice) -> NDArray[Any]:
    return np.where((pixels & 0xFFFF == 0) | (pixels >> 24 == 0), 0, pixels)


def _explain(labels: NDArray[np.int64]) -> RegionMeaning:
    attributes = labels >> 16 & 0xFF
    ignored = (attributes & _IGNORE).astype(np.bool_)
    return RegionMeaning(labels >> 24, (attributes & _CROWD).astype(np.bool_) | ignored, {"ignored": ignored})
