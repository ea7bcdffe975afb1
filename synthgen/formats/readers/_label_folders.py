"""Folders with one annotation file an image: which splits there are, and which image belongs to which file.

Annotation files lie beside the images, or in a folder of their own beside a folder of images. Splits are folders named
train, val, test and the like: at the top, or inside both of these folders.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from synthgen.formats.readers._image_mask_pairs import list_images
from synthgen.formats.readers._object_rows import ObjectRows
from synthgen.images.decode import ImageError, find_image, read_image_header
from synthgen.images.paths import IMAGE_SUFFIXES

#: Names of folders that are splits, in lower case, in the order in which they are named.
SPLIT_NAMES = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")

_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "photos")
_MAX_ENTRIES = 5_000  # of a folder that are looked at for annotation files or images
_MAX_INNER_ENTRIES = 500  # of each of the folders below it
_MAX_INNER_FOLDERS = 20
_MAX_SUBFOLDER_ENTRIES = 50_000  # of a folder that are looked at for folders
_MAX_SUBFOLDERS = 1_000
_MAX_FILES = 1_000  # annotation files of a folder that are opened, if each is a split
_MAX_SAMPLES = 10  # annotation files of a folder that are opened


class LabelFormat(NamedTuple):
    """How a format's annotation files are found.

    Attributes:
        suffix: of the files, in lower case, with its dot.
        folder_names: usual names of folders of annotation files, in lower case.
        is_label_file: whether a file looks like one of this format; reads only a part of it.
    """

    suffix: str
    folder_names: tuple[str, ...]
    is_label_file: Callable[[Path], bool]


def find_label_folders(root: Path, labels: LabelFormat) -> dict[str, Path]:
    """The folder of annotation files by split; empty if there are none. Looks at a few thousand names at most."""
    splits: dict[str, Path] = {}
    for folder in _split_folders(root):
        found = next((place for place in _label_places(folder, labels) if _holds(place, labels)), None)
        if found is not None:
            splits[folder.name] = found
    for place in () if splits else _label_places(root, labels):
        splits = {folder.name: folder for folder in _split_folders(place) if _holds(folder, labels)}
        if not splits and _holds(place, labels):
            splits = {"train": place}
        if splits:
            break
    return splits


def add_unlabeled_splits(rows: ObjectRows, root: Path, labels: LabelFormat) -> None:
    """Count folders of splits that have images and no annotation files, such as those of a test set."""
    labeled = {name.lower() for name in find_label_folders(root, labels)}
    places = [root, *(below for below in _subfolders(root) if below.name.lower() in _IMAGE_FOLDERS)]
    for folder in (folder for place in places for folder in _split_folders(place)):
        inside = [folder, *(below for below in _subfolders(folder) if below.name.lower() in _IMAGE_FOLDERS)]
        if folder.name.lower() not in labeled and any(map(_has_images, inside)):
            where = folder.relative_to(root).as_posix()
            rows.add_finding("unlabeled_split", "files", where, f"'{folder.name}' has no labels")


def find_split_files(root: Path, labels: LabelFormat, exports: Collection[str] = ()) -> dict[str, Path]:
    """The annotation file by split, for formats with one file a split; empty if there are none.

    The only file of a split's folder, or the first one with a name of `exports`, is called as the split; several files
    are splits called as the files.

    Args:
        root: folder of the dataset.
        labels: how the format's files are found.
        exports: names of files without suffix, in lower case.
    """
    found: dict[str, Path] = {}
    for split, folder in find_label_folders(root, labels).items():
        names = sorted(name for name in _some_names(folder, _MAX_ENTRIES) if name.lower().endswith(labels.suffix))[
            :_MAX_FILES
        ]
        paths = [folder / name for name in names if labels.is_label_file(folder / name)]
        exported = [path for path in paths if path.stem.lower() in exports]
        for path in exported[:1] or paths:
            name = split if len(paths) == 1 or exported else path.stem
            found.setdefault(name if name not in found else f"{split}-{name}", path)
    return found


def find_image_place(labels: Path, image_folder: Path) -> Path:
    """The folder with the images of a folder of annotation files.

    Args:
        labels: folder of the annotation files.
        image_folder: the dataset's folder; if `labels` is not below it, it is the user's folder of images.
    """
    if not labels.is_relative_to(image_folder):
        return image_folder
    if _has_images(labels):
        return labels
    for above in (labels, labels.parent, labels.parent.parent):
        if not above.is_relative_to(image_folder):
            break
        for folder in _subfolders(above):
            if folder.name.lower() in _IMAGE_FOLDERS:
                inside = folder / labels.name
                return inside if above != labels and inside.is_dir() else folder
    return labels


class ImageNames:
    """The images below a folder, found by their names without suffix. Takes some 100 bytes an image.

    Attributes:
        names: paths below the folder, with forward slashes, sorted by their stems.
        prefix: the folder's own path below the image folder, with a slash at its end; "" for that folder itself.

    Args:
        place: folder of the images; they may lie in folders below it.
        image_folder: the image folder, with `place` below it.
    """

    def __init__(self, place: Path, image_folder: Path) -> None:
        self.names = sorted(list_images(place, suffixes=IMAGE_SUFFIXES) if place.is_dir() else (), key=stem_and_name)
        below = place.relative_to(image_folder).as_posix()
        self.prefix = "" if below == "." else f"{below}/"
        self._used = bytearray(len(self.names))
        self._by_last_part: list[int] | None = None

    def find(self, stem: str) -> str | None:
        """The image with this path without suffix; else the only one with this name in any folder. Marks it as used."""
        at = bisect_left(self.names, stem, key=path_stem)
        if at < len(self.names) and path_stem(self.names[at]) == stem:
            return self._use(at)
        if self._by_last_part is None:
            order = range(len(self.names)) if any("/" in name for name in self.names) else ()
            self._by_last_part = sorted(order, key=self._last_part)
        last = stem.rpartition("/")[2]
        places = self._by_last_part
        at = bisect_left(places, last, key=self._last_part)
        if at < len(places) and self._last_part(places[at]) == last:
            is_only = at + 1 == len(places) or self._last_part(places[at + 1]) != last
            return self._use(places[at]) if is_only else None
        return None

    def find_name(self, name: str) -> str | None:
        """The image with this path below the folder. Marks it as used."""
        key = stem_and_name(name)
        at = bisect_left(self.names, key, key=stem_and_name)
        return self._use(at) if at < len(self.names) and self.names[at] == name else None

    def add_findings(self, rows: ObjectRows, label_files: Sequence[str]) -> None:
        """Count images that `find` has not found: those without an annotation file, and those with the stem of another.

        Args:
            rows: gets the findings.
            label_files: names of all annotation files, sorted by `stem_and_name`.
        """
        before = ""
        for name, used in zip(self.names, self._used, strict=True):
            stem = path_stem(name)
            if not used and stem == path_stem(before):
                what = f"its annotations belong to {self.prefix}{before}"
                rows.add_finding("same_stem", "files", self.prefix + name, what)
            elif not used and find_stem(label_files, stem) is None:
                rows.add_finding("unlabeled_image", "images", self.prefix + name, "no annotation file has its name")
            before = name

    def _use(self, at: int) -> str:
        self._used[at] = 1
        return self.names[at]

    def _last_part(self, at: int) -> str:
        return path_stem(self.names[at]).rpartition("/")[2]


def find_stem(names: Sequence[str], stem: str) -> str | None:
    """The first of these names, sorted by `stem_and_name`, with this path without suffix."""
    at = bisect_left(names, stem, key=path_stem)
    return names[at] if at < len(names) and path_stem(names[at]) == stem else None


def list_label_files(labels: Path, suffix: str) -> list[str]:
    """Paths of the annotation files below a folder, sorted by their stems; of a single file, its name."""
    if labels.is_file():
        return [labels.name]
    return sorted(list_images(labels, suffixes=frozenset({suffix})), key=stem_and_name)


def path_stem(name: str) -> str:
    """A path with forward slashes, without the suffix of its last part."""
    head, dot, tail = name.rpartition(".")
    return head if dot and "/" not in tail and head.rpartition("/")[2] else name


def stem_and_name(name: str) -> tuple[str, str]:
    """The order of names: by stems, then by suffixes."""
    return path_stem(name), name


def last_part(path: str) -> str:
    """The last part of a path of any system, such as C:\\data\\a.jpg."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def image_starts(beside: Path, image_folder: Path) -> list[str]:
    """Where images may lie: beside the annotation file, else in the image folder. Prefixes below the image folder."""
    inside = beside.relative_to(image_folder).as_posix() if beside.is_relative_to(image_folder) else "."
    return [""] if inside == "." else [f"{inside}/", ""]


def image_prefixes(beside: Path, image_folder: Path) -> list[str]:
    """`image_starts`, and the folders of images there."""
    found = []
    for start in image_starts(beside, image_folder):
        folders = [below.name for below in _subfolders(image_folder / start) if below.name.lower() in _IMAGE_FOLDERS]
        found += [start, *(f"{start}{folder}/" for folder in folders)]
    return found


def find_named_image(image_folder: Path, prefixes: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of some names of an image that is a file.

    Args:
        image_folder: folder below which names are looked for.
        prefixes: as `image_prefixes` gives them.
        names: paths with forward slashes, the most likely first.

    Returns:
        Its path below the image folder; None if there is none.
    """
    inside = (prefix + name for name in names if name for prefix in prefixes)
    return next((path for path in inside if is_inside_file(image_folder, path)), None)


def is_inside_file(folder: Path, name: str) -> bool:
    """Whether a path that stays below the folder leads to a file."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0].startswith("/") or "\0" in name:
        return False
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, or half a surrogate pair
        return False


def read_shown_size(image_folder: Path, file_name: str) -> tuple[int, int]:
    """(height, width) of an image as viewers show it, EXIF orientation applied; zeros if it cannot be opened.

    The job that needs its pixels will report the error.
    """
    try:
        height, width, _ = read_image_header(find_image(image_folder, file_name))
    except ImageError:
        return 0, 0
    return height, width


def _label_places(folder: Path, labels: LabelFormat) -> Iterator[Path]:
    """Where the annotation files of a folder may lie: in subfolders with usual names, or in the folder itself."""
    for below in _subfolders(folder):
        if below.name.lower() in labels.folder_names:
            yield from (inside for inside in _subfolders(below) if inside.name.lower() in labels.folder_names)
            yield below
    yield folder


def _holds(folder: Path, labels: LabelFormat) -> bool:
    """Whether a folder holds annotation files of the format, or most of the first folders directly below it do.

    Folders of images do not count. So a folder of many datasets is no dataset of this format.
    """
    if _holds_directly(folder, labels, _MAX_ENTRIES):
        return True
    fitting = others = 0
    for below in _subfolders(folder)[:_MAX_INNER_FOLDERS]:
        if _holds_directly(below, labels, _MAX_INNER_ENTRIES):
            fitting += 1
        else:
            others += below.name.lower() not in _IMAGE_FOLDERS and not _holds_only_images(below)
    return fitting > others


def _holds_directly(folder: Path, labels: LabelFormat, max_entries: int) -> bool:
    names = sorted(name for name in _some_names(folder, max_entries) if name.lower().endswith(labels.suffix))
    step = max(len(names) // _MAX_SAMPLES, 1)  # the first ones may be of another kind, such as classes.json
    return any(labels.is_label_file(folder / name) for name in names[::step][:_MAX_SAMPLES])


def _has_images(folder: Path) -> bool:
    return any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in _some_names(folder, _MAX_ENTRIES))


def _holds_only_images(folder: Path) -> bool:
    names = _some_names(folder, _MAX_INNER_ENTRIES)
    return all(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in names)


def _some_names(folder: Path, max_entries: int) -> list[str]:
    """Names in a folder that do not start with a dot, of the first entries; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in islice(entries, max_entries) if one.name[0] != "."]
    except OSError:
        return []


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, and links to folders, that do not start with a dot; sorted by name."""
    try:
        with os.scandir(folder) as entries:
            some = islice(entries, _MAX_SUBFOLDER_ENTRIES)
            names = sorted(entry.name for entry in some if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in names[:_MAX_SUBFOLDERS]]


def _split_folders(folder: Path) -> list[Path]:
    found = [below for below in _subfolders(folder) if below.name.lower() in SPLIT_NAMES]
    return sorted(found, key=lambda below: (SPLIT_NAMES.index(below.name.lower()), below.name))
