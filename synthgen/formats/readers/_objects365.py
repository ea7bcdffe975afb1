"""Shared by Objects365's files: two flags per box, and image keys that are the same in every dataset."""

from __future__ import annotations

from typing import Any, Self

from synthgen.formats.readers._coco_records import CocoBox, CocoImage, CocoMask, Int64
from synthgen.formats.readers._ids import is_text_id
from synthgen.formats.readers._numbers import parse_flag

#: Flag -> the field that sets it.
FLAG_FIELDS = {"fake": "isfake", "reflected": "isreflected"}


class Objects365Box(CocoBox, gc=False):
    """A box with the flags fake (a depiction) and reflected (a mirror image)."""

    isfake: Int64 = 0
    isreflected: Int64 = 0

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """As for `CocoBox`."""
        found = super().coerce(value)
        found.isfake, found.isreflected = _parse_flags(value)
        return found


class Objects365Mask(CocoMask, gc=False):
    """The same, with its segmentation."""

    isfake: Int64 = 0
    isreflected: Int64 = 0

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        """As for `CocoMask`."""
        found = super().coerce(value)
        found.isfake, found.isreflected = _parse_flags(value)
        return found


def name_and_key(image: CocoImage) -> tuple[str, str]:
    """A photograph's file name and key."""
    return image.file_name, "" if is_text_id(image.id) else f"objects365/{image.id:08d}"


def _parse_flags(value: dict[str, Any]) -> tuple[int, int]:
    return int(parse_flag(value.get("isfake"))), int(parse_flag(value.get("isreflected")))
