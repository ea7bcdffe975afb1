"""Hugging Face datasets: folders of `save_to_disk`, Parquet files, and folders of images with a metadata file.

The layouts are in `_hf_layout`, the fields of objects in `_objects`; the convention is that of
https://huggingface.co/docs/datasets/image_dataset#object-detection and
https://huggingface.co/docs/datasets/object_detection: a column `image`, and `objects` with `bbox` as x, y, width,
height in pixels (COCO) and `category`. Without a column of objects, the fields may be columns themselves. The names of
numbers come from a ClassLabel in the file's schema. `width` and `height` are used if present.

Images in Parquet and Arrow files are not unpacked; their names are `data/train-00000-of-00001.parquet/image/17`. The
image id is the column `image_id` if it holds unique whole numbers, else a number made of the name. Files are read with
Arrow alone: no code of a dataset is executed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._hf_layout import METADATA, TABLES, find_tables
from synthgen.formats.readers._hf_tables import (
    Row,
    describe_table,
    iter_image_ids,
    iter_metadata,
    iter_rows,
    read_schema,
)
from synthgen.formats.readers._ids import text_id
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._numbers import parse_pixels
from synthgen.formats.readers._objects import (
    BOX_FIELDS,
    LABEL_FIELDS,
    MASK_FIELDS,
    BatchBuilder,
    parse_objects,
)
from synthgen.formats.readers._packed_files import fill_size, glance_at_names, make_sources, pick_split
from synthgen.images import arrow_stream
from synthgen.images.image_error import ImageError, utf8_safe

SPLITS = ("train", "validation", "test")
LAYERS = ("annotations", "human")
TITLE = "Hugging Face datasets"
LOOKS_FOR = "a folder of save_to_disk, Parquet files with columns image and objects, or images with metadata.jsonl"
LAYOUT_SPLITS = True

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of a folder or file, `path`, with images and boxes; None if it has none, or another format."""
    ends = (*TABLES, *METADATA, ".jsonl", ".csv", "dataset_dict.json", "state.json")
    try:
        if not any(name.lower().endswith(ends) for name in glance_at_names(path)):
            return None
        tables = find_tables(path)
        first = next((one for found in tables.values() for one in found), None)
        if first is None:
            return None
        if first.name.lower().endswith(TABLES):
            describe_table(read_schema(first), first)
        else:
            row = next(iter_metadata(first, "", FindingCounter()), None)
            if row is None or not _object_fields(row.values):
                return None
    except (SynthgenError, OSError):
        return None
    return tuple(sorted(tables))


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The files of a split in `root`, or the one that `annotations` names.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: one table or folder; None = find them in `root`.

    Raises:
        SynthgenError: there are none.
    """
    tables = find_tables(annotations or root)
    if not tables:
        raise SynthgenError(
            f"no dataset of Hugging Face in {annotations or root}; put a folder of save_to_disk, Parquet files, or "
            f"images with {METADATA[0]} there"
        )
    found = [annotations] if annotations is not None else pick_split(tables, split, root)
    return make_sources(found, root, split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the files in the order of their names; see `synthgen.formats.readers`.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a file cannot be read, or has no column of images or of objects.
    """
    paths = _paths_of(files)
    findings = FindingCounter()
    builder = BatchBuilder(findings, masked=layer != "annotations")
    ids = _read_image_ids(paths)
    done = 0
    for path in paths:
        for row, names in _iter_file(path, files.image_folder, findings):
            image_id = int(ids[done]) if ids is not None and done < len(ids) else text_id(row.file_name)
            done += 1
            objects, error = [], row.error
            if error is None:
                try:
                    objects = parse_objects(_object_fields(row.values))
                except ValueError as why:
                    error = f"its objects cannot be read: {why}"
            height, width = parse_pixels(row.values.get("height")), parse_pixels(row.values.get("width"))
            if layer != "annotations" and any(one.segmentation is not None for one in objects):
                height, width = fill_size(files.image_folder, row.file_name, height, width)
            yield from builder.add(image_id, row.file_name, height, width, objects, names, error)
        if files.on_bytes is not None:
            files.on_bytes(path.stat().st_size)
    yield from builder.flush()
    yield builder.categories()
    yield from findings.parts()


def _paths_of(files: DatasetFiles) -> list[Path]:
    if any(path.is_dir() for path in files.sources.values()):
        return find_tables(files.image_folder)[files.split]
    return list(files.sources.values())


def _iter_file(path: Path, root: Path, findings: FindingCounter) -> Iterator[tuple[Row, dict[int, str]]]:
    """The rows of a file, with the names of numbers of categories."""
    below = path.relative_to(root)
    folder = "" if below.parent == Path() else f"{below.parent.as_posix()}/"
    if not path.name.lower().endswith(TABLES):
        try:
            listed: set[int] = set()
            for row in iter_metadata(path, folder, findings):
                listed.add(hash(row.file_name))
                yield row, {}
            _report_unlabeled(path, root, listed, findings)
        except OSError as why:
            raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
        return
    shape = describe_table(read_schema(path), path)
    names = dict(enumerate(shape.class_names))
    is_metadata = path.name in METADATA
    for row in iter_rows(path, shape, below.as_posix()):
        given = Row(folder + row.file_name, row.values, row.error) if is_metadata and row.error is None else row
        yield given, names
    if path.name.lower().endswith(".arrow"):
        try:
            damage = arrow_stream.open_stream(path).damage
        except ImageError:
            damage = ""
        if damage:
            findings.add("damaged_archive", "files", below.as_posix(), damage)


def _report_unlabeled(path: Path, root: Path, listed: set[int], findings: FindingCounter) -> None:
    """Report the images below a metadata file that it does not list, by the hashes of the names that it lists."""
    for folder, folders, names in os.walk(path.parent):
        folders.sort()
        for name in sorted(names):
            place = Path(folder, name).relative_to(root).as_posix()
            if name.lower().endswith(_IMAGE_SUFFIXES) and hash(place) not in listed:
                findings.add("unlabeled_image", "images", utf8_safe(place), f"{path.name} does not name it")


def _object_fields(values: dict[str, Any]) -> Any:
    """The column of objects; else the lists of their fields; None if there is neither."""
    for name in ("objects", "annotations"):
        if values.get(name) is not None:
            return values[name]
    found = {name: values[name] for name in (*BOX_FIELDS, *LABEL_FIELDS, *MASK_FIELDS) if name in values}
    return found if any(name in found for name in (*BOX_FIELDS, *MASK_FIELDS)) else None


def _read_image_ids(paths: list[Path]) -> NDArray[np.int64] | None:
    """The column "image_id" of all files, if it holds unique whole numbers."""
    parts: list[NDArray[np.int64]] = []
    for path in paths:
        if not path.name.lower().endswith(TABLES):
            return None
        if "image_id" not in describe_table(read_schema(path), path).scalars:
            return None
        for part in iter_image_ids(path):
            if any(not isinstance(one, int) or not -(2**63) < one < 2**63 for one in part):
                return None
            parts.append(np.array(part, np.int64))
    ids = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return ids if len(np.unique(ids)) == len(ids) else None
