"""Finds the folders of images and labels of a YOLO dataset's splits."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from synthgen.formats.readers._folder_listing import file_suffix, first_names, is_file, is_folder
from synthgen.formats.readers._yolo_config import NAME_FILES, YoloConfig, find_config, find_names_file
from synthgen.formats.readers._yolo_paths import IMAGE_FOLDERS, existing_tail, listed_label_folder, swap_last_images
from synthgen.formats.readers._yolo_rows import looks_like_labels
from synthgen.images.paths import IMAGE_SUFFIXES

_SPLIT_NAME = re.compile("train|val|test", re.IGNORECASE)
_MAX_LOOKS = 20  # label files that recognition opens
_MAX_DEPTH, _MAX_BRANCHES = 3, 5  # levels of folders below the labels' own, and folders of each


@dataclass(frozen=True, slots=True)
class YoloPlace:
    """One folder of images with its labels, or one list of images.

    Attributes:
        images: the folder of the images, with their subfolders; None if only labels are there.
        labels: the folder of the labels; the same as `images` where they lie beside each other.
        listing: a text file with the paths of the images, a line each; None = all images of the folder.
    """

    images: Path | None
    labels: Path
    listing: Path | None = None


def find_places(root: Path, config: YoloConfig | None, split: str) -> list[YoloPlace]:
    """The folders and lists of a split; empty if it is not there.

    Args:
        root: folder of the dataset.
        config: the dataset's YAML file or `obj.data`, if there is one.
        split: name of the split, such as "val".
    """
    if config is not None:
        named = _named_places(root, config, split)
        if named or _names_any_split(root, config):  # then no folder is guessed: it may hold other images
            return named
    return [place for name, place in _folder_layout(root) if name == split and _holds_rows(place.labels)]


def find_splits(root: Path, config: YoloConfig | None) -> tuple[str, ...]:
    """The splits that have labels: those that the config names, else those that the folders' names say."""
    if config is not None and _names_any_split(root, config):
        found = {split: _named_places(root, config, split) for split in config.splits}
        return tuple(split for split, places in found.items() if any(_holds_rows(place.labels) for place in places))
    return tuple(dict.fromkeys(name for name, place in _folder_layout(root) if _holds_rows(place.labels)))


def _names_any_split(root: Path, config: YoloConfig) -> bool:
    """Whether at least one of a config's splits is below its folder."""
    return len(find_missing_splits(root, config)) < len(config.splits)


def _named_places(root: Path, config: YoloConfig, split: str) -> list[YoloPlace]:
    """The places that a config names for a split, each once."""
    found = (_resolve_place(root, text) for text in config.splits.get(split, ()))
    return list(dict.fromkeys(place for place in found if place is not None))


def find_missing_splits(root: Path, config: YoloConfig) -> dict[str, tuple[str, ...]]:
    """The splits that a config names and that are not below its folder, with their paths."""
    return {
        split: paths
        for split, paths in config.splits.items()
        if not any(existing_tail(root, text) is not None for text in paths)
    }


def find_unlabeled_splits(root: Path, config: YoloConfig | None) -> dict[str, Path]:
    """The splits whose images are there without labels, as those of a test set, with the folder or list of the images.

    `find_splits` leaves them out.
    """
    if config is not None and _names_any_split(root, config):
        places = {split: _named_places(root, config, split) for split in config.splits}
        labels = {split: [place.labels for place in own] for split, own in places.items()}
        images = {split: own[0].images or own[0].listing for split, own in places.items() if own}
    else:
        own_images = next((root / name for name in IMAGE_FOLDERS if is_folder(root / name)), None)
        names = [name for name in _subfolders(own_images or root) if _SPLIT_NAME.match(name)]
        images = {name: own_images / name if own_images else root / name / "images" for name in names}
        labels = {name: [root / "labels" / name if own_images else root / name / "labels"] for name in names}
    return {
        split: path
        for split, path in images.items()
        if path is not None and path.exists() and not any(map(_holds_rows, labels[split]))
    }


def _resolve_place(root: Path, text: str) -> YoloPlace | None:
    """The folder or the list that a config names."""
    path = existing_tail(root, text)
    if path is None:
        return None
    if is_file(path):
        if path.suffix.lower() != ".txt":
            return None
        labels = listed_label_folder(path, root)
        return YoloPlace(None, labels, path)
    return _place_of(path, root)


def _place_of(path: Path, root: Path) -> YoloPlace:
    """A folder of images with its labels, found as Ultralytics does: the last `images` of its path is `labels`."""
    labels = swap_last_images(path, root)
    if labels is None and is_folder(path / "images") and is_folder(path / "labels"):
        return YoloPlace(path / "images", path / "labels")
    return YoloPlace(path, labels if labels is not None else path)


def _folder_layout(root: Path) -> list[tuple[str, YoloPlace]]:
    """The (split, place) of a folder without a usable config; checks that there are labels where it has to guess."""
    labels = root / "labels"
    images = next((root / name for name in IMAGE_FOLDERS if is_folder(root / name)), None)
    if is_folder(labels):
        if images is None:
            return [("train", YoloPlace(None, labels))]
        names = [name for name in _subfolders(images) if is_folder(labels / name)]
        if any(map(_SPLIT_NAME.match, names)) and not _holds_images(images):
            return [(name, YoloPlace(images / name, labels / name)) for name in names]
        return [("train", YoloPlace(images, labels))]
    folders = [root / name for name in _subfolders(root)]
    with_both = [folder for folder in folders if is_folder(folder / "images") and is_folder(folder / "labels")]
    with_both = [folder for folder in with_both if _SPLIT_NAME.match(folder.name) or not _is_dataset(folder)]
    if len(with_both) == 1 and not _SPLIT_NAME.match(with_both[0].name):
        return _folder_layout(with_both[0])  # the dataset is in a folder of its own, as in an unpacked archive
    if with_both:
        # Other names than those of splits are parts of one dataset, such as cameras.
        are_splits = any(_SPLIT_NAME.match(folder.name) for folder in with_both)
        places = [YoloPlace(folder / "images", folder / "labels") for folder in with_both]
        names = [folder.name if are_splits else "train" for folder in with_both]
        return list(zip(names, places, strict=True))
    if _holds_images(root) and _holds_rows(root, only_rows=True):
        return [("train", YoloPlace(root, root))]
    beside = [path for path in folders if _holds_images(path) and _holds_rows(path, only_rows=True)]
    if len(beside) == 1 and not _SPLIT_NAME.match(beside[0].name):
        return [("train", YoloPlace(beside[0], beside[0]))]
    return [(path.name, YoloPlace(path, path)) for path in beside]


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is a dataset of its own, with its own names, and not a split of the one above."""
    return find_names_file(folder) is not None or find_config(folder) is not None


def _holds_rows(folder: Path, *, only_rows: bool = False) -> bool:
    """Whether text files of a folder, or of its first subfolders, hold YOLO rows; or all of those looked at are empty.

    Args:
        folder: looked at with a few folders below it.
        only_rows: empty label files are not enough.
    """
    looks, has_empty = 0, False
    waiting = deque([(folder, 0)])
    while waiting:
        place, depth = waiting.popleft()
        for name in first_names(place):
            if not name.lower().endswith(".txt") or name in NAME_FILES:
                continue
            found = looks_like_labels(place / name)
            if found:
                return True
            has_empty |= found is None
            looks += 1
            if looks >= _MAX_LOOKS:
                return has_empty and not only_rows
        if depth < _MAX_DEPTH:
            waiting.extend((place / name, depth + 1) for name in _subfolders(place)[:_MAX_BRANCHES])
    return has_empty and not only_rows


def _holds_images(folder: Path) -> bool:
    return any(file_suffix(name) in IMAGE_SUFFIXES for name in first_names(folder))


def _subfolders(folder: Path) -> list[str]:
    names = (name for name in first_names(folder) if not name.startswith("."))
    return [name for name in names if is_folder(folder / name)]
