"""Pascal VOC: one XML an image with the boxes of its objects, as VOC, labelImg, Roboflow, CVAT and others write it.

Layouts: `Annotations/` beside `JPEGImages/`, with or without `ImageSets/Main/<split>.txt`; other folders of annotations
and images; XML beside the images, also in the folders train, valid and test. VOCdevkit may hold several years: their
splits are then called VOC2007-train and so on.

The name of the XML file decides which image it belongs to, as in VOC's own tools. `<filename>` is only used if there is
no such image, and `<path>` never.

Boxes: VOC's own files count pixels from 1, and their box includes the last pixel. Such a file names its database ("The
VOC2007 Database"); its boxes become [xmin - 1, xmax] x [ymin - 1, ymax], as in Detectron2. All other exporters
(labelImg, Roboflow, Datumaro, labelformat, FiftyOne) write plain corners, which are read as they are. Exchanged corners
are not repaired: the box is `degenerate`. The flag `difficult` is kept; `truncated`, `occluded` and `pose` are not
used. `<part>` elements are no objects. `<robndbox>` of roLabelImg (centre, size, angle in radians) becomes the upright
box around it, with the flag `rotated`.

Layer "human": `<polygon>` (x1, y1, x2, y2, ... or points), and the masks in `SegmentationObject/`. There, the number of
a pixel is the number of the object in the XML, and 255 is void; PNGs in the colours of VOC's palette are read, too. A
mask whose box disagrees with its object's is flagged `bad_segmentation`.

Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._folder_listing import file_suffix
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._label_files import LabelFileError, OtherFormatError, read_label_file, read_start
from synthgen.formats.readers._label_folders import (
    ImageNames,
    LabelFormat,
    add_unlabeled_splits,
    find_image_place,
    find_label_folders,
    find_stem,
    last_part,
    list_label_files,
    path_stem,
    read_shown_size,
)
from synthgen.formats.readers._object_rows import ObjectRows
from synthgen.formats.readers._voc_xml import VocImage, read_object_masks, read_voc_xml
from synthgen.images.paths import IMAGE_SUFFIXES

TITLE = "Pascal VOC"
LOOKS_FOR = (
    "XML files with <annotation>: in Annotations/ beside JPEGImages/, beside the images, or in train/ and valid/"
)
SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_START_BYTES = 4096
_MAX_LIST_BYTES = 2**28
_MAX_LISTS = 1_000
_LIST_NAME = re.compile(r"[\w.-]+")
_ROOT = re.compile(rb"<annotation[\s/>]")
_OTHER_FORMAT = re.compile(rb"<(?:imagesize|sourceImage|nrows)[\s/>]")  # LabelMe's XML of MIT
_LISTED_SUFFIXES = IMAGE_SUFFIXES | {".xml"}
_YEAR = re.compile(r"VOC\d{4}", re.IGNORECASE)


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the folder `path`, or of one XML file; None if it is not Pascal VOC."""
    if path.is_file():
        return ("train",) if path.suffix.lower() == ".xml" and _is_voc_file(path) else None
    return tuple(_find_splits(path)) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The XML files of a split, and the list that names them, if there is one.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: a folder of XML files, or one XML file; it is the whole split.

    Raises:
        SynthgenError: there are none.
    """
    if annotations is not None:
        if not annotations.exists():
            raise SynthgenError(f"no file or folder {annotations}; --annotations should name Pascal VOC's XML files")
        return _dataset_files(root, split, annotations, None)
    found = _find_splits(root)
    if split not in found:
        have = f"it has {', '.join(found)}" if found else "it should hold Annotations/ and JPEGImages/"
        raise SynthgenError(f"no Pascal VOC split '{split}' in {root}; {have}")
    return _dataset_files(root, split, *found[split])


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the XML files; see `synthgen.formats.readers`.

    An XML file that cannot be read makes an image with an error. A file of another kind, and an image without an XML
    file, are counted.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a folder or the list of a split cannot be read.
    """
    labels = files.sources["labels"]
    folder = labels.parent if labels.is_file() else labels
    names = list_label_files(labels, ".xml")
    images = ImageNames(find_image_place(folder, files.image_folder), files.image_folder)
    rows = ObjectRows(masks=layer == "human")
    masks = files.sources.get("masks") if layer == "human" else None
    if "list" in files.sources:
        for stem in _read_list(files.sources["list"]):
            _add_image(files, rows, images, folder, stem, find_stem(names, stem), masks)
            yield from rows.full_batches()
    else:
        for name in names:
            _add_image(files, rows, images, folder, path_stem(name), name, masks)
            yield from rows.full_batches()
    if labels.is_dir():
        images.add_findings(rows, names)
        if labels.is_relative_to(files.image_folder) and "list" not in files.sources:
            add_unlabeled_splits(rows, files.image_folder, _label_format())
    yield from rows.finish()


def _add_image(
    files: DatasetFiles,
    rows: ObjectRows,
    images: ImageNames,
    folder: Path,
    stem: str,
    name: str | None,
    masks: Path | None,
) -> None:
    """Add an image and its objects. `name`: its XML file; None = there is none."""
    found = images.find(stem)
    if name is None:
        error = f"the list of the split names it, and there is no XML file {stem}.xml"
        rows.add_image(images.prefix + (found or f"{stem}.jpg"), 0, 0, error)
        return
    if files.on_bytes is not None:
        files.on_bytes(_file_bytes(folder / name))
    try:
        content = read_voc_xml(folder / name)
    except OtherFormatError as why:
        rows.add_finding("foreign_file", "files", name, f"its XML {why}")
        return
    except LabelFileError as why:
        rows.add_image(images.prefix + (found or f"{stem}.jpg"), 0, 0, f"its XML {why}")
        return
    if found is None:
        given = last_part(content.filename)
        found = images.find(path_stem(given)) if given else None
        head = f"{stem.rpartition('/')[0]}/" if "/" in stem else ""
        is_name = Path(given).suffix.lower() in IMAGE_SUFFIXES
        found = found or (head + given if is_name and "\0" not in given else f"{stem}.jpg")
    file_name = images.prefix + found
    height, width = content.height, content.width
    if not height or not width:
        height, width = read_shown_size(files.image_folder, file_name)
    image_id = rows.add_image(file_name, height, width)
    payloads = _object_payloads(content, masks / f"{stem}.png", rows, stem) if masks is not None else {}
    for number, thing in enumerate(content.objects, start=1):
        for shape in thing.shapes:
            rows.add_object(image_id, thing.name, shape, flags=thing.flags, payload=payloads.get(number))
        for part in thing.parts:
            rows.add_finding("not_an_object", "shapes", file_name, f"part '{part}' of '{thing.name}'")


def _object_payloads(content: VocImage, path: Path, rows: ObjectRows, stem: str) -> dict[int, bytes]:
    """The masks of an image's objects by their number; none without a PNG."""
    if not path.is_file():
        return {}
    payloads, surplus = read_object_masks(path, content)
    if surplus:
        what = f"masks of objects {', '.join(map(str, surplus[:5]))}, and the XML has {len(content.objects)} objects"
        rows.add_finding("mask_without_object", "masks", f"{stem}.png", what, len(surplus))
    return payloads


def _dataset_files(root: Path, split: str, labels: Path, listed: Path | None) -> DatasetFiles:
    sources = {"labels": labels}
    if listed is not None:
        sources["list"] = listed
    masks = labels.parent / "SegmentationObject"
    roles = tuple(sources)
    if labels.is_dir() and masks.is_dir():
        sources["masks"] = masks
    return DatasetFiles(
        sources, root, layer_sources={"annotations": roles}, split=split, content_roles=frozenset({"labels"})
    )


def _find_splits(root: Path) -> dict[str, tuple[Path, Path | None]]:
    """By split: the folder of XML files, and the list of its images."""
    found = _find_splits_of_year(root)
    if found:
        return found
    for devkit in (root, root / "VOCdevkit"):
        years = [year for year in sorted(devkit.glob("VOC*")) if year.is_dir() and _YEAR.fullmatch(year.name)]
        of_years = {year.name: some for year in years if (some := _find_splits_of_year(year))}
        if len(of_years) == 1:
            return next(iter(of_years.values()))
        if of_years:
            return {f"{year}-{split}": own for year, some in of_years.items() for split, own in some.items()}
    return {}


def _find_splits_of_year(root: Path) -> dict[str, tuple[Path, Path | None]]:
    splits = find_label_folders(root, _label_format())
    if list(splits) == ["train"] and (lists := _split_lists(splits["train"].parent / "ImageSets" / "Main")):
        return {name: (splits["train"], path) for name, path in lists.items()}
    return {split: (folder, None) for split, folder in splits.items()}


def _split_lists(folder: Path) -> dict[str, Path]:
    """The lists of a split's images by its name. Lists of a class have a second column, and are no splits.

    "trainval" is left out if "train" or "val" is there: it would read their images twice.
    """
    found = {}
    for path in sorted(folder.glob("*.txt"))[:_MAX_LISTS]:
        first = next((line for line in read_start(path, _START_BYTES).splitlines() if line.strip()), b"")
        if _LIST_NAME.fullmatch(path.stem) and len(first.split()) == 1:
            found[path.stem] = path
    if {"train", "val"} & found.keys():
        found.pop("trainval", None)
    order = {name: place for place, name in enumerate(("train", "trainval", "val", "test"))}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def _read_list(path: Path) -> list[str]:
    """The images of a split: paths without suffix, each once, in the order of the list.

    VOC's lists have no suffixes; others name the images or the XML files.
    """
    try:
        content = read_label_file(path, _MAX_LIST_BYTES)
    except LabelFileError as why:
        raise SynthgenError(f"{path} {why}; it should name one image a line") from None
    lines = (line.decode("utf-8", "replace").strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines())
    stems = dict.fromkeys(path_stem(line) if file_suffix(line) in _LISTED_SUFFIXES else line for line in lines if line)
    return list(stems)


def _label_format() -> LabelFormat:
    return LabelFormat(".xml", ("annotations", "annotation", "xmls", "xml", "labels"), _is_voc_file)


def _is_voc_file(path: Path) -> bool:
    start = read_start(path, _START_BYTES).replace(b"\0", b"")  # UTF-16 becomes ASCII
    return bool(_ROOT.search(start)) and not _OTHER_FORMAT.search(start)


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
