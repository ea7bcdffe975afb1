"""Pairs the images of a YOLO dataset with their label files, folder by folder or from a list."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers._folder_listing import file_suffix, is_file, utf8_name, walk_files
from synthgen.formats.readers._yolo_config import NAME_FILES
from synthgen.formats.readers._yolo_layout import YoloPlace
from synthgen.formats.readers._yolo_paths import ListedFolders, path_parts, read_path_list, swap_last_images
from synthgen.formats.readers._yolo_rows import looks_like_labels
from synthgen.images.paths import IMAGE_SUFFIXES

_MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class YoloItem:
    """One image.

    Attributes:
        file_name: below the image folder.
        image: its file, which may be missing.
        labels: its label file, which may be missing.
        owner: another image that has the same label file and comes first; "" if there is none.
    """

    file_name: str
    image: Path
    labels: Path
    owner: str = ""


@dataclass(slots=True)
class Strays:
    """Label files without an image, and lines of lists that name none; filled while the pairs are made.

    Attributes:
        orphans, bad_lines: how many; with the first examples (file, what).
    """

    orphans: int = 0
    bad_lines: int = 0
    orphan_examples: list[tuple[str, str]] = field(default_factory=list)
    line_examples: list[tuple[str, str]] = field(default_factory=list)


def iter_items(place: YoloPlace, image_root: Path, base: Path, strays: Strays, seen: set[Path]) -> Iterator[YoloItem]:
    """The images of a place with their label files, in the order of the names, or of the list.

    Args:
        place: folders or list of a split.
        image_root: folder that file names are relative to.
        base: folder of the dataset, below which the paths of a list are found.
        strays: collects what has no image.
        seen: folders of images that were read before; they are not read again.
    """
    if place.listing is not None:
        yield from _iter_list(place.listing, image_root, base, strays)
        return
    images = place.images if place.images is not None else image_root
    used: set[Path] = set()
    for folder, names in walk_files(images):
        if folder in seen:
            continue
        seen.add(folder)
        labels = _label_folder(folder, images, place.labels)
        used.add(labels)
        yield from _pair_names(folder, names, labels, image_root, strays)
    if place.labels != images:
        for folder, names in walk_files(place.labels):
            if folder not in used:
                _note_orphans(folder, (name for name in names if name.lower().endswith(".txt")), strays)


def _label_folder(folder: Path, images: Path, labels: Path) -> Path:
    """The labels of a subfolder of the images."""
    own = swap_last_images(folder, images)
    return own if own is not None else labels / folder.relative_to(images)


def _pair_names(folder: Path, names: list[str], labels: Path, image_root: Path, strays: Strays) -> Iterator[YoloItem]:
    """The images of one folder. Of several images of one stem, the first by name has the label file."""
    images = [name for name in names if file_suffix(name) in IMAGE_SUFFIXES]
    # By stem: the label's suffix in the file's own case. Memory: a set entry and a text for each label file.
    unused: set[str] = set()
    odd_case: dict[str, str] = {}
    for name in names if labels == folder else _iter_names(labels):
        stem, suffix = name[:-4], name[-4:]
        if suffix == ".txt":
            unused.add(stem)
        elif suffix.lower() == ".txt":
            odd_case[stem] = name
    below = folder.relative_to(image_root).as_posix()
    prefix = "" if below == "." else f"{below}/"
    for name in images:
        stem = name.rpartition(".")[0]
        own = labels / (odd_case[stem] if stem in odd_case and stem not in unused else f"{stem}.txt")
        is_first = stem in unused or stem in odd_case
        unused.discard(stem)
        odd_case.pop(stem, None)
        owner = "" if is_first else _owner(images, name, stem, own)
        yield YoloItem(prefix + name, folder / name, own, prefix + owner if owner else "")
    _note_orphans(labels, chain((f"{stem}.txt" for stem in unused), odd_case.values()), strays)


def _iter_names(folder: Path) -> Iterator[str]:
    """The names in a folder without a leading dot, in any order; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as why:
        raise SynthgenError(f"cannot read {folder} ({why.strerror}); check the path and its permissions") from None


def _owner(images: list[str], name: str, stem: str, labels: Path) -> str:
    """The first image of the same stem, if the two have a label file."""
    at = bisect_left(images, f"{stem}.")
    other = images[at] if at < len(images) else name
    # Names such as a.b.jpg sort between a.BMP and a.jpg.
    while other != name and other.startswith(f"{stem}.") and other.rpartition(".")[0] != stem:
        at += 1
        other = images[at]
    return other if other != name and other.rpartition(".")[0] == stem and is_file(labels) else ""


def _note_orphans(labels: Path, names: Iterable[str], strays: Strays) -> None:
    """Count label files without an image; a text of another kind, such as a README, is none."""
    for name in sorted(names):
        if name in NAME_FILES or looks_like_labels(labels / name) is False:
            continue
        strays.orphans += 1
        if len(strays.orphan_examples) < _MAX_EXAMPLES:
            shown = utf8_name(name)
            strays.orphan_examples.append((shown, "no image has this name"))


def _iter_list(listing: Path, image_root: Path, base: Path, strays: Strays) -> Iterator[YoloItem]:
    """The images that a list names, in its order."""
    folders = ListedFolders(image_root, base)
    seen: set[int] = set()  # 64-bit hashes of images and of label files
    for number, line in read_path_list(listing):
        parts = path_parts(line)
        problem = "" if parts and file_suffix(parts[-1]) in IMAGE_SUFFIXES else "is not the path of an image"
        if parts and not problem:
            folder, label_folder = folders.find(parts[:-1])
            file_name = (folder / parts[-1]).relative_to(image_root).as_posix()
            labels = label_folder / f"{parts[-1].rpartition('.')[0]}.txt"
            if hash(file_name) not in seen:
                is_shared = hash(labels) in seen and is_file(labels)
                seen |= {hash(file_name), hash(labels)}
                yield YoloItem(file_name, folder / parts[-1], labels, "an earlier image" if is_shared else "")
                continue
            problem = "names an image a second time"
        strays.bad_lines += 1
        if len(strays.line_examples) < _MAX_EXAMPLES:
            shown = utf8_name(line[:60])
            strays.line_examples.append((f"{listing.name} line {number}", f"'{shown}' {problem}"))
