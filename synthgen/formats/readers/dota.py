"""DOTA: rotated boxes in aerial images, as released (v1.0, v1.5, v2.0) and as split into tiles (mmrotate, DOTA_devkit).

Layouts: <split>/images + <split>/labelTxt, or the two folders without splits. The folder of labels may have another
usual name (labelTxt-v1.5, annfiles), and its files may be in folders below it. Of several such folders, the newest
version with rotated boxes is read, and the others are reported; --annotations chooses another one.

The prompt is the upright box around the four corners, in pixels exactly as the file says; the flag `rotated` marks
those that are not upright. It may reach beyond the image. `difficult` is the file's own mark. The format:
https://captain-whu.github.io/DOTA/dataset.html
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, DatasetPart, ImageBatch
from synthgen.formats.readers._dota_rows import DotaRow, looks_like_labels, parse_row
from synthgen.formats.readers._file_threads import map_in_order
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._folder_listing import file_suffix, first_names, is_folder, utf8_name, walk_files
from synthgen.formats.readers._ids import text_id
from synthgen.formats.readers._image_mask_pairs import read_image_sizes
from synthgen.formats.readers._label_files import LabelFileError
from synthgen.formats.readers._label_lines import read_label_lines
from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.records.box_table import NO_ID

SPLITS = ("train", "val", "test")
LAYERS = ("annotations",)
LAYOUT_SPLITS = True
TITLE = "DOTA"
LOOKS_FOR = "a folder labelTxt or annfiles with .txt files of eight coordinates and a class, beside images"

_LABEL_FOLDER = re.compile(r"label_?txt.*|annfiles", re.IGNORECASE)
_SPLIT_NAME = re.compile("train|val|test", re.IGNORECASE)
_UPRIGHT_COPY = re.compile(r"hbb|reclabel|task2", re.IGNORECASE)  # the same objects with upright boxes
_IMAGE_FOLDERS = ("images", "image", "imgs", "JPEGImages")
_MAX_LOOKS = 20
_MAX_NAMES = 100_000
_BATCH_IMAGES = 1_000
_BATCH_OBJECTS = 10_000

#: Names of DOTA v2.0 in the order of the releases; their place is their id. Other names get an id made of the name.
_NAMES = (
    *("plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court", "ground-track-field"),
    *("harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter", "roundabout", "soccer-ball-field"),
    *("swimming-pool", "container-crane", "airport", "helipad"),
)
_IDS = {name: number for number, name in enumerate(_NAMES, 1)}


@dataclass(frozen=True, slots=True)
class _Item:
    """An image, and its label file if there is one; `owner`: another image that has the label file of its name."""

    file_name: str
    image: Path
    labels: Path | None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class _LoadedImage:
    item: _Item
    height: int
    width: int
    error: str | None
    rows: list[DotaRow]
    num_bytes: int


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the folder `path` that have DOTA labels; None if there are none."""
    return tuple(dict.fromkeys(split for split, base in _find_bases(path) if _find_labels(base))) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The folders of images and of labels of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the folder of the labels, with the images below `root`.

    Raises:
        SynthgenError: they are not there.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise SynthgenError(
                f"{annotations} is not a folder; --annotations should name the folder of DOTA's label files"
            )
        bases, labels = [base for name, base in _find_bases(root) if name == split], [annotations]
        images = next((found for base in bases if (found := _find_images(base))), None) or _find_images(root)
    else:
        base = next((base for name, base in _find_bases(root) if name == split and _find_labels(base)), None)
        if base is None:
            raise SynthgenError(
                f"no DOTA labels of '{split}' in {root}: put images into {split}/images and labels into "
                f"{split}/labelTxt, or name the folder of the labels with --annotations"
            )
        labels, images = _find_labels(base), _find_images(base)
    sources = {"labels": labels[0]}
    if images is not None:
        sources["images"] = images
    if len(labels) > 1:
        sources |= {f"unread {number}": path for number, path in enumerate(labels[1:], 1)}
    return DatasetFiles(sources, root, split=split, content_roles=frozenset({"labels"}))


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:  # noqa: ARG001 - there is one layer
    """The content of the label files; see `synthgen.formats.readers`. Annotation ids count the rows from 1 on.

    Args:
        files: as `files` returns them.
        layer: the only one of `LAYERS`.

    Raises:
        SynthgenError: a folder cannot be read, no label file has the name of an image, or there are too many classes.
    """
    findings, names = FindingCounter(), dict[int, str]()
    count = num_labelled = 0
    waiting: list[_LoadedImage] = []
    objects = 0
    for image in map_in_order(_load_image, _pair_files(files, findings)):
        num_labelled += image.item.labels is not None
        _note_image(image, findings)
        for row in image.rows:
            if row.name and len(names) > _MAX_NAMES:
                raise SynthgenError(
                    f"{files.sources['labels']} has more than {_MAX_NAMES:,} classes; are its files DOTA's labels?"
                )
            if row.name:
                names[_category_id(row.name)] = row.name
        waiting.append(image)
        objects += len(image.rows)
        if files.on_bytes is not None:
            files.on_bytes(image.num_bytes)
        if len(waiting) >= _BATCH_IMAGES or objects >= _BATCH_OBJECTS:
            yield from _make_batches(waiting, count)
            count += objects
            waiting, objects = [], 0
    yield from _make_batches(waiting, count)
    if not num_labelled:
        raise SynthgenError(
            f"no label file in {files.sources['labels']} has the name of an image below {files.image_folder}; name the "
            "folder of the images with --images"
        )
    for role, path in files.sources.items():
        if role.startswith("unread"):
            findings.add("unread_labels", "files", path.name, f"{files.sources['labels'].name} is read")
    for split, base in _find_bases(files.image_folder):
        if _find_images(base) is not None and not _find_labels(base):
            findings.add("unlabeled_split", "files", base.name, f"'{split}' has no labels")
    yield from findings.parts()
    yield Categories(dict(sorted(names.items())))


def _find_bases(root: Path) -> list[tuple[str, Path]]:
    """(split, folder that holds its images and labels)."""
    if any(_LABEL_FOLDER.fullmatch(name) for name in first_names(root)):
        return [(SPLITS[0], root)]
    names = [name for name in first_names(root) if _SPLIT_NAME.match(name)]
    return [(name, root / name) for name in names if is_folder(root / name)]


def _find_labels(base: Path) -> list[Path]:
    """The folders of labels beside the images, the one to read first: rotated boxes, the newest version."""
    names = [name for name in first_names(base) if _LABEL_FOLDER.fullmatch(name) and is_folder(base / name)]
    found = [path for name in names for path in _label_folders(base / name)]
    found.sort(reverse=True)  # v2.0 before v1.5
    return sorted(found, key=lambda path: _is_copy(path, base))


def _label_folders(folder: Path, depth: int = 0) -> list[Path]:
    """The folder, or folders below it, whose text files hold rows of DOTA."""
    names = first_names(folder)
    texts = [name for name in names if name.lower().endswith(".txt")]
    if any(looks_like_labels(folder / name) for name in texts[:_MAX_LOOKS]):
        return [folder]
    below = [folder / name for name in names[:20] if depth < 2 and is_folder(folder / name)]
    return [path for one in below for path in _label_folders(one, depth + 1)]


def _is_copy(path: Path, base: Path) -> bool:
    return _UPRIGHT_COPY.search(path.relative_to(base).as_posix()) is not None


def _find_images(base: Path) -> Path | None:
    return next((base / name for name in _IMAGE_FOLDERS if is_folder(base / name)), None)


def _pair_files(files: DatasetFiles, findings: FindingCounter) -> Iterator[_Item]:
    """The images, in the order of their names, with the label file of the same name in any folder of the labels."""
    waiting: dict[str, Path] = {}
    for folder, names in walk_files(files.sources["labels"]):
        for name in names:
            if name.lower().endswith(".txt") and waiting.setdefault(name[:-4], folder / name) != folder / name:
                findings.add("label_without_image", "files", name, "another label file has the same name")
    owners: dict[str, str] = {}
    images = files.sources.get("images", files.image_folder)
    if not images.is_relative_to(files.image_folder):
        raise SynthgenError(f"the images in {images} are not below {files.image_folder}; name one folder with --images")
    for folder, names in walk_files(images):
        for name in names:
            if file_suffix(name) not in IMAGE_SUFFIXES:
                continue
            stem = name.rpartition(".")[0]
            file_name = (folder / name).relative_to(files.image_folder).as_posix()
            labels = waiting.pop(stem, None)
            if labels is not None:
                owners[stem] = file_name
            yield _Item(file_name, folder / name, labels, "" if labels is not None else owners.get(stem, ""))
    for stem in sorted(waiting):
        findings.add("label_without_image", "files", waiting[stem].name, "no image has this name")


def _load_image(item: _Item) -> _LoadedImage:
    (height, width), _ = read_image_sizes(item.image)
    rows: list[DotaRow] = []
    error, num_bytes = None, 0
    with contextlib.suppress(OSError):  # the check of the image files reports it
        num_bytes = item.image.stat().st_size
    try:
        if item.owner:
            raise LabelFileError(
                f"its label file belongs to {utf8_name(item.owner)}, too; rename one of the two images"
            )
        lines, size = read_label_lines(item.labels) or ([], 0) if item.labels is not None else ([], 0)
        num_bytes += size
        rows = [row for number, line in lines if (row := parse_row(line, number)) is not None]
    except LabelFileError as why:
        error = str(why)
    if utf8_name(item.file_name) != item.file_name:
        error = "its file name is not UTF-8; rename the file"
    return _LoadedImage(item, height, width, error, rows, num_bytes)


def _note_image(image: _LoadedImage, findings: FindingCounter) -> None:
    file_name = image.item.file_name
    if image.item.owner:
        findings.add("shared_label_file", "images", file_name, f"its label file went to {image.item.owner}")
    elif image.item.labels is None:
        findings.add("no_label_file", "images", file_name, "no label file has its name")
    for row in image.rows:
        if row.reason:
            findings.add("broken_row", "boxes", file_name, f"line {row.line} of its label file: {row.reason}")


def _category_id(name: str) -> int:
    return _IDS.get(name) or text_id(name) if name else NO_ID


def _make_batches(images: list[_LoadedImage], count: int) -> Iterator[ImageBatch | AnnotationBatch]:
    """The batches of some images; annotation ids from `count` + 1."""
    if not images:
        return
    ids = np.array([text_id(image.item.file_name) for image in images], np.int64)
    yield ImageBatch(
        image_id=ids,
        file_name=[utf8_name(image.item.file_name) for image in images],
        image_key=[""] * len(images),
        height=np.array([image.height for image in images], np.int32),
        width=np.array([image.width for image in images], np.int32),
        error=[image.error for image in images],
    )
    rows = [row for image in images for row in image.rows]
    yield AnnotationBatch(
        image_id=np.repeat(ids, [len(image.rows) for image in images]),
        id=np.arange(count + 1, count + len(rows) + 1),
        bbox=np.array([row.box for row in rows], np.float64).reshape(-1, 4),
        category=np.array([_category_id(row.name) for row in rows], np.int64),
        iscrowd=np.zeros(len(rows), np.bool_),
        flags={
            "no_box": np.array([bool(row.reason) for row in rows], np.bool_),
            "rotated": np.array([row.is_rotated for row in rows], np.bool_),
            "difficult": np.array([row.is_difficult for row in rows], np.bool_),
        },
    )
