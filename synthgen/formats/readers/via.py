"""VIA (VGG Image Annotator) 1 and 2: projects (`_via_img_metadata`), exports of annotations as JSON, and as CSV.

The images lie beside the file, or in a folder images/ there. Folders train, val, test and the like with a file each are
splits. If a folder holds an export (via_region_data, via_export_json, via_export_csv), other files there are not read.
If it holds several other files, each is a split called as the file. JSON is preferred to CSV.

VIA does not know classes, only attributes of regions. The class is the attribute named class, label, category, name,
type or object, if at least half as many regions have it as any other attribute; else the attribute that most regions
have. If there are several, `synthgen doctor` names the one that was taken. A checkbox with several values gives the
first.

Objects: rect, polygon, circle, ellipse (`theta` is in radians; a turned one gets the flag `rotated`). `polyline` and
`point` are counted, and are no objects. Regions that are stored twice stay, with the flag `duplicate`.

VIA stores no sizes of images: they come from the images' headers, in the orientation that browsers show (EXIF). `size`
is the size of the file in bytes, or -1, and is not used.

Layer "human": polygons, circles and ellipses (both as polygons). VIA 3 is recognised, and not supported.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/docs/userguide.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._label_files import read_start
from synthgen.formats.readers._label_folders import (
    LabelFormat,
    find_named_image,
    find_split_files,
    image_prefixes,
    last_part,
    read_shown_size,
)
from synthgen.formats.readers._object_rows import ObjectRows
from synthgen.formats.readers._via_files import (
    ViaRegion,
    choose_class_attribute,
    count_attributes,
    read_via_file,
    read_via_shape,
    region_labels,
)

TITLE = "VIA"
LOOKS_FOR = "a JSON with '_via_img_metadata', or with 'filename' and 'regions' for each image, or VIA's CSV"
SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_START_BYTES = 2**16
_FOLDER_NAMES = ("annotations", "annotation", "labels", "via")
_EXPORTS = ("via_region_data", "via_export_json", "via_export_csv")
_PROJECT = re.compile(rb'"_via_(?:img_metadata|settings)"\s*:')
_IMAGE = re.compile(rb'"(?:regions"\s*:\s*[\[{]|file_attributes"\s*:\s*\{)')
_VERSION_3 = re.compile(rb'"(?:__VIA_PROJECT_ID__"|vid_list"|data_format_version"\s*:\s*"3\.)')


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the folder `path`, or of one file; None if it is not VIA's."""
    if path.is_file():
        return ("train",) if path.suffix.lower() in (".json", ".csv") and _is_via_file(path) else None
    return tuple(_find_splits(path)) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The file of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the file, if it is not in the folder.

    Raises:
        SynthgenError: it is not there, or of VIA 3.
    """
    if annotations is not None:
        if not annotations.is_file():
            raise SynthgenError(f"no file {annotations}; --annotations should name VIA's JSON or CSV")
        found = {split: annotations}
    else:
        found = _find_splits(root)
    if split not in found:
        have = f"it has {', '.join(found)}" if found else "it should hold VIA's JSON or CSV beside the images"
        raise SynthgenError(f"no VIA split '{split}' in {root}; {have}")
    path = found[split]
    if path.suffix.lower() == ".json" and _VERSION_3.search(read_start(path, _START_BYTES)):
        raise SynthgenError(f"{path} is a project of VIA 3, which is not supported; export it from VIA as COCO JSON")
    return DatasetFiles({"annotations": path}, root, split=split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the file; see `synthgen.formats.readers`. The file is read twice: the class is found first.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: the file is not VIA's.
    """
    path = files.sources["annotations"]
    counts, total = count_attributes(read_via_file(path))
    attribute = choose_class_attribute(counts)
    rows = ObjectRows(masks=layer == "human")
    if len(counts) > 1 and attribute is not None:
        for name in sorted(counts, key=lambda name: (name != attribute, name)):
            what = f"{counts[name]:,} of {total:,} regions have it{'; it is the class' if name == attribute else ''}"
            rows.add_finding("class_attribute", "categories", name, what)
    prefixes = image_prefixes(path.parent, files.image_folder)
    images: dict[str, tuple[int, str]] = {}  # by name in a CSV, which has a line for each region
    is_csv = path.suffix.lower() == ".csv"
    for image in read_via_file(path, files.on_bytes):
        if image.problem:
            rows.add_finding("unreadable_line", "files", path.name, image.problem)
            continue
        known = images.get(image.file_name)
        if known is None:
            file_name = _find_image(files.image_folder, prefixes, image.file_name)
            known = rows.add_image(file_name, *read_shown_size(files.image_folder, file_name)), file_name
        if is_csv:
            images[image.file_name] = known
        for region in image.regions:
            _add_region(rows, known[0], known[1], region, attribute)
        yield from rows.full_batches()
    yield from rows.finish()


def _add_region(rows: ObjectRows, image_id: int, file_name: str, region: ViaRegion, attribute: str | None) -> None:
    labels = region_labels(region.attributes.get(attribute)) if attribute is not None else []
    label = labels[0] if labels else ""
    if len(labels) > 1:
        rows.add_finding("several_labels", "boxes", file_name, ", ".join(labels[:10]))
    shape, name, is_object = read_via_shape(region.shape)
    if is_object:
        rows.add_object(image_id, label, shape)
    else:
        rows.add_finding("not_an_object", "shapes", file_name, f"{name} '{label}'")


def _find_image(image_folder: Path, prefixes: list[str], name: str) -> str:
    """The path of an image below the image folder; of a missing one, beside the file."""
    name = name.replace("\\", "/")
    try:
        is_url = "://" in name
        name = unquote(urlsplit(name).path) if is_url else name
    except ValueError:  # not a valid address
        is_url = True
    last = last_part(name)
    found = find_named_image(image_folder, prefixes, [last] if is_url else [name, last])
    is_inside = name and not is_url and not name.startswith("/") and ".." not in PurePosixPath(name).parts
    return found or (prefixes[0] + (name if is_inside else last) if last else "")


def _find_splits(root: Path) -> dict[str, Path]:
    """The file of each split of a folder."""
    by_suffix = (
        find_split_files(root, LabelFormat(suffix, _FOLDER_NAMES, _is_via_file), _EXPORTS)
        for suffix in (".json", ".csv")
    )
    return next(filter(None, by_suffix), {})


def _is_via_file(path: Path) -> bool:
    start = read_start(path, _START_BYTES)
    if path.suffix.lower() == ".csv":
        line = start.partition(b"\n")[0]
        return b"region_shape_attributes" in line and b"filename" in line
    if _PROJECT.search(start) or (b'"filename"' in start and _IMAGE.search(start)):
        return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    return bool(_VERSION_3.search(start))
