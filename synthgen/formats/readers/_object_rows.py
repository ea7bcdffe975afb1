"""Collects images and objects one by one, and yields them in the batches that readers give."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from hashlib import blake2b

import numpy as np

from synthgen.errors import escape_control_chars
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetPart, ImageBatch
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._folder_listing import utf8_name
from synthgen.formats.readers._ids import text_id
from synthgen.formats.readers._shapes import Shape

_BATCH = 10_000
_MAX_EXAMPLE_CHARS = 200
_NO_BOX = (math.nan, math.nan, math.nan, math.nan)

#: Flags that any object may get.
_FLAGS = ("no_box", "bad_segmentation", "rotated", "difficult")


def category_id(name: str) -> int:
    """A number that only depends on the name: 62 bits of BLAKE2, for formats that number no categories.

    So a category has the same number in all splits, and names can be found while the files are read.
    """
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()) >> 2


def label_text(value: object) -> str:
    """The text of a label as JSON gives it: numbers become their text; "" if it is neither text nor number."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    try:
        text = str(value) if isinstance(value, str | int | float) else ""
    except ValueError:  # a number of more than 4,300 digits
        return ""
    return utf8_name(text)


class ObjectRows:
    """Images and objects that wait for their batch; categories and findings of the whole split.

    Annotation ids are 1, 2, 3 ... in the order of `add_object`.
    """

    def __init__(self, *, masks: bool) -> None:
        """`masks`: the layer has masks, and batches get the shapes' payloads."""
        self._masks = masks
        self._categories: dict[str, int] = {}
        self._padded: dict[int, str] = {}
        self._images: list[tuple[int, str, int, int, str | None]] = []
        self._objects: list[tuple[int, tuple[float, float, float, float], int, frozenset[str], bytes | None]] = []
        self._count = 0  # objects in earlier batches
        self._findings = FindingCounter()

    def declare(self, label: str) -> None:
        """Declare a category: it has a name even if no object is of it, and the next number from 1."""
        if label.strip():
            self._categories.setdefault(label.strip(), len(self._categories) + 1)

    def add_image(
        self, file_name: str, height: int, width: int, error: str | None = None, *, image_id: int | None = None
    ) -> int:
        """Add an image, and return its id.

        Args:
            file_name: below the image folder.
            height: of the image in pixels; 0 = unknown.
            width: of the image in pixels; 0 = unknown.
            error: why its annotations cannot be read; None = they can.
            image_id: the dataset's own; None = one made of the file name.
        """
        name = utf8_name(file_name)
        if name != file_name:
            error = error or "its file name is not UTF-8; rename the file"
        image_id = text_id(file_name) if image_id is None else image_id
        self._images.append((image_id, name, height, width, error))
        return image_id

    def add_object(
        self,
        image_id: int,
        label: str,
        shape: Shape | None,
        *,
        flags: Collection[str] = (),
        payload: bytes | None = None,
    ) -> None:
        """Add an object.

        Args:
            image_id: as `add_image` returned it.
            label: its category's name; "" = none, which gets the flag `unknown_category`.
            shape: None = it could not be read, which gets the flag `no_box`.
            flags: of `bad_segmentation` and `difficult`.
            payload: the mask, if it is not the shape's.
        """
        of = set(flags)
        if shape is None:
            of.add("no_box")
        elif shape.rotated:
            of.add("rotated")
        if self._masks and payload is None and shape is not None:
            payload = shape.payload()
        bbox = _NO_BOX if shape is None else shape.bbox
        self._objects.append((image_id, bbox, self._category(label), frozenset(of), payload))

    def add_finding(self, code: str, unit: str, where: str, what: str, count: int = 1) -> None:
        """Count something that no row shows; the first three are examples."""
        self._findings.add(code, unit, _example_text(where), _example_text(what), count)

    def full_batches(self) -> Iterator[DatasetPart]:
        """The rows so far, if they fill a batch."""
        if len(self._images) >= _BATCH or len(self._objects) >= _BATCH:
            yield from self._batches()

    def finish(self) -> Iterator[DatasetPart]:
        """The remaining rows, the categories and the findings."""
        yield from self._batches()
        names = {key: name for name, key in self._categories.items() if name}
        # In the same order in all splits: the declared ones, then the others by name.
        yield Categories(dict(sorted(names.items(), key=self._place)), padded=self._padded)
        yield from self._findings.parts()

    def _category(self, label: str) -> int:
        name = label.strip()
        found = self._categories.get(name)
        if found is None:
            found = self._categories[name] = category_id(name)
        if label != name:
            self._padded.setdefault(found, label)
        return found

    def _place(self, category: tuple[int, str]) -> tuple[int, str]:
        key, name = category
        return (len(self._categories), name) if key == category_id(name) else (key, "")

    def _batches(self) -> Iterator[DatasetPart]:
        images, objects = self._images, self._objects
        if images:
            yield ImageBatch(
                image_id=np.array([one[0] for one in images], np.int64),
                file_name=[one[1] for one in images],
                image_key=[""] * len(images),
                height=np.array([one[2] for one in images], np.int32),
                width=np.array([one[3] for one in images], np.int32),
                error=[one[4] for one in images],
            )
        if objects:
            yield AnnotationBatch(
                image_id=np.array([one[0] for one in objects], np.int64),
                id=np.arange(self._count + 1, self._count + len(objects) + 1),
                bbox=np.array([one[1] for one in objects], np.float64).reshape(-1, 4),
                category=np.array([one[2] for one in objects], np.int64),
                iscrowd=np.zeros(len(objects), np.bool_),
                flags={flag: np.array([flag in one[3] for one in objects], np.bool_) for flag in _FLAGS},
                payload=[one[4] for one in objects] if self._masks else None,
            )
        self._count += len(objects)
        self._images, self._objects = [], []


def _example_text(text: str) -> str:
    text = escape_control_chars(utf8_name(text))
    return text if len(text) <= _MAX_EXAMPLE_CHARS else text[: _MAX_EXAMPLE_CHARS - 3] + "..."
