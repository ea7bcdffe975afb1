"""LabelMe: one JSON an image with its shapes, as labelme (wkentaro), X-AnyLabeling and converters write it.

The JSONs lie beside the images, or in a folder of their own beside a folder of images. Folders named train, val, test
and the like are splits. `imagePath` decides which image belongs to a JSON; if there is no such image, its last part and
then the JSON's own name do. `imageData`, a copy of the image inside the JSON, is never used.

Objects: `rectangle` (any two corners, or four), `polygon`, `circle`, `mask`, and `oriented_rectangle` or `rotation`.
The last two become the upright box around them, with the flag `rotated`. Polygons, circles and masks with the same
`group_id` and label are one object with several parts, as in labelme2coco; rectangles stay apart. Lines and points have
no area: they are counted, and are no objects. So are regions with the label `__ignore__` or `_background_`.
X-AnyLabeling's `difficult` becomes the flag `difficult`; other flags and descriptions are not used.

Coordinates are pixels of the image as a viewer shows it: labelme applies EXIF orientation. Where the JSON gives no
size, the image's header does.

Layer "human": polygons, circles (as polygons) and masks. Rectangles have no mask.

Format: https://github.com/wkentaro/labelme/blob/main/labelme/_label_file.py
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._label_files import LabelFileError, OtherFormatError, open_label_file
from synthgen.formats.readers._label_folders import (
    ImageNames,
    LabelFormat,
    add_unlabeled_splits,
    find_image_place,
    find_label_folders,
    list_label_files,
    path_stem,
    read_shown_size,
)
from synthgen.formats.readers._labelme_json import LabelMeImage, add_shapes, read_labelme_json
from synthgen.formats.readers._object_rows import ObjectRows
from synthgen.images.decode import ImageError, find_image
from synthgen.images.paths import IMAGE_SUFFIXES

TITLE = "LabelMe"
LOOKS_FOR = "JSON files with 'shapes' and 'imagePath', one an image: beside the images, or in a folder beside them"
SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_FOLDER_NAMES = ("labelme_json", "labelme", "annotations", "annotation", "labels", "label", "jsons", "json")
_START_BYTES, _END_BYTES = 2**16, 2**12
_SHAPES_KEY = re.compile(rb'"shapes"\s*:\s*\[')
_IMAGE_KEYS = re.compile(rb'"(?:imagePath|imageHeight|imageData)"\s*:')


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the folder `path`, or of one JSON; None if it is not LabelMe's."""
    if path.is_file():
        return ("train",) if path.suffix.lower() == ".json" and _is_labelme_file(path) else None
    return tuple(find_label_folders(path, _label_format())) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The JSONs of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: a folder of JSONs, or one JSON; it is the whole split.

    Raises:
        SynthgenError: there are none.
    """
    if annotations is not None:
        if not annotations.exists():
            raise SynthgenError(f"no file or folder {annotations}; --annotations should name LabelMe's JSON files")
        found = {split: annotations}
    else:
        found = find_label_folders(root, _label_format())
    if split not in found:
        have = f"it has {', '.join(found)}" if found else "it should hold JSON files beside the images"
        raise SynthgenError(f"no LabelMe split '{split}' in {root}; {have}")
    return DatasetFiles({"labels": found[split]}, root, split=split, content_roles=frozenset({"labels"}))


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the JSONs; see `synthgen.formats.readers`.

    A JSON that cannot be read makes an image with an error. A JSON of another kind, and an image without a JSON, are
    counted.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a folder cannot be read.
    """
    labels = files.sources["labels"]
    folder = labels.parent if labels.is_file() else labels
    names = list_label_files(labels, ".json")
    images = ImageNames(find_image_place(folder, files.image_folder), files.image_folder)
    rows = ObjectRows(masks=layer == "human")
    for name in names:
        try:
            content = read_labelme_json(folder / name, files.on_bytes)
        except OtherFormatError as why:
            rows.add_finding("foreign_file", "files", name, f"its JSON {why}")
            continue
        except LabelFileError as why:
            found = images.find(path_stem(name))
            rows.add_image(images.prefix + (found or f"{path_stem(name)}.jpg"), 0, 0, f"its JSON {why}")
            continue
        _add_image(files, rows, images, folder, name, content)
        yield from rows.full_batches()
    if labels.is_dir():
        images.add_findings(rows, names)
        if labels.is_relative_to(files.image_folder):
            add_unlabeled_splits(rows, files.image_folder, _label_format())
    yield from rows.finish()


def _add_image(
    files: DatasetFiles, rows: ObjectRows, images: ImageNames, folder: Path, name: str, content: LabelMeImage
) -> None:
    """Add an image and its objects; `name` is that of its JSON below `folder`."""
    file_name, error = _find_image(files, images, folder, name, content.image_path), None
    if file_name is None:
        given = PurePosixPath(content.image_path).name
        is_image = PurePosixPath(given).suffix.lower() in IMAGE_SUFFIXES and "\0" not in given
        file_name = images.prefix + (
            posixpath.join(posixpath.dirname(name), given) if is_image else f"{path_stem(name)}.jpg"
        )
        if content.has_image_data:
            error = "its image file is missing; the JSON holds a copy (imageData), which labelme can write to a file"
    height, width = content.height, content.width
    if not height or not width:
        height, width = read_shown_size(files.image_folder, file_name)
    image_id = rows.add_image(file_name, height, width, error)
    add_shapes(rows, image_id, file_name, content.shapes, height, width)


def _find_image(files: DatasetFiles, images: ImageNames, folder: Path, name: str, image_path: str) -> str | None:
    """The image of a JSON, below the image folder; None if there is none."""
    above = posixpath.dirname(name)
    if image_path:
        if folder.is_relative_to(files.image_folder):
            start = folder.relative_to(files.image_folder).as_posix()
            target = posixpath.normpath(posixpath.join(start, above, image_path))
            if target.startswith(images.prefix) and (found := images.find_name(target[len(images.prefix) :])):
                return images.prefix + found
            if _is_image(files.image_folder, target):
                return target
        last = posixpath.join(above, image_path.rpartition("/")[2])
        found = images.find_name(last) or images.find(path_stem(last))
        if found:
            return images.prefix + found
    found = images.find(path_stem(name))
    return images.prefix + found if found else None


def _is_image(image_folder: Path, file_name: str) -> bool:
    """Whether a path stays below the folder and leads to an image file."""
    if PurePosixPath(file_name).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        return find_image(image_folder, file_name) == image_folder / file_name
    except ImageError:
        return False


def _label_format() -> LabelFormat:
    return LabelFormat(".json", _FOLDER_NAMES, _is_labelme_file)


def _is_labelme_file(path: Path) -> bool:
    """Whether the start and the end of a file have LabelMe's keys; what is between may be a large copy of the image."""
    try:
        with open_label_file(path) as file:
            text = file.read(_START_BYTES)
            size = file.seek(0, 2)
            file.seek(max(size - _END_BYTES, 0))
            text += b"\n" + file.read(_END_BYTES)
    except (LabelFileError, OSError):
        return False
    return bool(_SHAPES_KEY.search(text)) and bool(_IMAGE_KEYS.search(text))
