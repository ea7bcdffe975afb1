"""Shared by formats that hold the bytes of images: names of splits, images, and the members of an annotation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from synthgen.errors import SynthgenError, describe_exhaustion
from synthgen.export.exporters import ExportContext, ExportItem, ExportLicense
from synthgen.export.exporters._coco_records import coco_area
from synthgen.export.summary import plain_split_name
from synthgen.images.decode import ImageError, read_image_header
from synthgen.images.packed import open_image
from synthgen.records.rle import rle_bbox_xyxy
from synthgen.records.sample import MASK_SCORES, Annotation, mask_provenance

#: A larger image is refused; the largest that synthgen decodes has 375 MB without compression.
MAX_IMAGE_BYTES = 2**29


def plain_split_names(context: ExportContext) -> dict[str, str]:
    """The name of each split in names of files; see `plain_split_name`.

    Args:
        context: of the export.

    Raises:
        SynthgenError: two splits get one name.
    """
    names = {split: plain_split_name(split) for split in context.splits}
    first: dict[str, str] = {}
    for split, name in names.items():
        if (other := first.setdefault(name.lower(), split)) != split:
            raise SynthgenError(f"the splits '{other}' and '{split}' are both named '{name}' here; rename one of them")
    return names


def describe_empty_splits(splits: Iterable[str]) -> list[str]:
    """A sentence for each of `splits`, which have no images: readers of these formats refuse files without samples."""
    return [f"the split '{split}' has no images, so that no file is written for it" for split in splits]


def read_image(item: ExportItem) -> bytes | None:
    """The bytes of an image, as they are; None if its file is not known.

    Args:
        item: an image of the export.

    Raises:
        ImageError: it cannot be read, or is too large.
        OSError: the machine lacks memory or open files.
    """
    if item.image is None:
        return None
    try:
        with open_image(item.image) as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as why:
        if describe_exhaustion(why):
            raise  # it says nothing about the image
        raise ImageError(f"cannot be read ({why.strerror or type(why).__name__})") from None
    if not data:
        raise ImageError("is empty")
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageError(f"has more than {MAX_IMAGE_BYTES // 2**20} MiB")
    return data


def find_turn(item: ExportItem) -> Literal["", "turned", "unturned"]:
    """Whether the EXIF tag of an image swaps its height and width, and the masks are of the image as viewers show it
    ("turned") or of the stored pixels ("unturned"). "" = it does not, or the image cannot be read.

    Args:
        item: an image of the export.
    """
    try:
        height, width, turned = read_image_header(item.image) if item.image is not None else (0, 0, False)
    except ImageError:
        return ""
    if not turned:
        return ""
    return "turned" if (item.sample.height, item.sample.width) == (height, width) else "unturned"


def list_objects(item: ExportItem) -> list[tuple[Annotation, dict[str, Any]]]:
    """The annotations of an image that have a box or a mask, each with the members that all these formats write.

    The members are plain JSON. An absent value is None. A box that is not finite is read off the mask.

    Args:
        item: an image of the export.
    """
    pairs = zip(item.sample.annotations, item.mask_areas, strict=True)
    return [(one, members) for one, area in pairs if (members := _object_members(one, area)) is not None]


def _object_members(annotation: Annotation, mask_area: int) -> dict[str, Any] | None:
    """The members of an annotation; None if it has no box and no mask. `mask_area` is the mask's number of pixels."""
    mask, box = annotation.segmentation, [float(v) for v in annotation.bbox]
    if not all(map(math.isfinite, box)):
        if mask is None:
            return None
        x1, y1, x2, y2 = rle_bbox_xyxy(mask)
        box = [x1, y1, x2 - x1, y2 - y1]
    area = coco_area(annotation, mask_area)
    if not math.isfinite(area):
        area = mask_area
    given = {name: getattr(annotation, name) for name in MASK_SCORES}
    scores = {
        name: None if score is None or not math.isfinite(score) else float(score) for name, score in given.items()
    }
    return {
        "id": annotation.id,
        "bbox": box,
        "category_id": annotation.category_id,
        "area": float(area),
        "iscrowd": bool(annotation.iscrowd),
        "segmentation": None if mask is None else {"size": list(mask.size), "counts": mask.counts.decode("ascii")},
        "mask_source": plain_text(annotation.mask_source),
        "provenance": mask_provenance(annotation),
        **scores,
        "captions": [plain_text(caption.text) for caption in annotation.captions],
        "flags": list(annotation.flags),
    }


def license_members(license_id: int | None, licenses: Mapping[int, ExportLicense]) -> dict[str, Any] | None:
    """The licence of an image as plain JSON; None if its source gives none.

    Args:
        license_id: `Sample.license_id`.
        licenses: those of the source's file, by number.
    """
    if license_id is None:
        return None
    found = licenses.get(license_id)
    return {
        "id": license_id,
        "name": plain_text(found.name) if found else None,
        "url": plain_text(found.url) if found else None,
    }


def describe_source(context: ExportContext) -> dict[str, Any]:
    """The layer, what made it, its categories and its licences, as plain JSON: what the rows cannot hold.

    Args:
        context: of the export.
    """
    return {
        "layer": context.layer,
        "description": context.description,
        "synthgen": context.version,
        "recipe": dict(context.recipe),
        "categories": [
            {"id": one.id, "name": one.name, **({"supercategory": one.supercategory} if one.supercategory else {})}
            for one in context.categories
        ],
        "licenses": [{"id": one.id, "name": one.name, "url": one.url} for one in context.licenses],
    }


def plain_text(text: str | None) -> str | None:
    """`text` that UTF-8 can encode; a name of a file may hold lone surrogates. None stays."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
