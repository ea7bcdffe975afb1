"""The images of Open Images that are there, by their ids, in some 150 bytes each; and the labels that they lack."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers._csv_lines import CsvTable
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._folder_listing import file_suffix, walk_files
from synthgen.formats.readers._ids import text_id
from synthgen.images.paths import IMAGE_SUFFIXES

#: More different classes than this are a damaged file. Open Images has 20,000.
MAX_CLASSES = 200_000

_MAX_ID_CHARS = 200
_MASK_FOLDER = re.compile("(.*[-_])?masks", re.IGNORECASE)
_TURNS = frozenset(("90", "180", "270", "90.0", "180.0", "270.0"))


class ImageIndex:
    """The images of some folders, without those in folders of masks.

    Attributes:
        file_names: below the image folder, sorted.
        height, width: int32 [N], 0 until they are known.

    Args:
        folders: searched with all folders below them.
        image_root: folder that file names are relative to.
    """

    def __init__(self, folders: Iterable[Path], image_root: Path) -> None:
        self.file_names = sorted(
            (folder / name).relative_to(image_root).as_posix()
            for place in folders
            for folder, names in walk_files(place)
            if not any(map(_MASK_FOLDER.fullmatch, folder.relative_to(place).parts))
            for name in names
            if file_suffix(name) in IMAGE_SUFFIXES
        )
        self._sort_ids()

    def keep(self, wanted: NDArray[np.bool_]) -> None:
        """Keep some images."""
        self.file_names = [name for name, is_wanted in zip(self.file_names, wanted.tolist(), strict=True) if is_wanted]
        self._sort_ids()

    def find(self, image_id: str) -> int:
        """The position of an image; -1 if it is not there."""
        number = text_id(image_id)
        place = bisect_left(self._sorted_ids, number)
        return self._order[place] if place < len(self._sorted_ids) and self._sorted_ids[place] == number else -1

    def id(self, position: int) -> int:
        """The id of an image in the store."""
        return text_id(image_id_of(self.file_names[position]))

    def __len__(self) -> int:
        return len(self.file_names)

    def _sort_ids(self) -> None:
        ids = np.array([text_id(image_id_of(name)) for name in self.file_names], np.int64)
        order = np.argsort(ids, kind="stable")
        self._sorted_ids, self._order = array("q", ids[order].tobytes()), array("q", order.astype(np.int64).tobytes())
        self.height, self.width = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32)


class ClassIds:
    """Numbers for the classes' own ids (`/m/01g317`); they only depend on the text. Remembers which ones occur."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def number(self, label: str) -> int:
        """The number of a class.

        Args:
            label: the class as the CSV files write it, such as "/m/01g317".

        Raises:
            SynthgenError: there are more than `MAX_CLASSES`.
        """
        found = self.seen.get(label)
        if found is None:
            if len(self.seen) >= MAX_CLASSES:
                raise SynthgenError(f"the files have more than {MAX_CLASSES:,} classes; are they those of Open Images?")
            found = self.seen[label] = text_id(label)
        return found


class NegativeLabels:
    """The classes that people looked for in an image and did not find: 12 bytes each."""

    def __init__(self, positions: array[int], labels: array[int]) -> None:
        images, numbers = np.array(positions, np.int32), np.array(labels, np.int64)
        order = np.lexsort((numbers, images))
        self._images, self._labels = images[order], numbers[order]

    def get(self, position: int) -> list[int]:
        """Those of an image, sorted, each once."""
        first, last = np.searchsorted(self._images, (position, position + 1))
        return sorted(set(self._labels[first:last].tolist()))


def image_id_of(file_name: str) -> str:
    """The id of Open Images in a file name."""
    return file_name.rpartition("/")[2].rpartition(".")[0]


def read_negative_labels(
    path: Path,
    index: ImageIndex,
    classes: ClassIds,
    findings: FindingCounter,
    on_bytes: Callable[[int], None] | None,
) -> NegativeLabels:
    """The image labels that a person rejected (Confidence 0), of the images that are there.

    Args:
        path: CSV file of image labels.
        index: the images that are there.
        classes: gets the classes of the labels.
        findings: counts lines that cannot be read.
        on_bytes: called with the number of further bytes read; None = not called.

    Raises:
        SynthgenError: the file cannot be read, or lacks a column.
    """
    table = CsvTable(path, ("ImageID", "LabelName", "Confidence"), ("Source",), on_bytes)
    image, label, confidence = (table.columns[name] for name in ("ImageID", "LabelName", "Confidence"))
    source = table.columns.get("Source", -1)
    positions, labels = array("i"), array("q")
    last, position = "", -1
    for number, _, fields in table.rows():
        if fields is None:
            findings.add(
                "broken_csv_line", "files", f"{path.name} line {number + 1}", "its fields cannot be told apart"
            )
            continue
        if fields[image] != last:
            last = fields[image]
            position = index.find(last)
        if position >= 0 and _is_zero(fields[confidence]) and (source < 0 or fields[source] != "machine"):
            positions.append(position)
            labels.append(classes.number(fields[label]))
    return NegativeLabels(positions, labels)


def count_rotated(
    path: Path, index: ImageIndex, findings: FindingCounter, on_bytes: Callable[[int], None] | None
) -> None:
    """Count the images that are there and that the list of images calls rotated.

    Args:
        path: CSV file that lists the images.
        index: the images that are there.
        findings: gets the rotated images.
        on_bytes: called with the number of further bytes read; None = not called.

    Raises:
        SynthgenError: the file cannot be read.
    """
    table = CsvTable(path, (), ("ImageID", "Rotation"), on_bytes)
    if len(table.columns) < 2:
        return
    image, rotation = table.columns["ImageID"], table.columns["Rotation"]
    for _, _, fields in table.rows():
        if fields is not None and fields[rotation].strip() in _TURNS and index.find(fields[image]) >= 0:
            where = fields[image][:_MAX_ID_CHARS]
            findings.add("rotation_ignored", "images", where, f"{fields[rotation].strip()} degrees")


def find_named(paths: Iterable[Path], index: ImageIndex) -> NDArray[np.bool_]:
    """Which of the images one of the files names: bool [N].

    Args:
        paths: CSV files with the column ImageID.
        index: the images that are there.

    Raises:
        SynthgenError: a file cannot be read, or lacks its column ImageID.
    """
    found = np.zeros(len(index), np.bool_)
    for path in paths:
        table = CsvTable(path, ("ImageID",), (), None)
        last = ""
        for _, _, fields in table.rows():
            if fields is not None and fields[table.columns["ImageID"]] != last:
                last = fields[table.columns["ImageID"]]
                position = index.find(last)
                if position >= 0:
                    found[position] = True
    return found


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False
