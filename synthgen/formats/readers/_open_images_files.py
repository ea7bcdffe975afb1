"""Finds the files of Open Images: as downloaded by hand, by FiftyOne, and as CVAT and Datumaro write them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from synthgen.formats.readers._folder_listing import first_names, is_file, is_folder

_PREFIX = r"(?:oid_?v\d+-)?"
_BOXES = re.compile(_PREFIX + r"(?P<split>.+?)-annotations-bbox\.csv", re.IGNORECASE)
_MASKS = re.compile(_PREFIX + r"(?P<split>.+?)-annotations-object-segmentation\.csv", re.IGNORECASE)
_LABELS = re.compile(_PREFIX + r"(?P<split>.+?)-annotations-human-imagelabels(?:-boxable)?\.csv", re.IGNORECASE)
_IMAGES = re.compile(
    _PREFIX + r"(?:(?P<split>.+?)-)?(?:images(?:-boxable|-with-labels)?-with-rotation|image_ids_and_rotation)\.csv",
    re.IGNORECASE,
)
_CLASSES = re.compile(_PREFIX + r"class-descriptions(?:-boxable)?\.csv", re.IGNORECASE)

_CSV_FOLDERS = (".", "annotations", "csv_folder", "labels", "metadata")
_ORDER = ("train", "validation", "test")
_MAX_SPLITS = 100


@dataclass(slots=True)
class OpenImagesFiles:
    """The CSV files of one split.

    Attributes:
        base: the folder in which its images are looked for first.
        boxes, masks, labels: boxes, masks, and labels of whole images.
        images: lists of images with their rotation.
        unread: files that another one replaces.
    """

    base: Path
    boxes: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    images: Path | None = None
    classes: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def find_open_images(root: Path) -> dict[str, OpenImagesFiles]:
    """The CSV files by split, in the usual order of the splits; only splits with boxes or masks."""
    found: dict[str, OpenImagesFiles] = {}
    classes: list[Path] = []
    shared_images: Path | None = None
    for path in _list_csvs(root):
        if _CLASSES.fullmatch(path.name):
            classes.append(path)
        elif (match := _IMAGES.fullmatch(path.name)) and not match["split"]:
            shared_images = path
        else:
            _add_file(found, root, path)
    for split, own in _find_fiftyone(root).items():
        found.setdefault(split, own)
    usable = {split: own for split, own in found.items() if own.boxes is not None or own.masks is not None}
    for own in usable.values():
        own.classes = own.classes or _best_classes(classes, own)
        own.images = own.images or shared_images
    order = {split: place for place, split in enumerate(_ORDER)}
    return {split: usable[split] for split in sorted(usable, key=lambda one: (order.get(one, len(order)), one))}


def split_of_file(path: Path) -> str | None:
    """The split of a CSV file of boxes or masks; None for other names."""
    match = _BOXES.fullmatch(path.name) or _MASKS.fullmatch(path.name)
    return match["split"].lower() if match else None


def find_image_folders(root: Path, split: str, own: OpenImagesFiles) -> list[Path]:
    """The folders of a split's images; a folder of all splits, or `root` itself, if there is no other."""
    for base in _bases(root, own):
        places = [base / "images" / split, base / split / "data", base / split / "images", base / split]
        for place in (*places, *((base / "data",) if base == own.base != root else ())):
            if is_folder(place) and base != place:
                return [place]
        for place in (base, base / "images"):  # train_0, train_1, ..., train_f, as the archives unpack
            names = [name for name in first_names(place) if re.fullmatch(re.escape(split) + "_[0-9a-f]", name)]
            if names:
                return [place / name for name in names]
        if is_folder(base / "images"):
            return [base / "images"]
    return [root]


def find_mask_folder(root: Path, split: str, own: OpenImagesFiles) -> Path | None:
    """The folder of the PNG files of a split; None if there is none."""
    places = (
        place
        for base in _bases(root, own)
        for place in (
            *(base / "masks" / split, base / f"{split}-masks", base / f"{split}_masks", base / split / "masks"),
            *(base / "labels" / "masks", base / "masks", base / "annotations" / "masks"),
        )
    )
    return next(filter(is_folder, places), None)


def _bases(root: Path, own: OpenImagesFiles) -> list[Path]:
    """Where to look for images and masks; above `root` only if it is a folder of CSV files."""
    return list(dict.fromkeys((own.base, root, *((root.parent,) if root.name in _CSV_FOLDERS else ()))))


def _list_csvs(root: Path) -> list[Path]:
    places = [root / name for name in _CSV_FOLDERS]
    return [place / name for place in places for name in first_names(place) if name.lower().endswith(".csv")]


def _add_file(found: dict[str, OpenImagesFiles], root: Path, path: Path) -> None:
    """Assign a file to its split. Of two of a kind, the one of the newer release counts."""
    for kind, pattern in (("boxes", _BOXES), ("masks", _MASKS), ("labels", _LABELS), ("images", _IMAGES)):
        match = pattern.fullmatch(path.name)
        if match is None or not match["split"] or len(found) >= _MAX_SPLITS:
            continue
        own = found.setdefault(match["split"].lower(), OpenImagesFiles(root))
        before: Path | None = getattr(own, kind)
        better, other = (path, before) if before is None or _rank(path) > _rank(before) else (before, path)
        setattr(own, kind, better)
        if other is not None and kind != "images":
            own.unread.append(other)
        return


def _rank(path: Path) -> tuple[str, str]:
    """Larger for a newer release: `oidv6-train-...` replaces `train-...`."""
    name = path.name.lower()
    return name if name.startswith("oid") else "", name


def _best_classes(classes: list[Path], own: OpenImagesFiles) -> list[Path]:
    """Those beside the boxes come first; all are read, as none has all names."""
    beside = own.boxes or own.masks
    return sorted(classes, key=lambda path: (beside is not None and path.parent != beside.parent, path.as_posix()))


def _find_fiftyone(root: Path) -> dict[str, OpenImagesFiles]:
    """FiftyOne's zoo: <split>/labels/detections.csv, <split>/metadata/classes.csv, <split>/data/*.jpg."""
    found = {}
    names = [name for name in first_names(root)[:_MAX_SPLITS] if is_file(root / name / "metadata" / "classes.csv")]
    for name in names:
        base = root / name
        found[name.lower()] = OpenImagesFiles(
            base,
            boxes=_existing(base / "labels" / "detections.csv"),
            masks=_existing(base / "labels" / "segmentations.csv"),
            labels=_existing(base / "labels" / "classifications.csv"),
            images=_existing(base / "metadata" / "image_ids.csv"),
            classes=[base / "metadata" / "classes.csv"],
        )
    return found


def _existing(path: Path) -> Path | None:
    return path if is_file(path) else None
