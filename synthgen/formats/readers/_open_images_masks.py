"""The masks of Open Images: which box each belongs to, and its pixels from a PNG file."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from synthgen.formats.readers import DatasetFiles
from synthgen.formats.readers._csv_lines import CsvTable, read_line_at
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._folder_listing import is_file
from synthgen.formats.readers._open_images_index import ClassIds, ImageIndex
from synthgen.images.decode import MAX_IMAGE_PIXELS, ImageError, load_label_map
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Sample

BOX_COLUMNS = ("BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")

#: Decimals up to which a box and the box of a mask are the same one: the files write different numbers of them.
_DECIMALS = 5

Corners = tuple[float, float, float, float]


class MaskRows:
    """The rows of a segmentation file whose images are there, in 25 bytes each, found by their boxes.

    The file gives each mask the box from which it was drawn, so that the two can be related:
    https://storage.googleapis.com/openimages/web/download.html
    """

    def __init__(
        self,
        path: Path,
        index: ImageIndex,
        classes: ClassIds,
        findings: FindingCounter,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        table = CsvTable(path, ("MaskPath", "ImageID", "LabelName", *BOX_COLUMNS), (), on_bytes)
        self._path, self.columns = path, table.columns
        image, label = table.columns["ImageID"], table.columns["LabelName"]
        keys, self._numbers, self._offsets = array("q"), array("q"), array("q")
        last, position = "", -1
        for number, at, fields in table.rows():
            if fields is None:
                findings.add("broken_csv_line", "files", f"{path.name} line {number + 1}", "it has too few fields")
                continue
            if fields[image] != last:
                last = fields[image]
                position = index.find(last)
            if position < 0:
                continue
            corners = parse_corners(fields, [table.columns[name] for name in BOX_COLUMNS])
            if corners is None:
                findings.add("broken_csv_line", "files", f"{path.name} line {number + 1}", "its box cannot be read")
                continue
            keys.append(make_key(position, classes.number(fields[label]), corners))
            self._numbers.append(number)
            self._offsets.append(at)
        numbers = np.array(keys, np.int64)
        self._order = np.argsort(numbers, kind="stable")
        self._keys = array("q", numbers[self._order].tobytes())
        self._used = bytearray(len(keys))

    def take(self, key: int) -> int:
        """The byte position of the first row with this key that was not taken; -1 if there is none."""
        place = bisect_left(self._keys, key)
        while place < len(self._keys) and self._keys[place] == key:
            row = int(self._order[place])
            if not self._used[row]:
                self._used[row] = 1
                return self._offsets[row]
            place += 1
        return -1

    def rest(self) -> Iterator[tuple[int, list[str]]]:
        """(number in the file, fields) of the rows that were not taken."""
        for row in range(len(self._used)):
            if not self._used[row]:
                yield self._numbers[row], read_line_at(self._path, self._offsets[row])

    def mask_path(self, at: int) -> str:
        """The name of the PNG file in the row at a byte position."""
        fields = read_line_at(self._path, at)
        return fields[self.columns["MaskPath"]] if len(fields) > self.columns["MaskPath"] else ""


def make_key(position: int, label: int, corners: Corners) -> int:
    """A number for an image, a class and a box; the same for a box with a few decimals fewer."""
    return hash((position, label, *(round(value, _DECIMALS) for value in corners)))


def parse_corners(fields: list[str], columns: list[int]) -> Corners | None:
    """Left, right, top and bottom as fractions of the image; None if they are not finite numbers."""
    try:
        left, right, top, bottom = (float(fields[column]) for column in columns)
    except ValueError:
        return None
    return (left, right, top, bottom) if abs(left) + abs(right) + abs(top) + abs(bottom) < 1e9 else None


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "human": each payload is the name of a PNG file. An unreadable one sets a flag; the box stays.

    The pixels that are not zero are the object. A mask of another size than its image is resized without smoothing.
    """
    folder = files.sources.get("masks folder")

    def with_masks(sample: Sample, payloads: list[bytes | None]) -> Sample:
        masked = (_with_mask(folder, a, p, sample) for a, p in zip(sample.annotations, payloads, strict=True))
        return replace(sample, annotations=tuple(masked))

    return with_masks


def _with_mask(folder: Path | None, annotation: Annotation, payload: bytes | None, sample: Sample) -> Annotation:
    if payload is None:
        return annotation
    path = _find_mask(folder, payload.decode()) if folder is not None else None
    try:
        if path is None or not 0 < sample.height * sample.width <= MAX_IMAGE_PIXELS:
            raise ImageError("is missing, or its image is")
        labels = load_label_map(path)
    except ImageError:
        return replace(annotation, flags=tuple(sorted({*annotation.flags, "bad_segmentation"})))
    mask = labels != 0
    if mask.shape != (sample.height, sample.width):
        rows = (np.arange(sample.height) * 2 + 1) * mask.shape[0] // (2 * sample.height)
        columns = (np.arange(sample.width) * 2 + 1) * mask.shape[1] // (2 * sample.width)
        mask = mask[rows[:, None], columns[None, :]]
    return replace(annotation, segmentation=encode_mask(mask), mask_source="human")


def _find_mask(folder: Path, name: str) -> Path | None:
    """A PNG file in the folder, or in its subfolder of the first letter, as FiftyOne unpacks them."""
    if not name or "/" in name or "\\" in name or name.startswith("."):
        return None
    places = (folder / name, folder / name[0].upper() / name, folder / name[0] / name)
    return next(filter(is_file, places), None)
