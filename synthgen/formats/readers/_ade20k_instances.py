"""ADE20K's instance maps of the Places Challenge 2017: a class and an object number in each pixel.

`annotations_instance.tar` (http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar) unpacks
beside images/ and annotations/ of ADEChallengeData2016. Its PNGs have the number of one of 100 classes in red, 0 for
none, and in green the object of the image, from 1 on. Mask2Former's and Mask DINO's preparation reads them alike
(https://github.com/facebookresearch/Mask2Former/blob/main/datasets/prepare_ade20k_pan_seg.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS
from synthgen.formats.readers._label_regions import relabel_in_place
from synthgen.images.decode import load_label_map

#: The SceneParse150 label of each of the 100 classes; the first stands for class 0. The classes are the labels of
#: things in their order (https://github.com/facebookresearch/Mask2Former/blob/main/datasets/
#: ade20k_instance_catid_mapping.txt).
LABEL_OF_CLASS = np.array(
    [0, *(label for label in range(1, len(CATEGORY_NAMES) + 1) if label not in STUFF_LABELS)], np.int64
)

#: A label of `load_instance_map` is this times its category, plus the number of the object.
OBJECTS_PER_CATEGORY = 256

SPLITS = ("training", "validation")

_RELEASE = "ADEChallengeData2016"
_INSTANCE_FOLDER = "annotations_instance"
_SEMANTIC_FOLDER = "annotations"


def recognize_instance_files(path: Path, *, with_stuff: bool) -> tuple[str, ...] | None:
    """The splits whose folders are in a release's folder; None if there are none, or if the path is a file.

    Args:
        path: a folder or a file.
        with_stuff: whether the label maps of the scene parsing task must be there, too.
    """
    if not path.is_dir():
        return None
    return tuple(split for split in SPLITS if _find_folders(_places_inside(path), split, with_stuff)) or None


def find_instance_files(root: Path, split: str, annotations: Path | None, *, with_stuff: bool) -> DatasetFiles:
    """The folders of a split below root, root/ADEChallengeData2016, or these beside `root` or in ade20k/ beside it.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the folder of the split's instance maps, if it is elsewhere; the label maps lie in
            annotations/ beside its parent folder, and the photographs in images/ there, or below `root`.
        with_stuff: look for the label maps of the scene parsing task, too.

    Raises:
        SynthgenError: a folder is missing.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise SynthgenError(f"{annotations} is no folder; --annotations should name ADE20K's instance maps")
        release, below = annotations.absolute().parent.parent, annotations.absolute().name
        images, labels = release / "images" / below, release / _SEMANTIC_FOLDER / below
        if with_stuff and not labels.is_dir():
            raise SynthgenError(f"no folder {labels}; unpack ADEChallengeData2016.zip in {release}")
        found = {"images": images if images.is_dir() else root, "instances": annotations}
        found |= {"labels": labels} if with_stuff else {}
        return DatasetFiles(found, found["images"])
    beside = (root.parent / _RELEASE, root.parent / "ade20k" / _RELEASE, root.parent / "ade20k")
    found = _find_folders((*_places_inside(root), *beside), split, with_stuff)
    if not found:
        labels_too = f", {_SEMANTIC_FOLDER}/{split}" if with_stuff else ""
        raise SynthgenError(
            f"no folders images/{split}{labels_too} and {_INSTANCE_FOLDER}/{split} in {root}; unpack "
            f"{_RELEASE}.zip and {_INSTANCE_FOLDER}.tar there"
        )
    return DatasetFiles(found, found["images"])


def load_instance_map(path: Path) -> NDArray[np.integer[Any]]:
    """An instance map, int32 [H, W]: `OBJECTS_PER_CATEGORY` * category + object number, 0 where no object is.

    Categories are those of SceneParse150. A class beyond the 100 is category 0, which no name belongs to.

    Args:
        path: untrusted PNG.

    Raises:
        ImageError: it cannot be decoded.
    """
    return relabel_in_place(load_label_map(path, color_coded=True), lambda colors, _: _LABEL_OF_RED_GREEN[colors >> 8])


def _label_of_red_green() -> NDArray[np.int32]:
    """By 256 * class + object number, int32 [65536], the label of `load_instance_map`."""
    classes, numbers = np.divmod(np.arange(2**16), OBJECTS_PER_CATEGORY)
    known = np.where(classes < len(LABEL_OF_CLASS), classes, 0)
    return np.where(numbers > 0, LABEL_OF_CLASS[known] * OBJECTS_PER_CATEGORY + numbers, 0).astype(np.int32)


_LABEL_OF_RED_GREEN = _label_of_red_green()


def _places_inside(root: Path) -> tuple[Path, ...]:
    return root, root / _RELEASE


def _find_folders(places: Iterable[Path], split: str, with_stuff: bool) -> dict[str, Path]:
    """The folders of a split by role, of the first place that has all of them; empty if none has."""
    names = {"images": "images", "instances": _INSTANCE_FOLDER} | ({"labels": _SEMANTIC_FOLDER} if with_stuff else {})
    for place in places:
        found = {role: place / name / split for role, name in names.items()}
        if all(folder.is_dir() for folder in found.values()):
            return found
    return {}
