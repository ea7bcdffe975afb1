"""Shared by datasets in COCO's instances format: images, annotations and categories in one JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._coco_json import stream_records
from synthgen.formats.readers._numbers import parse_float, parse_int, parse_pixels
from synthgen.images.decode import MAX_IMAGE_PIXELS
from synthgen.records.rle import rle_bbox_xyxy, rle_from_coco
from synthgen.records.sample import Annotation, Sample

#: Stands for a missing id. Files do not contain it: many JSON parsers stop at 2**53.
NO_ID = -(2**63)

#: Stands for a missing box.
NO_BOX = (math.nan, math.nan, math.nan, math.nan)

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


# The types below are strict, because strict decoding is fast; `coerce` accepts other spellings of real files. Only a
# record without an id is refused, as its content could not be assigned to an image.
class CocoImage(msgspec.Struct, gc=False):
    """One element of "images"."""

    id: Int64
    file_name: str = ""
    height: _Pixels = 0
    width: _Pixels = 0
    coco_url: str = ""

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """An image in any spelling; ValueError without an id."""
        return cls(
            id=_required_id(value, "id"),
            file_name=_clean_text(value.get("file_name")),
            height=parse_pixels(value.get("height")),
            width=parse_pixels(value.get("width")),
            coco_url=_clean_text(value.get("coco_url")),
        )


class LvisImage(CocoImage, gc=False):
    """One element of "images" with the categories that were looked for (LVIS)."""

    neg_category_ids: list[Int64] = []
    not_exhaustive_category_ids: list[Int64] = []

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """As for `CocoImage`."""
        found = super().coerce(value)
        found.neg_category_ids = _parse_ids(value.get("neg_category_ids"))
        found.not_exhaustive_category_ids = _parse_ids(value.get("not_exhaustive_category_ids"))
        return found


class CocoBox(msgspec.Struct, gc=False):
    """One element of "annotations" for the layer of boxes."""

    image_id: Int64
    category_id: Int64 = NO_ID
    id: Int64 = NO_ID
    bbox: tuple[float, float, float, float] = NO_BOX
    iscrowd: Int64 = 0

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """An annotation in any spelling; ValueError without the id of its image."""
        box = value.get("bbox")
        numbers = [parse_float(v) for v in box] if isinstance(box, list) else []
        return cls(
            image_id=_required_id(value, "image_id"),
            category_id=_or_default(parse_int(value.get("category_id")), NO_ID),
            id=_or_default(parse_int(value.get("id")), NO_ID),
            bbox=(numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else NO_BOX,
            iscrowd=parse_flag(value.get("iscrowd")),
        )


class CocoMask(CocoBox, gc=False):
    """One element of "annotations" with its undecoded segmentation."""

    segmentation: msgspec.Raw = msgspec.Raw()

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """As for `CocoBox`."""
        found = super().coerce(value)
        found.segmentation = msgspec.Raw(json.dumps(value.get("segmentation")).encode())
        return found


class CocoCategory(msgspec.Struct, gc=False):
    """One element of "categories"."""

    id: Int64
    name: str = ""

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """A category in any spelling; ValueError without an id."""
        return cls(id=_required_id(value, "id"), name=_clean_text(value.get("name")))


def find_annotation_file(root: Path, names: Sequence[str], annotations: Path | None) -> Path:
    """The instances file: `annotations` if given, else the first of `names` below root or root/annotations.

    Raises:
        SynthgenError: it is missing.
    """
    if annotations is not None:
        if not annotations.is_file():
            raise SynthgenError(f"no file {annotations}; --annotations should name a COCO-style JSON file")
        return annotations
    for folder in (root / "annotations", root):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise SynthgenError(
        f"no {names[0]} in {root} or {root / 'annotations'}; put it there, or name it with --annotations"
    )


def find_split_folder(root: Path, split: str) -> Path:
    """The folder of a split's images: root/split if it exists, else root."""
    return root / split if (root / split).is_dir() else root


def read_instances(
    files: DatasetFiles,
    layer: str,
    *,
    name_and_key: Callable[[CocoImage], tuple[str, str]],
    image_type: type[CocoImage] = CocoImage,
    box_type: type[CocoBox] = CocoBox,
    mask_type: type[CocoMask] = CocoMask,
    flag_fields: Mapping[str, str] | None = None,
) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """Read `files.sources["instances"]`; layers other than "annotations" get each segmentation's JSON as payload.

    Args:
        name_and_key: an image's (file_name, image_key).
        image_type: type of the records of images: `CocoImage` or `LvisImage`.
        box_type: type of the records of the layer "annotations"; mask_type: of those of the other layers.
        flag_fields: by name of the flag, the field of both types that sets it.

    Raises:
        SynthgenError: the file is not such JSON.
    """
    path = files.sources["instances"]
    masked = layer != "annotations"
    kinds: dict[str, type[msgspec.Struct]] = {
        "images": image_type,
        "annotations": mask_type if masked else box_type,
        "categories": CocoCategory,
    }
    count = 0
    missing = {"images", "annotations"}
    for key, found in stream_records(path, kinds, on_bytes=files.on_bytes):
        missing.discard(key)
        if key == "images":
            yield _image_batch(found, name_and_key)
        elif key == "annotations":
            yield _annotation_batch(found, count, flag_fields or {}, masked=masked)
            count += len(found)
        else:
            yield Categories(
                {c.id: c.name.strip() for c in found if c.name.strip()},
                padded={c.id: c.name for c in found if c.name != c.name.strip()},
            )
    if missing:
        raise SynthgenError(f"{path} has no '{min(missing)}'; a COCO-style file has 'images' and 'annotations'")


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "human": each payload is the JSON of a segmentation. An unreadable one sets a flag; the box stays."""

    def with_masks(sample: Sample, payloads: list[bytes | None]) -> Sample:
        masked = (_with_mask(a, p, sample) for a, p in zip(sample.annotations, payloads, strict=True))
        return replace(sample, annotations=tuple(masked))

    return with_masks


def _with_mask(annotation: Annotation, payload: bytes | None, sample: Sample) -> Annotation:
    if payload is None:
        return annotation
    try:
        if not 0 < sample.height * sample.width <= MAX_IMAGE_PIXELS:
            raise SynthgenError("a mask needs the size of its image")
        rle = rle_from_coco(msgspec.json.decode(payload), sample.height, sample.width)
    except Exception:  # bad polygons raise many types: TypeError, OverflowError, ...
        return replace(annotation, flags=tuple(sorted({*annotation.flags, "bad_segmentation"})))
    bbox = annotation.bbox
    if "no_box" in annotation.flags:
        x1, y1, x2, y2 = rle_bbox_xyxy(rle)
        bbox = (x1, y1, x2 - x1, y2 - y1)
    return replace(annotation, bbox=bbox, segmentation=rle, mask_source="human")


def _image_batch(found: list[CocoImage], name: Callable[[CocoImage], tuple[str, str]]) -> ImageBatch:
    names = [name(image) for image in found]
    looked_over = [image for image in found if isinstance(image, LvisImage)]
    return ImageBatch(
        image_id=np.array([image.id for image in found], np.int64),
        file_name=[file_name for file_name, _ in names],
        image_key=[key for _, key in names],
        height=np.array([image.height for image in found], np.int32),
        width=np.array([image.width for image in found], np.int32),
        neg_categories=[image.neg_category_ids for image in looked_over] or None,
        not_exhaustive_categories=[image.not_exhaustive_category_ids for image in looked_over] or None,
    )


def _annotation_batch(found: list[Any], count: int, flags: Mapping[str, str], *, masked: bool) -> AnnotationBatch:
    # One list per field, no checks of single records: this is half of the time of an ingest of boxes.
    ids = np.array([a.id for a in found], np.int64)
    ids = np.where(ids == NO_ID, np.arange(count + 1, count + len(ids) + 1), ids)  # else its number in the file
    numbers = chain.from_iterable([a.bbox for a in found])
    bbox = np.fromiter(numbers, np.float64, 4 * len(found)).reshape(-1, 4)
    given = {flag: np.fromiter(map(attrgetter(field), found), np.int64) != 0 for flag, field in flags.items()}
    no_box = np.asarray(np.isnan(bbox).all(axis=1), np.bool_)
    return AnnotationBatch(
        image_id=np.array([a.image_id for a in found], np.int64),
        id=ids,
        bbox=bbox,
        category=np.array([a.category_id for a in found], np.int64),
        iscrowd=np.array([a.iscrowd for a in found], np.int64) != 0,
        flags={"no_box": no_box, **given},
        payload=[_segmentation_payload(a.segmentation) for a in found] if masked else None,
    )


def _segmentation_payload(segmentation: msgspec.Raw) -> bytes | None:
    """A copy, as the original keeps a large part of the file in memory; None without a mask."""
    text = bytes(segmentation)
    return None if text in (b"", b"null", b"[]") else text


def _required_id(value: dict[str, Any], key: str) -> int:
    found = parse_int(value.get(key))
    if found is None:
        raise ValueError(f"its '{key}' should be a whole number, it is {json.dumps(value.get(key))[:80]}")
    return found


def _parse_ids(value: object) -> list[int]:
    """Category ids in any spelling; an invalid one becomes an id that no category has."""
    return [_or_default(parse_int(one), NO_ID) for one in value] if isinstance(value, list) else []


def parse_flag(value: object) -> int:
    """1 for true, 1 and "1"; else 0."""
    return int(bool(parse_int(value)) if isinstance(value, str) else bool(value))


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value


def _clean_text(value: object) -> str:
    """A text that UTF-8 can encode; lone surrogates, which JSON allows, become question marks."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
