"""Objects of an image as records of JSON or of a table: a list of objects, or a list for each of their fields.

The forms are those of the documentation of Hugging Face's `datasets`
(https://huggingface.co/docs/datasets/image_dataset#object-detection) and of COCO's annotations:

    [{"bbox": [x, y, width, height], "category": "cat"}, ...]
    {"bbox": [[x, y, width, height], ...], "category": ["cat", ...]}

Fields: "bbox" (or bboxes, box, boxes); "category" (or categories, category_name, label, labels, name, names,
category_id, category_ids), a name or a number; and if present "id" (or ids, bbox_id), "iscrowd" (or is_crowd), and
"segmentation" (or segmentations), polygons or an RLE as in COCO; and what our own exports say about the origin of a
mask (`_mask_origin.ORIGIN_MEMBERS`). Other fields are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from synthgen.formats.readers import AnnotationBatch, Categories, ImageBatch
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._instances import NO_BOX
from synthgen.formats.readers._mask_origin import ORIGIN_MEMBERS, MaskOrigin, pack_origin, parse_origin
from synthgen.formats.readers._numbers import parse_float
from synthgen.formats.readers._object_rows import category_id
from synthgen.formats.readers._segmentations import find_mask_box
from synthgen.records.box_table import NO_ID

BOX_FIELDS = ("bbox", "bboxes", "boxes", "box")
LABEL_FIELDS = (
    *("category", "categories", "category_name", "label", "labels", "name", "names"),
    *("category_id", "category_ids"),
)
ID_FIELDS = ("id", "ids", "bbox_id")
CROWD_FIELDS = ("iscrowd", "is_crowd")
MASK_FIELDS = ("segmentation", "segmentations")

_BATCH_ROWS = 10_000
_BATCH_BYTES = 2**25  # of masks


@dataclass(frozen=True, slots=True)
class ImageObject:
    """One object: its box XYWH in pixels, NaN if it has none; its category's name or number, or None; its mask, and
    what the file says of the mask's origin.
    """

    bbox: tuple[float, float, float, float]
    label: str | int | None
    id: int | None
    iscrowd: bool
    segmentation: Any
    origin: MaskOrigin | None = None


def parse_objects(value: Any) -> list[ImageObject]:
    """The objects of one of the forms above.

    Args:
        value: parsed JSON or a value of a table; untrusted. None = no objects.

    Raises:
        ValueError: it is in another form; with the fields that it has.
    """
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = _rows_of_columns(value)
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError("its objects are neither a list of objects nor lists of their fields")
    if value and not any(_first(one, (*BOX_FIELDS, *MASK_FIELDS)) is not None for one in value):
        raise ValueError(f"its objects have no bbox (their fields: {_show_keys(value[0])})")
    return [_parse_object(one) for one in value]


def has_box_field(record: Mapping[str, Any]) -> bool:
    """Whether a record has a field of boxes."""
    return any(name in record for name in BOX_FIELDS)


def _rows_of_columns(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A list of objects from a list for each field."""
    known = (*BOX_FIELDS, *LABEL_FIELDS, *ID_FIELDS, *CROWD_FIELDS, *MASK_FIELDS)
    columns = {name: column for name, column in value.items() if name in known and column is not None}
    if not any(name in columns for name in (*BOX_FIELDS, *MASK_FIELDS)):
        if any(name in value for name in BOX_FIELDS):  # null instead of an empty list
            return []
        raise ValueError(f"its objects have no bbox (their fields: {_show_keys(value)})")
    wrong = next((name for name, column in columns.items() if not isinstance(column, list)), None)
    if wrong is not None:
        raise ValueError(f"the field '{wrong}' of its objects is not a list")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        what = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise ValueError(f"the fields of its objects have different lengths ({what})")
    # Of other programs, fields of these names may be anything.
    count = max(lengths.values(), default=0)
    columns |= {n: v for n in ORIGIN_MEMBERS if isinstance(v := value.get(n), list) and len(v) == count}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parse_object(record: Mapping[str, Any]) -> ImageObject:
    box = _first(record, BOX_FIELDS)
    numbers = [parse_float(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
    bbox = (numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else NO_BOX
    mask = _plain_mask(_first(record, MASK_FIELDS))
    if mask is not None and not all(map(math.isfinite, bbox)):
        bbox = find_mask_box(mask) or bbox
    return ImageObject(
        bbox,
        _parse_label(_first(record, LABEL_FIELDS)),
        _whole(_first(record, ID_FIELDS)),
        bool(_whole(crowd) if not isinstance(crowd := _first(record, CROWD_FIELDS), bool) else crowd),
        mask,
        parse_origin(record) if mask is not None else None,
    )


def _plain_mask(value: Any) -> Any:
    """Polygons as a list of lists, an RLE as it is; None without a mask."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        value = [value]  # one polygon
    if isinstance(value, Mapping):
        return {key: one for key, one in value.items() if key in ("size", "counts")} if value.get("counts") else None
    return value or None


def _parse_label(value: Any) -> str | int | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().strip() or None
    return _whole(value)


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else None


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _show_keys(record: Mapping[str, Any]) -> str:
    names = [str(name)[:40].encode("utf-8", "replace").decode() for name in list(record)[:12]]
    return ", ".join(names) or "none"


class BatchBuilder:
    """Collects images with their objects, and gives them in batches.

    Args:
        findings: counts what is unusual.
        masked: the layer has masks: the JSON of each segmentation is an annotation's payload.
    """

    def __init__(self, findings: FindingCounter, *, masked: bool) -> None:
        self._findings, self._masked = findings, masked
        self._ids_by_name: dict[str, int] = {}
        self._images: list[tuple[int, str, int, int, str | None]] = []
        self._objects: list[tuple[int, int, ImageObject, int, bytes | None]] = []
        self._count = self._payload_bytes = 0
        self._numbers: set[int] = set()

    def declare(self, names: Sequence[str]) -> None:
        """The names of a category list, in its order; they get the next numbers."""
        for name in names:
            self._ids_by_name.setdefault(name.strip(), len(self._ids_by_name))

    def add(
        self,
        image_id: int,
        file_name: str,
        height: int,
        width: int,
        objects: Sequence[ImageObject],
        names: Mapping[int, str],
        error: str | None = None,
    ) -> Iterator[ImageBatch | AnnotationBatch]:
        """Add an image, and give what is complete.

        Args:
            image_id: the dataset's own, or one made of the file name.
            file_name: below the image folder.
            height: of the image in pixels; 0 = unknown.
            width: of the image in pixels; 0 = unknown.
            objects: all of this image.
            names: names of the numbers of categories; empty = a number is its own name.
            error: why its annotations cannot be read; None = they can.
        """
        self._images.append((image_id, file_name, height, width, error))
        for one in objects:
            self._count += 1
            payload = None
            if self._masked and one.segmentation is not None:
                payload = pack_origin(one.origin, _encode(one.segmentation)) or b""
                self._payload_bytes += len(payload)
                if one.origin is not None and one.origin.stated == "machine":
                    what = f"it has a mask by {one.origin.mask_source or 'a machine'}"
                    self._findings.add("machine_masks", "masks", file_name, what)
            own = self._count if one.id is None else one.id
            self._objects.append((image_id, own, one, self._category_of(one.label, names), payload))
        if max(len(self._images), len(self._objects)) >= _BATCH_ROWS or self._payload_bytes > _BATCH_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[ImageBatch | AnnotationBatch]:
        """What is left."""
        if self._images:
            ids, names, heights, widths, errors = zip(*self._images, strict=True)
            yield ImageBatch(
                np.array(ids, np.int64),
                names,
                [""] * len(names),
                np.array(heights, np.int32),
                np.array(widths, np.int32),
                errors,
            )
        if self._objects:
            bbox = np.array([one.bbox for _, _, one, _, _ in self._objects], np.float64).reshape(-1, 4)
            yield AnnotationBatch(
                image_id=np.array([image_id for image_id, *_ in self._objects], np.int64),
                id=np.array([own for _, own, *_ in self._objects], np.int64),
                bbox=bbox,
                category=np.array([code for _, _, _, code, _ in self._objects], np.int64),
                iscrowd=np.array([one.iscrowd for _, _, one, _, _ in self._objects], np.bool_),
                flags={"no_box": np.asarray(np.isnan(bbox).all(axis=1), np.bool_)},
                payload=[payload for *_, payload in self._objects] if self._masked else None,
            )
        self._images, self._objects, self._payload_bytes = [], [], 0

    def categories(self) -> Categories:
        """All names so far: the declared ones, then the others by name. Reports numbers without names."""
        if self._numbers:
            example = str(min(self._numbers))
            what = "the files give no name for this number; it is the name"
            self._findings.add("no_class_names", "categories", example, what, len(self._numbers))
        places = {name: number for name, number in self._ids_by_name.items() if number != category_id(name)}
        names = [name for name in (*places, *sorted(self._ids_by_name.keys() - places.keys())) if name]
        return Categories({self._ids_by_name[name]: name for name in names})

    def _category_of(self, label: str | int | None, names: Mapping[int, str]) -> int:
        if isinstance(label, int):
            if names:
                return self._category_id(names[label].strip()) if label in names else NO_ID
            self._numbers.add(label)
            label = str(label)
        return NO_ID if label is None else self._category_id(label)

    def _category_id(self, name: str) -> int:
        """The number of a declared name; others get one that depends on the name alone, the same in all splits."""
        found = self._ids_by_name.get(name)
        if found is None:
            found = self._ids_by_name[name] = category_id(name)
        return found


def _encode(segmentation: Any) -> bytes:
    """JSON; a mask that JSON cannot hold becomes one that `complete` refuses."""
    try:
        if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), bytes):
            segmentation = {**segmentation, "counts": segmentation["counts"].decode("ascii")}
        return msgspec.json.encode(segmentation)
    except Exception:
        return b"0"
