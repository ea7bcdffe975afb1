"""Folders of COCO JSON files, as exporters lay them out.

    train/_annotations.coco.json beside the images      Roboflow
    annotations/instances_train.json, images/train/      Datumaro, CVAT (with one folder images/ or none, too)
    labels.json, data/                                   FiftyOne
    train/labels.json, train/data/                       one file in each split's folder, of any name
    annotations/pets_train.json, pets_val.json           files with the splits in their names, here or in the folder
    any.json beside images/, photos/ or the images       one file

A split's name is the folder's or the one in the file's name; a single file without one is "train".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from synthgen.formats.readers._label_files import read_start

#: Roboflow's name of the annotation file in each split's folder.
ROBOFLOW_FILE = "_annotations.coco.json"

#: A folder with more JSON files or more folders than this has another layout.
MAX_NAMES = 1000

_SPLIT_ORDER = {name: i for i, name in enumerate(("train", "valid", "val", "validation", "test"))}
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_INSTANCES = re.compile(r"instances_([A-Za-z0-9][A-Za-z0-9_-]{0,99})\.json(?:\.gz)?")
_SPLIT_IN_NAME = re.compile(r"(?:^|.*[_.-])((?:trainval|train|validation|valid|val|test)(?:\d{4})?)(?:[_.-].*|$)", re.I)
_HEAD_BYTES = 2**16

# Keys of COCO JSON, and keys that only other formats have, as they stand at the start of a file.
_COCO_KEY = re.compile(rb'"(?:images|annotations|categories|licenses|info)"\s*:')
_OTHER_KEY = re.compile(rb'"(?:shapes|items|regions|_via_img_metadata|segments_info|imageData|annotation_groups)"\s*:')


@dataclass(frozen=True, slots=True)
class CocoSplit:
    """One split of a folder.

    Attributes:
        annotations: its JSON file; image_folder: the folder of its images.
    """

    annotations: Path
    image_folder: Path


def find_coco_splits(folder: Path) -> dict[str, CocoSplit]:
    """The splits of a folder of COCO JSON files, by name, train first; {} if it is not such a folder."""
    found = (
        _roboflow_splits(folder)
        or _instances_splits(folder)
        or _split_folders(folder)
        or _named_splits(folder)
        or _single_file(folder)
    )
    return dict(sorted(found.items(), key=lambda one: (_SPLIT_ORDER.get(one[0], len(_SPLIT_ORDER)), one[0])))


def looks_like_coco(path: Path, *, with_segments: bool = False) -> bool:
    """Whether the start of a file looks like that of a COCO JSON file.

    Args:
        path: the file.
        with_segments: whether it may have "segments_info", as panoptic files do.
    """
    if path.name.lower().endswith(".json.gz"):
        return path.is_file()
    head = read_start(path, _HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if with_segments:
        head = head.replace(b'"segments_info"', b'""')
    return head.startswith(b"{") and bool(_COCO_KEY.search(head)) and not _OTHER_KEY.search(head)


def split_of_file(path: Path) -> str:
    """The split that a file's name or, in a Roboflow export, its folder tells; "train" if neither does."""
    if path.name == ROBOFLOW_FILE and _SPLIT_NAME.fullmatch(path.absolute().parent.name):
        return path.absolute().parent.name
    match = _INSTANCES.fullmatch(path.name)
    return match[1] if match else "train"


def _roboflow_splits(folder: Path) -> dict[str, CocoSplit]:
    found = {
        name: CocoSplit(folder / name / ROBOFLOW_FILE, folder / name)
        for name in _names(folder, "")
        if _SPLIT_NAME.fullmatch(name) and (folder / name / ROBOFLOW_FILE).is_file()
    }
    if not found and (folder / ROBOFLOW_FILE).is_file():
        path = folder / ROBOFLOW_FILE
        return {split_of_file(path): CocoSplit(path, folder)}
    return found


def _instances_splits(folder: Path) -> dict[str, CocoSplit]:
    for place in (folder / "annotations", folder):
        matches = [match for name in _names(place, ".json", ".json.gz") if (match := _INSTANCES.fullmatch(name))]
        matches = [match for match in matches if (place / match[0]).is_file()]
        if matches:
            return {match[1]: CocoSplit(place / match[0], _image_folder(folder, match[1])) for match in matches}
    return {}


def _split_folders(folder: Path) -> dict[str, CocoSplit]:
    """Folders called as splits, with one file in each."""
    found = {}
    for name in _names(folder, ""):
        if name.lower() in _SPLIT_ORDER and len(files := _coco_files(folder / name)) == 1:
            found[name] = CocoSplit(files[0], _image_folder(folder / name, name))
    return found


def _named_splits(folder: Path) -> dict[str, CocoSplit]:
    """Several files, each with a split of its own in its name. One without, or two of one split, are ambiguous."""
    files = [*_coco_files(folder), *_coco_files(folder / "annotations")]
    names = [match[1] if (match := _SPLIT_IN_NAME.fullmatch(path.name.partition(".json")[0])) else "" for path in files]
    if len(files) < 2 or not all(names) or len(set(names)) < len(names):
        return {}
    return {name: CocoSplit(path, _image_folder(folder, name)) for name, path in zip(names, files, strict=True)}


def _single_file(folder: Path) -> dict[str, CocoSplit]:
    files = [*_coco_files(folder), *_coco_files(folder / "annotations")]
    return {"train": CocoSplit(files[0], _image_folder(folder, "train"))} if len(files) == 1 else {}


def _coco_files(place: Path) -> list[Path]:
    return [place / name for name in _names(place, ".json", ".json.gz") if looks_like_coco(place / name)]


def _image_folder(folder: Path, split: str) -> Path:
    """The first of the usual image folders that exists, else the dataset's folder."""
    places = (f"images/{split}", split, f"{split}/images", "images", "data", "photos", "JPEGImages")
    return next((folder / place for place in places if (folder / place).is_dir()), folder)


def _names(folder: Path, *suffixes: str) -> list[str]:
    """The names in a folder that end so, sorted; those of folders for the suffix "". None if there are too many."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir() if suffixes == ("",) else entry.name.lower().endswith(suffixes):
                    found.append(entry.name)
                    if len(found) > MAX_NAMES:
                        return []
    except OSError:
        return []
    return sorted(found)
