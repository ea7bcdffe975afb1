"""Looks up the ids of images and categories in a COCO file, for results that refer to it.

Format: https://cocodataset.org/#format-data; the file may be one of instances, of panoptic segments, or of LVIS.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from synthgen.errors import SynthgenError
from synthgen.formats.readers._coco_json import stream_records
from synthgen.formats.readers._coco_records import CocoCategory, CocoImage
from synthgen.formats.readers._json_kinds import describe_other_json
from synthgen.formats.readers._numbers import parse_flag

log = logging.getLogger(__name__)


class _Category(CocoCategory, gc=False):
    """A category; `isthing` is COCO panoptic's mark, and None elsewhere."""

    isthing: bool | int | None = None

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> Self:
        if isinstance(value.get("id"), str):
            raise ValueError("its id is a text, and results need numbers")
        found = super().coerce(value)
        found.isthing = parse_flag(value["isthing"]) if value.get("isthing") is not None else None
        return found


@dataclass(frozen=True, slots=True)
class CocoIds:
    """What a COCO file calls images and categories.

    Attributes:
        image_ids: by file name, of the images that were looked for and that the file lists.
        num_other_images: the number of images that the file lists beside them.
        category_ids: by name, in the order of the file.
        is_thing: by name, COCO panoptic's `isthing`; empty for a file that does not say it.
    """

    image_ids: Mapping[str, int]
    num_other_images: int
    category_ids: Mapping[str, int]
    is_thing: Mapping[str, bool]


def read_coco_ids(path: Path, file_names: Sequence[str]) -> CocoIds:
    """The ids of some images, and of all categories, of a COCO file. Annotations are skipped.

    An image has the id of the entry with its path as `file_name`; else of the only entry whose last part is its name.
    Memory: some 100 bytes for each of `file_names`.

    Args:
        path: JSON, or JSON compressed with gzip; untrusted.
        file_names: paths of images with forward slashes.

    Raises:
        SynthgenError: the file cannot be read, or is no COCO file with images and categories; or an id is a text.
    """
    if not path.is_file():
        raise SynthgenError(f"no file {path}; name the COCO file that has the ids of the images and categories")
    search = _ImageSearch(file_names)
    categories: list[_Category] = []
    kinds: dict[str, type[msgspec.Struct]] = {"images": CocoImage, "categories": _Category}
    try:
        for key, found in stream_records(path, kinds):
            if key == "images":
                for image in found:
                    _check_number(path, image)
                    search.add(image)
            else:
                categories += found
    except SynthgenError:
        if not categories and not search.count and (what := describe_other_json(path)) is not None:
            raise SynthgenError(what) from None
        raise
    if not search.count or not categories:
        missing = "categories" if search.count else "images"
        raise SynthgenError(f"{path} lists no {missing}; name a COCO file that has images and categories")
    ids: dict[str, int] = {}
    for one in categories:
        if (name := " ".join(one.name.split())) in ids:
            # Roboflow writes an unused category with the name of the real one in front of it.
            log.warning("%s: two categories have the name %s; predictions get the id %d", path, name, one.id)
        if name:
            ids[name] = one.id
    image_ids = search.results()
    return CocoIds(
        image_ids=image_ids,
        num_other_images=search.count - len(image_ids),
        category_ids=ids,
        is_thing={" ".join(c.name.split()): bool(c.isthing) for c in categories if c.isthing is not None and c.name},
    )


def _check_number(path: Path, image: CocoImage) -> None:
    if image.id_text:
        raise SynthgenError(
            f"{path}: the id '{image.id_text[:80]}' of an image is a text, and results need numbers; number the images"
        )


class _ImageSearch:
    """Finds entries for images by their path, or else by the last part of it."""

    def __init__(self, file_names: Sequence[str]) -> None:
        self.count = 0
        self._names = frozenset(file_names)
        self._name_of_base: dict[str, str | None] = {}  # None: several images have this last part
        for name in file_names:
            base = name.rpartition("/")[2]
            self._name_of_base[base] = None if base in self._name_of_base else name
        self._by_path: dict[str, int] = {}
        self._by_base: dict[str, int | None] = {}  # None: several entries have this last part

    def add(self, image: CocoImage) -> None:
        """Look at an entry of the file."""
        self.count += 1
        path = image.file_name.replace("\\", "/").removeprefix("./")
        if path in self._names:
            self._by_path[path] = image.id
        elif (name := self._name_of_base.get(path.rpartition("/")[2])) is not None:
            self._by_base[name] = None if name in self._by_base else image.id

    def results(self) -> dict[str, int]:
        """The ids that are certain, by file name."""
        return {name: i for name, i in {**self._by_base, **self._by_path}.items() if i is not None}
