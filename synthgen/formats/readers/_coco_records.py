"""The records of a COCO-style file: images, annotations, categories, in every spelling that exporters write.

The types are strict, because strict decoding is fast. Whatever is unusual does not fit them: an id that is a text, a
record without a box, a rotation that is not zero. `coerce` reads such a record. Only a record without an id is refused,
as its content could not be assigned to an image.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Self

import msgspec

from synthgen.formats.readers._ids import parse_id
from synthgen.formats.readers._mask_origin import parse_score
from synthgen.formats.readers._numbers import parse_flag, parse_float, parse_pixels
from synthgen.formats.readers._segmentations import find_mask_box
from synthgen.records.box_table import NO_ID
from synthgen.records.sample import MASK_SCORES

#: Stands for a missing box.
NO_BOX = (math.nan, math.nan, math.nan, math.nan)

#: Flags that a record itself gives; `CocoBox.iscrowd` has a bit for each, in this order.
MARKS = ("crowd", "no_box", "bad_box", "ignored", "rotated")

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_ROTATION_KEYS = frozenset({"rotation", "angle", "attributes"})

_ZeroOrOne = Annotated[int, msgspec.Meta(ge=0, le=1)]
_Zero = Annotated[float, msgspec.Meta(ge=0, le=0)]


class CocoImage(msgspec.Struct, gc=False):
    """One element of "images"; `id_text` is its id if that is a text."""

    id: Int64
    file_name: str = ""
    height: _Pixels = 0
    width: _Pixels = 0
    coco_url: str = ""
    license: Int64 | None = None
    id_text: str = msgspec.field(default="", name="")  # no exporter writes an empty key

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """An image in any spelling; ValueError without an id."""
        return cls(
            id=required_id(value, "id"),
            file_name=clean_text(value.get("file_name")),
            height=parse_pixels(value.get("height")),
            width=parse_pixels(value.get("width")),
            coco_url=clean_text(value.get("coco_url")),
            license=parse_id(value.get("license")),
            id_text=clean_text(value["id"][:200]) if isinstance(value["id"], str) else "",
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


class _Attributes(msgspec.Struct, gc=False):
    """What CVAT adds to an annotation: degrees by which the box is turned about its centre, clockwise."""

    rotation: _Zero | None = 0.0


class CocoBox(msgspec.Struct, gc=False):
    """One element of "annotations" for the layer of boxes.

    A record without a box does not fit. `coerce` reads its box off its segmentation, so the fast path decodes none. A
    file gives 0 or 1 as `iscrowd`; only `coerce` sets the higher bits of `MARKS`, so they cost the fast path nothing.
    """

    image_id: Int64
    bbox: tuple[float, float, float, float]
    category_id: Int64 = NO_ID
    id: Int64 = NO_ID
    iscrowd: _ZeroOrOne = 0
    ignore: _Zero | None = 0.0
    is_ignore: _Zero | None = 0.0
    rotation: _Zero | None = 0.0
    angle: _Zero | None = 0.0
    attributes: _Attributes | list[Any] | str | float | bool | None = None

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """An annotation in any spelling; ValueError without the id of its image."""
        box, flags = _parse_box(value)
        if (crowd := value.get("iscrowd")) and parse_flag(crowd):
            flags.add("crowd")
        if any(parse_flag(value[key]) for key in ("ignore", "is_ignore") if key in value):
            flags.add("ignored")
        if not _ROTATION_KEYS.isdisjoint(value) and _is_rotated(value):
            flags.add("rotated")
        return cls(
            image_id=required_id(value, "image_id"),
            bbox=box,
            category_id=_or_default(parse_id(value.get("category_id")), NO_ID),
            id=_or_default(parse_id(value.get("id")), NO_ID),
            iscrowd=sum(1 << MARKS.index(flag) for flag in flags),
        )


class CocoMask(CocoBox, gc=False):
    """One element of "annotations" with its undecoded segmentation, and what it says of the mask's origin.

    The members after `area` are those of `_mask_origin.ORIGIN_MEMBERS`.
    """

    segmentation: msgspec.Raw = msgspec.Raw()
    area: float = math.nan
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
        """As for `CocoBox`."""
        found = super().coerce(value)
        found.segmentation = to_raw(value.get("segmentation"))
        found.area = parse_float(value.get("area"))
        coerce_origin(found, value)
        return found


def coerce_origin(record: Any, value: dict[str, Any]) -> None:
    """Set the members of `_mask_origin.ORIGIN_MEMBERS` of a record from a record in any spelling.

    Args:
        record: with an attribute for each of them.
        value: the annotation as JSON gives it.
    """
    record.provenance = clean_text(value.get("provenance")) or None
    record.mask_source = clean_text(value.get("mask_source")) or None
    for name in MASK_SCORES:
        setattr(record, name, parse_score(value.get(name)))
    record.captions, record.flags = to_raw(value.get("captions")), to_raw(value.get("flags"))


def to_raw(value: object) -> msgspec.Raw:
    """A decoded value as JSON again; lone surrogates are escaped."""
    return msgspec.Raw(json.dumps(value).encode())


class CocoCategory(msgspec.Struct, gc=False):
    """One element of "categories"."""

    id: Int64
    name: str = ""
    supercategory: str = ""

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """A category in any spelling; ValueError without an id."""
        return cls(
            id=required_id(value, "id"),
            name=clean_text(value.get("name")),
            supercategory=clean_text(value.get("supercategory")),
        )


def required_id(value: dict[str, Any], key: str) -> int:
    """The id under a key of a record; ValueError if it is neither a whole number nor a text."""
    found = parse_id(value.get(key))
    if found is None:
        raise ValueError(f"its '{key}' should be a whole number or a text, it is {json.dumps(value.get(key))[:80]}")
    return found


def clean_text(value: object) -> str:
    """A text that UTF-8 can encode; lone surrogates, which JSON allows, become question marks.

    A number becomes the text that JSON has for it: 7 is "7", and 7.0 is "7.0". Anything else is "".
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return json.dumps(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _parse_box(value: dict[str, Any]) -> tuple[tuple[float, float, float, float], set[str]]:
    """The box of an annotation, and the flags no_box and bad_box."""
    box = value.get("bbox")
    numbers = [parse_float(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
    if not all(map(math.isnan, numbers)):
        return (numbers[0], numbers[1], numbers[2], numbers[3]), set()
    flags = {"no_box"} if box is None or box in ([], {}, "") else {"no_box", "bad_box"}
    return find_mask_box(value.get("segmentation")) or NO_BOX, flags


def _is_rotated(value: dict[str, Any]) -> bool:
    attributes = value.get("attributes")
    inner = attributes.get("rotation") if isinstance(attributes, dict) else None
    degrees = map(parse_float, (value.get("rotation"), value.get("angle"), inner))
    return any(math.isfinite(one) and one % 360 != 0 for one in degrees)


def _parse_ids(value: object) -> list[int]:
    """Category ids in any spelling; an invalid one becomes an id that no category has."""
    return [_or_default(parse_id(one), NO_ID) for one in value] if isinstance(value, list) else []


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value
