"""COCO's format of an instances file, which several datasets share: images, annotations and categories in one JSON."""

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
from synthgen.formats.readers import Annotations, Categories, Files, Images
from synthgen.formats.readers._coco_json import stream
from synthgen.formats.readers._numbers import integer, number, pixels
from synthgen.images.decode import MAX_PIXELS
from synthgen.records.geometry import rle_bbox_xyxy, rle_from_coco
from synthgen.records.sample import Annotation, Sample

#: An id that is not given. No file has it: many JSON readers stop at 2**53.
NO_ID = -(2**63)

#: A box that is not given.
NO_BOX = (math.nan, math.nan, math.nan, math.nan)

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


# The types below are strict, because strict is fast; `mend` takes what real files spell otherwise. Only a record
# without an identity is refused: what it says could not be kept with the image that it is about.
class Image(msgspec.Struct, gc=False):
    """One element of "images"."""

    id: Int64
    file_name: str = ""
    height: _Pixels = 0
    width: _Pixels = 0
    coco_url: str = ""

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """An image in any spelling; ValueError without an id."""
        return cls(
            id=_identity(value, "id"),
            file_name=_text(value.get("file_name")),
            height=pixels(value.get("height")),
            width=pixels(value.get("width")),
            coco_url=_text(value.get("coco_url")),
        )


class LookedOver(Image, gc=False):
    """One element of "images" of a dataset that looks for some categories only in each image (LVIS)."""

    neg_category_ids: list[Int64] = []
    not_exhaustive_category_ids: list[Int64] = []

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """As for `Image`."""
        found = super().mend(value)
        found.neg_category_ids = _ids(value.get("neg_category_ids"))
        found.not_exhaustive_category_ids = _ids(value.get("not_exhaustive_category_ids"))
        return found


class Box(msgspec.Struct, gc=False):
    """One element of "annotations", as far as the layer of boxes needs it."""

    image_id: Int64
    category_id: Int64 = NO_ID
    id: Int64 = NO_ID
    bbox: tuple[float, float, float, float] = NO_BOX
    iscrowd: Int64 = 0

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """An annotation in any spelling; ValueError without the id of its image."""
        box = value.get("bbox")
        numbers = [number(v) for v in box] if isinstance(box, list) else []
        return cls(
            image_id=_identity(value, "image_id"),
            category_id=_or(integer(value.get("category_id")), NO_ID),
            id=_or(integer(value.get("id")), NO_ID),
            bbox=(numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else NO_BOX,
            iscrowd=truth(value.get("iscrowd")),
        )


class Masked(Box, gc=False):
    """One element of "annotations" with its segmentation, unread."""

    segmentation: msgspec.Raw = msgspec.Raw()

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """As for `Box`."""
        found = super().mend(value)
        found.segmentation = msgspec.Raw(json.dumps(value.get("segmentation")).encode())
        return found


class Category(msgspec.Struct, gc=False):
    """One element of "categories"."""

    id: Int64
    name: str = ""

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """A category in any spelling; ValueError without an id."""
        return cls(id=_identity(value, "id"), name=_text(value.get("name")))


def find_json(root: Path, names: Sequence[str], annotations: Path | None) -> Path:
    """The instances file: `annotations` where it is given, else the first of `names` below root or root/annotations.

    Raises:
        SynthgenError: it is not there.
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


def find_images(root: Path, split: str) -> Path:
    """The folder of a split's images: root/split where there is one, else root."""
    return root / split if (root / split).is_dir() else root


def read(
    files: Files,
    layer: str,
    *,
    name: Callable[[Image], tuple[str, str]],
    image_kind: type[Image] = Image,
    kind: type[Box] = Box,
    masked_kind: type[Masked] = Masked,
    flags: Mapping[str, str] | None = None,
) -> Iterator[Images | Annotations | Categories]:
    """Read `files.sources["instances"]`; layers other than "annotations" get each segmentation's JSON as payload.

    Args:
        name: an image's (file_name, image_key).
        image_kind: type of the records of images: `Image` or `LookedOver`.
        kind: type of the records of the layer "annotations"; masked_kind: of those of the other layers.
        flags: by name of the flag, the field of both kinds that sets it.

    Raises:
        SynthgenError: the file is no such JSON.
    """
    path = files.sources["instances"]
    masked = layer != "annotations"
    kinds: dict[str, type[msgspec.Struct]] = {
        "images": image_kind,
        "annotations": masked_kind if masked else kind,
        "categories": Category,
    }
    count = 0
    missing = {"images", "annotations"}
    for key, found in stream(path, kinds, on_bytes=files.on_bytes):
        missing.discard(key)
        if key == "images":
            yield _images(found, name)
        elif key == "annotations":
            yield _annotations(found, count, flags or {}, masked=masked)
            count += len(found)
        else:
            yield Categories(
                {c.id: c.name.strip() for c in found if c.name.strip()},
                padded={c.id: c.name for c in found if c.name != c.name.strip()},
            )
    if missing:
        raise SynthgenError(f"{path} has no '{min(missing)}'; a COCO-style file has 'images' and 'annotations'")


def complete(files: Files, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "human": each payload is a segmentation's JSON. One that cannot be read is flagged: its box stays."""

    def with_masks(sample: Sample, payloads: list[bytes | None]) -> Sample:
        masked = (_masked(a, p, sample) for a, p in zip(sample.annotations, payloads, strict=True))
        return replace(sample, annotations=tuple(masked))

    return with_masks


def _masked(annotation: Annotation, payload: bytes | None, sample: Sample) -> Annotation:
    if payload is None:
        return annotation
    try:
        if not 0 < sample.height * sample.width <= MAX_PIXELS:
            raise SynthgenError("a mask needs the size of its image")
        rle = rle_from_coco(msgspec.json.decode(payload), sample.height, sample.width)
    except Exception:  # other people's polygons fail in other people's ways: TypeError, OverflowError, ...
        return replace(annotation, flags=tuple(sorted({*annotation.flags, "bad_segmentation"})))
    bbox = annotation.bbox
    if "no_box" in annotation.flags:
        x1, y1, x2, y2 = rle_bbox_xyxy(rle)
        bbox = (x1, y1, x2 - x1, y2 - y1)
    return replace(annotation, bbox=bbox, segmentation=rle, mask_source="human")


def _images(found: list[Image], name: Callable[[Image], tuple[str, str]]) -> Images:
    names = [name(image) for image in found]
    looked_over = [image for image in found if isinstance(image, LookedOver)]
    return Images(
        image_id=np.array([image.id for image in found], np.int64),
        file_name=[file_name for file_name, _ in names],
        image_key=[key for _, key in names],
        height=np.array([image.height for image in found], np.int32),
        width=np.array([image.width for image in found], np.int32),
        neg_categories=[image.neg_category_ids for image in looked_over] or None,
        not_exhaustive_categories=[image.not_exhaustive_category_ids for image in looked_over] or None,
    )


def _annotations(found: list[Any], count: int, flags: Mapping[str, str], *, masked: bool) -> Annotations:
    # A list a field, and no test of single records: this is half of what an ingest of boxes does.
    ids = np.array([a.id for a in found], np.int64)
    ids = np.where(ids == NO_ID, np.arange(count + 1, count + len(ids) + 1), ids)  # else its place in the file, from 1
    numbers = chain.from_iterable([a.bbox for a in found])
    bbox = np.fromiter(numbers, np.float64, 4 * len(found)).reshape(-1, 4)
    said = {flag: np.fromiter(map(attrgetter(field), found), np.int64) != 0 for flag, field in flags.items()}
    no_box = np.asarray(np.isnan(bbox).all(axis=1), np.bool_)
    return Annotations(
        image_id=np.array([a.image_id for a in found], np.int64),
        id=ids,
        bbox=bbox,
        category=np.array([a.category_id for a in found], np.int64),
        iscrowd=np.array([a.iscrowd for a in found], np.int64) != 0,
        flags={"no_box": no_box, **said},
        payload=[_payload(a.segmentation) for a in found] if masked else None,
    )


def _payload(segmentation: msgspec.Raw) -> bytes | None:
    """A copy, since the original keeps the whole stretch of the file in memory; None where there is no mask."""
    text = bytes(segmentation)
    return None if text in (b"", b"null", b"[]") else text


def _identity(value: dict[str, Any], key: str) -> int:
    found = integer(value.get(key))
    if found is None:
        raise ValueError(f"its '{key}' should be a whole number, it is {json.dumps(value.get(key))[:80]}")
    return found


def _ids(value: object) -> list[int]:
    """Category ids in any spelling; what is none is an id that no category has."""
    return [_or(integer(one), NO_ID) for one in value] if isinstance(value, list) else []


def truth(value: object) -> int:
    """1 for what says yes: true, 1, "1"; else 0."""
    return int(bool(integer(value)) if isinstance(value, str) else bool(value))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _text(value: object) -> str:
    """A text that UTF-8 can hold; half a surrogate pair, which JSON allows, becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
