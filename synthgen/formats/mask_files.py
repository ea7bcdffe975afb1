"""Reads files of masks that were made elsewhere: COCO instances, COCO results, and PNG masks; one mask at a time.

A mask travels as the payload of an annotation (`AnnotationBatch.payload`), so that masks can be sorted by image on
disk. `decode_masks` draws it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch
from synthgen.formats.readers._coco_json import stream_records
from synthgen.formats.readers._coco_records import (
    NO_BOX,
    CocoCategory,
    CocoImage,
    Int64,
    coerce_origin,
    required_id,
    to_raw,
)
from synthgen.formats.readers._ids import parse_id
from synthgen.formats.readers._json_file import open_json
from synthgen.formats.readers._json_kinds import describe_other_json
from synthgen.formats.readers._label_regions import split_label_regions
from synthgen.formats.readers._mask_origin import (
    MaskOrigin,
    own_models,
    pack_origin,
    parse_origin,
    parse_score,
    record_origin,
    score_origin,
    split_origin,
)
from synthgen.formats.readers._numbers import parse_flag, parse_float
from synthgen.formats.readers._segmentations import draw_segmentation, find_rle_size
from synthgen.images.decode import ImageError, load_label_map, read_image_header
from synthgen.images.png_text import MODELS_KEYWORD, PROVENANCE_KEYWORD, read_png_text
from synthgen.records.box_table import NO_ID
from synthgen.records.rle import encode_mask, rle_area, rle_bbox_xyxy
from synthgen.records.sample import Rle

__all__ = [
    "DecodedMask",
    "MaskFileHead",
    "MaskOrigin",
    "decode_masks",
    "payload_size",
    "png_payload",
    "read_head",
    "read_masks",
]

_MAX_INFO_BYTES = 2**17
_PNG_MARK = b"\x00png "  # JSON has no byte 0
_BINARY, _ID_MAP = b"b", b"m"


class MaskRecord(msgspec.Struct, gc=False):
    """One element of "annotations", or of a list of results. The members after `score` are those of `CocoMask`."""

    image_id: Int64
    category_id: Int64 = NO_ID
    id: Int64 = NO_ID
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int = 0
    segmentation: msgspec.Raw = msgspec.Raw()
    score: float | None = None
    provenance: str | None = None
    mask_source: str | None = None
    predicted_iou: float | None = None
    stability_score: float | None = None
    box_iou: float | None = None
    sam_predicted_iou: float | None = None
    soft_iou: float | None = None
    captions: msgspec.Raw = msgspec.Raw()
    flags: msgspec.Raw = msgspec.Raw()

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """The record `value` in any spelling; ValueError without the id of its image."""
        box = value.get("bbox")
        numbers = [parse_float(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
        category, own = parse_id(value.get("category_id")), parse_id(value.get("id"))
        found = cls(
            image_id=required_id(value, "image_id"),
            category_id=NO_ID if category is None else category,
            id=NO_ID if own is None else own,
            bbox=(numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None,
            iscrowd=int(parse_flag(value.get("iscrowd"))),
            segmentation=to_raw(value.get("segmentation")),
            score=parse_score(value.get("score")),
        )
        coerce_origin(found, value)
        return found


@dataclass(frozen=True, slots=True)
class MaskFileHead:
    """What a COCO file says beside its annotations.

    Attributes:
        is_list: it is a list of results, without images and categories.
        categories: names by id; empty if it lists none.
        models: the models that its `info` names, if it is an export of synthgen.
    """

    is_list: bool
    categories: Mapping[int, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedMask:
    """A mask of a file.

    Attributes:
        rle: the mask; None for a reason in `problems`.
        box: the mask's tight box XYXY in absolute pixels; None without pixels.
        label: its number in an id map; None elsewhere.
        origin: what the file says about its origin; None = nothing.
        problems: by flag of `ANNOTATION_FLAGS`, the reason.
    """

    rle: Rle | None
    box: tuple[float, float, float, float] | None = None
    label: int | None = None
    origin: MaskOrigin | None = None
    problems: Mapping[str, str] = field(default_factory=dict)


def read_head(path: Path, on_images: Callable[[NDArray[np.int64], list[str]], None]) -> MaskFileHead:
    """Read all of a COCO file but its annotations.

    Args:
        path: a COCO instances file, or a list of COCO results; JSON, or JSON compressed with gzip; untrusted.
        on_images: called with the ids of images, int64 [N], and their N file names ("" = not given).

    Raises:
        SynthgenError: the file is neither, or cannot be read.
    """
    if _first_byte(path) == b"[":
        return MaskFileHead(is_list=True)
    kinds: dict[str, type[msgspec.Struct]] = {"images": CocoImage, "categories": CocoCategory}
    categories: dict[int, str] = {}
    models: tuple[str, ...] = ()
    for key, found in stream_records(path, kinds, small_keys={"info": _MAX_INFO_BYTES}):
        if key == "images":
            on_images(np.array([image.id for image in found], np.int64), [image.file_name for image in found])
        elif key == "categories":
            categories |= {c.id: c.name.strip() for c in found if c.name.strip()}
        else:
            models = own_models(found[0]) if found else models
    return MaskFileHead(is_list=False, categories=categories, models=models)


def read_masks(
    path: Path, head: MaskFileHead, on_bytes: Callable[[int], None] | None = None
) -> Iterator[AnnotationBatch]:
    """The annotations of a COCO file in its order. An id or category that it does not give is `NO_ID`; a box is NaN.

    Args:
        path: as for `read_head`.
        head: what `read_head` returned.
        on_bytes: called with the number of further bytes read; None = not called.

    Raises:
        SynthgenError: it has no annotations, or one without the id of an image.
    """
    key = "" if head.is_list else "annotations"
    is_empty = True
    for found in _read_records(path, key, on_bytes):
        is_empty = False
        yield AnnotationBatch(
            image_id=np.array([one.image_id for one in found], np.int64),
            id=np.array([one.id for one in found], np.int64),
            bbox=np.array([one.bbox or NO_BOX for one in found], np.float64).reshape(-1, 4),
            category=np.array([one.category_id for one in found], np.int64),
            iscrowd=np.array([one.iscrowd != 0 for one in found], np.bool_),
            payload=[_payload(one) for one in found],
        )
    if is_empty:
        what = describe_other_json(path, with_lists=False) or f"{path} has no 'annotations'"
        raise SynthgenError(f"{what}; masks come as COCO JSON, as a list of COCO results, or as a folder of PNG files")


def _read_records(path: Path, key: str, on_bytes: Callable[[int], None] | None) -> Iterator[list[MaskRecord]]:
    """The records in the array under a key; an error about the first ones says what the file is, if that is known."""
    is_first = True
    try:
        for _, found in stream_records(path, {key: MaskRecord}, on_bytes=on_bytes):
            is_first = False
            yield found
    except SynthgenError:
        if is_first and (what := describe_other_json(path, with_lists=False)) is not None:
            raise SynthgenError(what) from None
        raise


def png_payload(name: str, *, is_id_map: bool) -> bytes:
    """The payload of a PNG mask.

    Args:
        name: the path of the file below the folder of masks.
        is_id_map: whether each number but 0 is a mask of its own; else all pixels but 0 are one mask.
    """
    return _PNG_MARK + (_ID_MAP if is_id_map else _BINARY) + name.encode()


def payload_size(payload: bytes, folder: Path) -> tuple[int, int] | None:
    """(height, width) in pixels that an RLE or a PNG file states; None for other payloads.

    Args:
        payload: of `read_masks` or `png_payload`.
        folder: the folder of PNG masks.
    """
    if not payload.startswith(_PNG_MARK):
        return find_rle_size(split_origin(payload)[1])
    try:
        return read_image_header(_png_path(payload, folder))[:2]
    except ImageError:
        return None


def decode_masks(payload: bytes, folder: Path, height: int, width: int) -> list[DecodedMask]:
    """The masks of a payload; several for an id map. An unreadable one is a `DecodedMask` with the reason.

    Args:
        payload: of `read_masks` or `png_payload`.
        folder: the folder of PNG masks.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    if payload.startswith(_PNG_MARK):
        is_id_map = payload[len(_PNG_MARK) : len(_PNG_MARK) + 1] == _ID_MAP
        return _decode_png(_png_path(payload, folder), height, width, is_id_map=is_id_map)
    origin, segmentation = split_origin(payload)
    rle, problems = draw_segmentation(segmentation, height, width)
    return [_decoded(rle, origin=origin, problems=problems)]


def _png_path(payload: bytes, folder: Path) -> Path:
    return folder / payload[len(_PNG_MARK) + 1 :].decode()


def _decode_png(path: Path, height: int, width: int, *, is_id_map: bool) -> list[DecodedMask]:
    try:
        labels = load_label_map(path)
        if labels.shape != (height, width):
            found = f"{labels.shape[1]} x {labels.shape[0]}"
            raise ImageError(f"is {found} pixels, and its image {width} x {height}")
        origin = _png_origin(path)
        if not is_id_map:
            return [_decoded(encode_mask(labels != 0), origin=origin)]
        return [_decoded(one.mask, label=one.label, origin=origin) for one in split_label_regions(labels, (0,))]
    except ImageError as why:
        return [DecodedMask(None, problems={"bad_segmentation": f"{path.name} {why}"})]


def _png_origin(path: Path) -> MaskOrigin | None:
    """What an exported PNG says about the origin of its masks; None if it says nothing, or names several."""
    provenance = read_png_text(path, PROVENANCE_KEYWORD)
    if provenance is None:
        return None
    try:
        models = json.loads(read_png_text(path, MODELS_KEYWORD) or "[]")
    except (ValueError, RecursionError):
        models = []
    model = models[0] if isinstance(models, list) and len(models) == 1 else None
    return parse_origin({"provenance": provenance, "mask_source": "human" if provenance == "human" else model})


def _decoded(
    rle: Rle | None,
    *,
    label: int | None = None,
    origin: MaskOrigin | None = None,
    problems: Mapping[str, str] | None = None,
) -> DecodedMask:
    if rle is None:
        return DecodedMask(None, None, label, origin, problems or {})
    if rle_area(rle) == 0:
        return DecodedMask(None, None, label, origin, {**(problems or {}), "empty_mask": "it has no pixel"})
    return DecodedMask(rle, rle_bbox_xyxy(rle), label, origin, problems or {})


def _payload(record: MaskRecord) -> bytes | None:
    origin = record_origin(record) or score_origin(record, record.score)
    return pack_origin(origin, bytes(record.segmentation))


def _first_byte(path: Path) -> bytes:
    """The first byte that is not whitespace."""
    try:
        with open_json(path) as (file, _):
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except (OSError, EOFError, zlib.error) as why:
        reason = (why.strerror if isinstance(why, OSError) else None) or str(why)
        raise SynthgenError(f"cannot read {path} ({reason}); check the path and its permissions") from None
