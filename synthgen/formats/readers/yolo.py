"""YOLO label files as Ultralytics, Roboflow, CVAT, Label Studio, labelImg and darknet write them.

The dataset's folder, or its `data.yaml` or `obj.data`. Its file names the splits; without one, the folders do:

    images/<split> + labels/<split>      <split>/images + <split>/labels      images + labels      labels beside images

Documentation: https://docs.ultralytics.com/datasets/ (detect, segment, obb, pose), https://docs.cvat.ai (YOLO formats).
The rows are described in `_yolo_rows`. A polygon row has its tight box in the layer "annotations" and its mask in the
layer "human". Rows are fractions of the image as a viewer shows it: labelling tools and Ultralytics apply the EXIF
orientation, and so does this reader. So each image's header is read; an image without a readable header is a row with
an error, its objects are flagged `no_box`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, DatasetPart, ImageBatch
from synthgen.formats.readers._file_threads import map_in_order
from synthgen.formats.readers._folder_listing import utf8_name
from synthgen.formats.readers._ids import text_id
from synthgen.formats.readers._instances import NO_BOX, complete
from synthgen.formats.readers._label_files import LabelFileError
from synthgen.formats.readers._yolo_config import YoloConfig, find_config, find_names_file, read_config, read_names
from synthgen.formats.readers._yolo_findings import YoloFindings
from synthgen.formats.readers._yolo_layout import (
    YoloPlace,
    find_missing_splits,
    find_places,
    find_splits,
    find_unlabeled_splits,
)
from synthgen.formats.readers._yolo_pairs import YoloItem, iter_items
from synthgen.formats.readers._yolo_rows import YoloRow, read_label_file
from synthgen.images.decode import ImageError, read_image_header
from synthgen.records.box_table import NO_ID

SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True
TITLE = "YOLO"
LOOKS_FOR = "data.yaml or obj.data with the splits, or images/ and labels/ with .txt files"

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_BATCH_IMAGES = 1_000
_BATCH_OBJECTS = 10_000
_BATCH_BYTES = 2**25  # of label files and their polygons
_CONFIG_SUFFIXES = (".yaml", ".yml", ".data")


@dataclass(frozen=True, slots=True)
class _LoadedImage:
    """An image with its rows.

    Attributes:
        boxes: XYWH in pixels, one per row; NaN for a row that cannot be read.
        payloads: the JSON of the polygons, one per row; empty if they are not wanted.
        num_bytes: of the image and its label file.
    """

    item: YoloItem
    height: int
    width: int
    error: str | None
    has_labels: bool
    rows: list[YoloRow]
    boxes: list[tuple[float, float, float, float]]
    payloads: list[bytes | None]
    num_bytes: int


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits with YOLO labels in the folder `path`, or of a `data.yaml` or `obj.data`; None if there are none."""
    try:
        if path.is_file():
            if path.suffix.lower() not in _CONFIG_SUFFIXES:
                return None
            config = read_config(path)
            # Without its folders it is YOLO's file all the same, and `files` says which folders are missing.
            named = tuple(config.splits) if config.names else ()
            return (find_splits(path.parent, config) or named or None) if config.splits or config.names else None
        return find_splits(path, _read_config_if_valid(find_config(path))) or None
    except (SynthgenError, OSError):
        return None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The folders and lists of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the dataset's `data.yaml` or `obj.data`, or a folder of label files, with the images below `root`.

    Raises:
        SynthgenError: the split is not there.
    """
    if annotations is not None and annotations.is_dir():
        images = root / "images" if (root / "images").is_dir() else None
        return _make_files(root, None, None, [YoloPlace(images, annotations)], split)
    if annotations is not None:
        if not annotations.is_file() or annotations.suffix.lower() not in _CONFIG_SUFFIXES:
            raise SynthgenError(f"{annotations} is not a data.yaml or obj.data; name that file, or a folder of labels")
        root = annotations.parent
    path = annotations if annotations is not None else find_config(root)
    config = read_config(path) if path is not None else None
    places = find_places(root, config, split)
    if places:
        return _make_files(root, path, config, places, split)
    entries = config.splits.get(split, ()) if config is not None else ()
    named = f"{path.name} names {', '.join(entries)[:300]}, and " if path is not None and entries else ""
    raise SynthgenError(
        f"no images with YOLO labels of '{split}' in {root}: {named}no such folder is below it; put them "
        f"there, such as images/{split} and labels/{split}"
    )


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the label files; see `synthgen.formats.readers`. Annotation ids count the rows from 1 on.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a folder or a list cannot be read, or no label file belongs to an image.
    """
    path = files.sources.get("config")
    config = read_config(path) if path is not None else YoloConfig()
    names = dict(config.names) or (read_names(files.sources["names"]) if "names" in files.sources else {})
    found = YoloFindings(names, config)
    if path is not None:
        found.add_missing_splits(path.name, find_missing_splits(path.parent, config))
    root = path.parent if path is not None else files.image_folder
    found.add_unlabeled_splits(root, find_unlabeled_splits(root, config if path is not None else None))
    load = partial(_load_image, kpt_shape=config.kpt_shape, with_polygons=layer != LAYERS[0])
    count = 0
    waiting: list[_LoadedImage] = []
    objects = size = 0
    for image in map_in_order(load, _iter_images(files, found, path)):
        found.add(image.item.file_name, image.rows, has_labels=image.has_labels, owner=image.item.owner)
        waiting.append(image)
        objects += len(image.rows)
        size += sum(map(len, filter(None, image.payloads)))
        if files.on_bytes is not None:
            files.on_bytes(image.num_bytes)
        if len(waiting) >= _BATCH_IMAGES or objects >= _BATCH_OBJECTS or size >= _BATCH_BYTES:
            yield from _make_batches(waiting, count, masks=layer != LAYERS[0])
            count += objects
            waiting, objects, size = [], 0, 0
    yield from _make_batches(waiting, count, masks=layer != LAYERS[0])
    if not found.num_images_with_labels:
        raise SynthgenError(
            f"no label file in {_describe_labels(files)} has the name of an image below {files.image_folder}; name the "
            "folder of the images with --images; images of images/train have their labels in labels/train"
        )
    yield from found.parts()
    yield Categories(
        {number: name.strip() for number, name in found.names().items()},
        padded={number: name for number, name in names.items() if name != name.strip()},
        has_file_ids=True,
    )


def _read_config_if_valid(path: Path | None) -> YoloConfig | None:
    """A dataset's own file; None for one that cannot be read: `files` gives its error."""
    try:
        return read_config(path) if path is not None else None
    except SynthgenError:
        return None


def _make_files(
    root: Path, path: Path | None, config: YoloConfig | None, places: list[YoloPlace], split: str
) -> DatasetFiles:
    sources: dict[str, Path] = {}
    if path is not None:
        sources["config"] = path
    names = config.names_file if config is not None else None
    if names is None and not (config is not None and config.names):
        names = find_names_file(root, places[0].labels, places[0].labels.parent)
    if names is not None:
        sources["names"] = names
    for number, place in enumerate(places, 1):
        suffix = f" {number}" if len(places) > 1 else ""
        if place.listing is not None:
            sources[f"list{suffix}"] = place.listing
        elif place.images is not None:
            sources[f"images{suffix}"] = place.images
        sources[f"labels{suffix}"] = place.labels
    roles = frozenset(role for role in sources if role.startswith("labels"))
    return DatasetFiles(sources, root, split=split, content_roles=roles)


def _iter_images(files: DatasetFiles, found: YoloFindings, config: Path | None) -> Iterator[YoloItem]:
    """The images of all places."""
    seen: set[Path] = set()
    for role, labels in files.sources.items():
        kind, _, number = role.partition(" ")
        if kind != "labels":
            continue
        suffix = f" {number}" if number else ""
        listing, images = files.sources.get(f"list{suffix}"), files.sources.get(f"images{suffix}")
        if images is not None and not images.is_relative_to(files.image_folder):
            raise SynthgenError(
                f"--images {files.image_folder} names one folder, and the images of '{files.split}' are in several; "
                "name the folder above them"
            )
        base = config.parent if config is not None else files.image_folder
        yield from iter_items(YoloPlace(images, labels, listing), files.image_folder, base, found.strays, seen)


def _load_image(item: YoloItem, kpt_shape: tuple[int, int] | None, *, with_polygons: bool) -> _LoadedImage:
    """The size of an image, and its rows in pixels."""
    rows: list[YoloRow] = []
    error = None
    has_labels = bool(item.owner)
    height = width = num_bytes = 0
    try:
        height, width, _ = read_image_header(item.image) if item.image.is_file() else _missing_image()
        num_bytes = item.image.stat().st_size
    except ImageError as why:
        height = width = 0
        error = f"its image {why}"
    except (OSError, ValueError):
        error = "its image cannot be reached"
    try:
        if item.owner:
            raise LabelFileError(
                f"its label file belongs to {utf8_name(item.owner)}, too; rename one of the two images"
            )
        read_rows = read_label_file(item.labels, kpt_shape)
        if read_rows is not None:
            has_labels = True
            rows, label_bytes = read_rows
            num_bytes += label_bytes
    except LabelFileError as why:
        has_labels, error = True, str(why)
    if utf8_name(item.file_name) != item.file_name:
        error = "its file name is not UTF-8; rename the file"
    boxes = [_pixel_box(row, height, width) for row in rows]
    payloads = [_polygon_payload(row, height, width) for row in rows] if with_polygons else []
    rows = [replace(row, polygon=()) if row.polygon else row for row in rows]  # large, and no longer needed
    return _LoadedImage(item, height, width, error, has_labels, rows, boxes, payloads, num_bytes)


def _missing_image() -> tuple[int, int, bool]:
    raise ImageError("is missing")


def _pixel_box(row: YoloRow, height: int, width: int) -> tuple[float, float, float, float]:
    if not height or not width:
        return NO_BOX
    x, y, w, h = row.box
    return x * width, y * height, w * width, h * height


def _polygon_payload(row: YoloRow, height: int, width: int) -> bytes | None:
    """A polygon as COCO's JSON, in pixels."""
    if not row.polygon or not height or not width:
        return None
    points = np.array(row.polygon).reshape(-1, 2) * (width, height)
    return msgspec.json.encode([points.ravel().tolist()])


def _make_batches(images: list[_LoadedImage], count: int, *, masks: bool) -> Iterator[ImageBatch | AnnotationBatch]:
    """The batches of some images; annotation ids from `count` + 1."""
    if not images:
        return
    ids = [text_id(image.item.file_name) for image in images]
    yield ImageBatch(
        image_id=np.array(ids, np.int64),
        file_name=[utf8_name(image.item.file_name) for image in images],
        image_key=[""] * len(images),
        height=np.array([image.height for image in images], np.int32),
        width=np.array([image.width for image in images], np.int32),
        error=[image.error for image in images],
    )
    total = sum(len(image.rows) for image in images)
    bbox = np.array([box for image in images for box in image.boxes], np.float64).reshape(-1, 4)
    classes = [row.class_id for image in images for row in image.rows]
    yield AnnotationBatch(
        image_id=np.repeat(np.array(ids, np.int64), [len(image.rows) for image in images]),
        id=np.arange(count + 1, count + total + 1),
        bbox=bbox,
        category=np.array([NO_ID if number is None else number for number in classes], np.int64),
        iscrowd=np.zeros(total, np.bool_),
        flags={"no_box": np.asarray(np.isnan(bbox).any(axis=1), np.bool_)},
        payload=[payload for image in images for payload in image.payloads] if masks else None,
    )


def _describe_labels(files: DatasetFiles) -> str:
    return ", ".join(str(path) for role, path in files.sources.items() if role.startswith("labels"))
