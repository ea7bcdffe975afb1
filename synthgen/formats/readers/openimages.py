"""Open Images V4 to V7: boxes, masks and verified labels from the CSV files, for the images that are there.

Layouts: as downloaded (CSV files in the folder or in annotations/, images in train/, images/train/ or train_0/), as
FiftyOne's zoo lays them, and as CVAT and Datumaro write them. The files are described at
https://storage.googleapis.com/openimages/web/download.html

A part of the images is enough: only images in the folder become rows, whatever the CSV files list. How many others they
list, and with how many boxes, is a finding. Annotation ids are the numbers of the rows in the CSV file, so they stay if
more images are downloaded. A mask that belongs to none of the boxes is an object of its own.

- IsGroupOf becomes `iscrowd`, IsDepiction the flag `fake`; -1 means unknown and sets neither. IsOccluded, IsTruncated
  and IsInside change nothing about a box as a prompt and are not kept.
- Verified labels of images with Confidence 0 become `neg_categories`. The boxes are not exhaustive beyond the verified
  labels, so every image has such a list, if need be an empty one.
- Boxes are fractions of the image as its file shows it. Rotation, in the lists of images, says by how many degrees one
  would have to turn image and boxes counterclockwise to stand them upright. So the boxes fit as they are, and nothing
  is turned (https://storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, DatasetPart, ImageBatch
from synthgen.formats.readers._csv_lines import CsvTable, iter_lines, split_line
from synthgen.formats.readers._file_threads import map_in_order
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._folder_listing import utf8_name
from synthgen.formats.readers._ids import text_id
from synthgen.formats.readers._open_images_files import (
    find_image_folders,
    find_mask_folder,
    find_open_images,
    split_of_file,
)
from synthgen.formats.readers._open_images_index import (
    MAX_CLASSES,
    ClassIds,
    ImageIndex,
    NegativeLabels,
    count_rotated,
    find_named,
    image_id_of,
    read_negative_labels,
)
from synthgen.formats.readers._open_images_masks import BOX_COLUMNS, MaskRows, complete, make_key, parse_corners
from synthgen.images.decode import ImageError, read_image_header

SPLITS = ("train", "validation", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True
TITLE = "Open Images"
LOOKS_FOR = "a file <split>-annotations-bbox.csv, in the folder or in annotations/"

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_BATCH = 10_000
_BATCH_IMAGES = 1_000
_FIRST_MASK_ID = 2**40  # ids of masks without a box come after those of the boxes
_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits with boxes or masks in the folder `path`, or the split of a CSV file of boxes; None without any."""
    try:
        if path.is_file():
            split = split_of_file(path)
            return (split,) if split is not None else None
        return tuple(find_open_images(path)) or None
    except OSError:
        return None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The CSV files and the folders of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the CSV file of the boxes; the others lie beside it.

    Raises:
        SynthgenError: there are no boxes and no masks of the split.
    """
    if annotations is not None:
        own_split = split_of_file(annotations) if annotations.is_file() else None
        if own_split is None:
            raise SynthgenError(
                f"{annotations} is not Open Images' file of boxes; name that file, <split>-annotations-bbox.csv"
            )
        root, split = (annotations.parent if not root.is_dir() else root), own_split
    found = find_open_images(annotations.parent if annotations is not None else root).get(split)
    if found is None:
        raise SynthgenError(
            f"no {split}-annotations-bbox.csv in {root} or {root / 'annotations'}; download it there from "
            "https://storage.googleapis.com/openimages/web/download.html"
        )
    sources: dict[str, Path] = {}
    for role in ("boxes", "masks", "labels", "images"):
        path = getattr(found, role)
        if path is not None:
            sources["image list" if role == "images" else role] = path
    sources |= {f"classes {number}": path for number, path in enumerate(found.classes, 1)}
    sources |= {f"unread {number}": path for number, path in enumerate(found.unread, 1)}
    folders = find_image_folders(root, split, found)
    for number, folder in enumerate(folders):
        sources["images" if len(folders) == 1 else f"images {number}"] = folder
    masks = find_mask_folder(root, split, found)
    boxes_only = tuple(sources)
    if masks is not None and found.masks is not None:
        sources["masks folder"] = masks
    top = folders[0] if len(folders) == 1 else folders[0].parent
    image_root = root if top.is_relative_to(root) else top
    return DatasetFiles(sources, image_root, {LAYERS[0]: boxes_only}, split=split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the CSV files for the images that are there; see `synthgen.formats.readers`.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: no image is there, or a file cannot be read or lacks a column.
    """
    findings, classes = FindingCounter(), ClassIds()
    names = _read_class_names(files)
    index = _find_images(files, findings)
    negative = NegativeLabels(array("i"), array("q"))
    if "labels" in files.sources:
        negative = read_negative_labels(files.sources["labels"], index, classes, findings, files.on_bytes)
    if "image list" in files.sources:
        count_rotated(files.sources["image list"], index, findings, files.on_bytes)
    yield from _read_images(files, index, negative)
    rows = _BoxRows(index, with_masks=layer != LAYERS[0])
    masks = None
    if "masks" in files.sources:
        masks = MaskRows(files.sources["masks"], index, classes, findings, files.on_bytes)
    if "boxes" in files.sources:
        yield from _read_boxes(files.sources["boxes"], index, classes, masks, rows, findings, files.on_bytes)
    if masks is not None:
        yield from _read_masks_without_box(masks, index, classes, rows)
    yield from rows.flush()
    for role, path in files.sources.items():
        if role.startswith("unread"):
            findings.add("unread_labels", "files", path.name, "a file of another release is read instead")
    if not names:
        findings.add_many("no_class_names", "categories", len(classes.seen), [("classes", "class-descriptions.csv")])
        names = {label: label for label in classes.seen}
    unnamed = [label for label in classes.seen if label not in names]
    examples = [(label[:80], "no class description has it") for label in unnamed[:3]]
    findings.add_many("class_outside_names", "categories", len(unnamed), examples)
    yield from findings.parts()
    yield Categories({number: names[label] for label, number in sorted(classes.seen.items()) if names.get(label)})


class _BoxRows:
    """Collects annotations and makes batches of them."""

    def __init__(self, index: ImageIndex, *, with_masks: bool) -> None:
        self._index, self._with_masks = index, with_masks
        self._rows: list[tuple[int, int, int, float, float, float, float, bool, bool]] = []
        self._payloads: list[bytes | None] = []

    def add(
        self,
        position: int,
        number: int,
        label: int,
        corners: tuple[float, float, float, float] | None,
        mask: str | None,
        *,
        is_group: bool = False,
        is_depiction: bool = False,
    ) -> bool:
        """Add one; `corners` None = it has no box. Returns whether a batch is full."""
        box = corners if corners is not None else (np.nan, np.nan, np.nan, np.nan)
        self._rows.append((position, number, label, *box, is_group, is_depiction))
        if self._with_masks:
            self._payloads.append(mask.encode("utf-8", "replace") if mask is not None else None)
        return len(self._rows) >= _BATCH

    def flush(self) -> Iterator[AnnotationBatch]:
        """A batch of what was added, if anything was."""
        if not self._rows:
            return
        position, number, label, left, right, top, bottom, group, depiction = zip(*self._rows, strict=True)
        places = np.array(position)
        width, height = (size[places].astype(np.float64) for size in (self._index.width, self._index.height))
        x, x2, y, y2 = (np.array(values, np.float64) for values in (left, right, top, bottom))
        bbox = np.stack([x * width, y * height, (x2 - x) * width, (y2 - y) * height], axis=1)
        bbox[(width == 0) | (height == 0)] = np.nan
        ids = [self._index.id(one) for one in position]
        yield AnnotationBatch(
            image_id=np.array(ids, np.int64),
            id=np.array(number, np.int64),
            bbox=bbox,
            category=np.array(label, np.int64),
            iscrowd=np.array(group, np.bool_),
            flags={
                "fake": np.array(depiction, np.bool_),
                "no_box": np.asarray(np.isnan(bbox).any(axis=1), np.bool_),
            },
            payload=self._payloads if self._with_masks else None,
        )
        self._rows, self._payloads = [], []


def _find_images(files: DatasetFiles, findings: FindingCounter) -> ImageIndex:
    """The images of the split that are there."""
    folders = [path for role, path in files.sources.items() if re.fullmatch(r"images( \d+)?", role)]
    if any(not folder.is_relative_to(files.image_folder) for folder in folders):
        raise SynthgenError(
            f"--images {files.image_folder} names one folder, and the images of '{files.split}' are in several; name "
            "the folder above them"
        )
    index = ImageIndex(folders, files.image_folder)
    pattern = re.compile(re.escape(files.split) + "(_[0-9a-f])?", re.IGNORECASE)
    if not all(any(pattern.fullmatch(part) for part in folder.parts[-2:]) for folder in folders):
        # A folder of all splits, or one that the user names: this split has the images that its files name.
        wanted = find_named(
            (files.sources[role] for role in ("boxes", "masks", "labels") if role in files.sources), index
        )
        others = np.flatnonzero(~wanted)
        examples = [(index.file_names[i], "no CSV file of the split has its id") for i in others[:3].tolist()]
        findings.add_many("image_not_named", "images", len(others), examples)
        index.keep(wanted)
    if not len(index):
        raise SynthgenError(
            f"no image of '{files.split}' is in {', '.join(map(str, folders))}; download images there, or name their "
            "folder with --images"
        )
    return index


def _read_images(files: DatasetFiles, index: ImageIndex, negative: NegativeLabels) -> Iterator[ImageBatch]:
    """The images with the sizes of their headers, which are kept in the index."""

    def look(position: int) -> tuple[int, int, str | None]:
        name = index.file_names[position]
        path = files.image_folder / name
        try:
            if utf8_name(name) != name:
                return 0, 0, "its file name is not UTF-8; rename the file"
            height, width, _ = read_image_header(path) if path.is_file() else (0, 0, False)
            return height, width, None if height else "its image is not a file, or a link to none"
        except ImageError as why:
            return 0, 0, f"its image {why}"

    errors: list[str | None] = []
    start = 0
    for position, (height, width, error) in enumerate(map_in_order(look, range(len(index)))):
        index.height[position], index.width[position] = height, width
        errors.append(error)
        if len(errors) >= _BATCH_IMAGES or position == len(index) - 1:
            names = [utf8_name(name) for name in index.file_names[start : position + 1]]
            yield ImageBatch(
                image_id=np.array([index.id(i) for i in range(start, position + 1)], np.int64),
                file_name=names,
                image_key=[f"openimages/{image_id_of(name)}" for name in names],
                height=index.height[start : position + 1].copy(),
                width=index.width[start : position + 1].copy(),
                error=errors,
                neg_categories=[negative.get(i) for i in range(start, position + 1)],
            )
            errors, start = [], position + 1


def _read_boxes(
    path: Path,
    index: ImageIndex,
    classes: ClassIds,
    masks: MaskRows | None,
    rows: _BoxRows,
    findings: FindingCounter,
    on_bytes: Callable[[int], None] | None,
) -> Iterator[AnnotationBatch]:
    """The boxes of the images that are there."""
    table = CsvTable(path, _COLUMNS, ("IsGroupOf", "IsDepiction"), on_bytes)
    image, label, *corner_columns = (table.columns[name] for name in _COLUMNS)
    group, depiction = table.columns.get("IsGroupOf"), table.columns.get("IsDepiction")
    absent, absent_boxes = array("q"), 0
    last, position = "", -1
    for number, _, fields in table.rows():
        if fields is None:
            findings.add("broken_csv_line", "files", f"{path.name} line {number + 1}", "it has too few fields")
            continue
        if fields[image] != last:
            last = fields[image]
            position = index.find(last)
            if position < 0:
                absent.append(text_id(last))
        if position < 0:
            absent_boxes += 1
            continue
        corners = parse_corners(fields, corner_columns)
        number_of_class = classes.number(fields[label])
        if corners is None:
            what = f"line {number + 1} of {path.name}: its box cannot be read"
            findings.add("broken_row", "boxes", index.file_names[position], what)
        at = (
            masks.take(make_key(position, number_of_class, corners))
            if masks is not None and corners is not None
            else -1
        )
        is_full = rows.add(
            position,
            number,
            number_of_class,
            corners,
            masks.mask_path(at) if masks is not None and at >= 0 else None,
            is_group=group is not None and fields[group].strip() == "1",
            is_depiction=depiction is not None and fields[depiction].strip() == "1",
        )
        if is_full:
            yield from rows.flush()
    images = len(np.unique(np.array(absent, np.int64)))
    example = (path.name, f"{absent_boxes:,} boxes of images that are not there are left out")
    findings.add_many("absent_image", "images", images, [example])


def _read_masks_without_box(
    masks: MaskRows, index: ImageIndex, classes: ClassIds, rows: _BoxRows
) -> Iterator[AnnotationBatch]:
    """The masks that belong to no box, each with the box from which it was drawn."""
    columns = masks.columns
    for number, fields in masks.rest():
        if len(fields) <= max(columns.values()):  # the file was changed meanwhile
            continue
        corners = parse_corners(fields, [columns[name] for name in BOX_COLUMNS])
        label, mask = classes.number(fields[columns["LabelName"]]), fields[columns["MaskPath"]]
        if rows.add(index.find(fields[columns["ImageID"]]), _FIRST_MASK_ID + number, label, corners, mask):
            yield from rows.flush()


def _read_class_names(files: DatasetFiles) -> dict[str, str]:
    """Names of the classes by their own ids, from files with or without a first line of column names."""
    names: dict[str, str] = {}
    for role, path in files.sources.items():
        if not role.startswith("classes"):
            continue
        for at, line in iter_lines(path):
            fields = split_line(line.removeprefix(b"\xef\xbb\xbf") if not at else line) or []
            if len(fields) >= 2 and fields[0].strip().lower() != "labelname":
                names.setdefault(fields[0].strip(), fields[1].strip())
            if len(names) > MAX_CLASSES:
                raise SynthgenError(f"{path} has more than {MAX_CLASSES:,} classes; is it Open Images' file?")
    return names
