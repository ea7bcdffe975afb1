"""What Objects365's files share: two marks a box, and the key that a photograph of it has in every dataset."""

from __future__ import annotations

from typing import Any, Self

from synthgen.formats.readers._instances import Box, Image, Int64, Masked, truth

#: By name of the flag, the field that sets it.
MARKS = {"fake": "isfake", "reflected": "isreflected"}


class MarkedBox(Box, gc=False):
    """A box, whether it is of a picture of the object, and whether it is of a mirror image."""

    isfake: Int64 = 0
    isreflected: Int64 = 0

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """As for `Box`."""
        found = super().mend(value)
        found.isfake, found.isreflected = _marks(value)
        return found


class MarkedMask(Masked, gc=False):
    """The same, with its segmentation."""

    isfake: Int64 = 0
    isreflected: Int64 = 0

    @classmethod
    def mend(cls, value: dict[str, Any]) -> Self:
        """As for `Box`."""
        found = super().mend(value)
        found.isfake, found.isreflected = _marks(value)
        return found


def name(image: Image) -> tuple[str, str]:
    """A photograph's file name and key."""
    return image.file_name, f"objects365/{image.id:08d}"


def _marks(value: dict[str, Any]) -> tuple[int, int]:
    return truth(value.get("isfake")), truth(value.get("isreflected"))
