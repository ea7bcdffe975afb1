"""What a user may ask of an export, whatever the format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, get_args

from synthgen.errors import ArgumentError, shorten_value
from synthgen.export.exporters import ImageMode


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        image_mode: what happens with the images; None = as is usual for the format.
        val: share of the images for the split "val", in [0, 1).
        test: share of the images for the split "test", in [0, 1).
        seed: of the choice of images.
        max_images: number of images, chosen by `seed`; 0 = all.
        skip_empty: leave out images without annotations.
        keep_boxes: keep annotations without a mask, as boxes, where the format can hold them.
        category_map: name of a category -> its name in the export; "" or None leaves its annotations out. Names that it
            lacks stay as they are. Several may get one name. None = no map.
        fill_holes: fill the holes of masks.
        largest_component: keep only the largest connected part of a mask.
        min_area: leave out masks of fewer pixels.
        overwrite: replace an earlier export in the same folder.
        format_options: options of the format, by name, as text or in their types.

    Raises:
        ArgumentError: a value is not valid.
    """

    image_mode: ImageMode | None = None
    val: float = 0.0
    test: float = 0.0
    seed: int = 0
    max_images: int = 0
    skip_empty: bool = False
    keep_boxes: bool = False
    category_map: Mapping[str, str | None] | None = None
    fill_holes: bool = False
    largest_component: bool = False
    min_area: float = 0.0
    overwrite: bool = False
    format_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image_mode is not None and self.image_mode not in get_args(ImageMode):
            raise _error("image_mode", self.image_mode, f"one of {', '.join(get_args(ImageMode))}")
        for name in ("val", "test"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise _error(name, getattr(self, name), "a share from 0 to less than 1")
        if self.val + self.test >= 1:
            raise ArgumentError(
                f"val={self.val} and test={self.test} leave nothing for training; give less than 1 in all"
            )
        for name in ("seed", "max_images"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
                raise _error(name, value, "a whole number that is not negative")
        if not _is_number(self.min_area) or not 0 <= self.min_area < math.inf:
            raise _error("min_area", self.min_area, "a number of pixels")
        for old, new in (self.category_map or {}).items():
            if not isinstance(old, str) or not (new is None or isinstance(new, str)):
                raise _error("category_map", {old: new}, "a name for each name")

    @property
    def changes_masks(self) -> bool:
        """Whether masks have to be decoded and changed."""
        return self.fill_holes or self.largest_component


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _error(name: str, value: object, wanted: str) -> ArgumentError:
    return ArgumentError(f"{name}={shorten_value(value)} is not valid; give {wanted}")
