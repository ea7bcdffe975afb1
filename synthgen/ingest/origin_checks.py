"""Refuses masks that machines drew where masks by people are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart, SourceFinding
from synthgen.images.png_text import PROVENANCE_KEYWORD, read_png_text
from synthgen.ingest.folder_listing import list_image_files

#: The layer of masks by people.
HUMAN_LAYER = "human"

#: The file at the top of each folder that `synthgen export` writes.
EXPORT_FILE = "synthgen_export.json"

_MAX_EXPORT_BYTES = 2**24
_MAX_NAME_CHARS = 200
_BLOCK_FILES = 10_000
_WORD = re.compile(r"[a-z]+")


def check_origin(files: DatasetFiles, layer: str) -> None:
    """Refuse the layer "human" of files in an exported folder with masks that machines drew, or of such PNG masks.

    Args:
        files: those of the dataset.
        layer: the layer to write.

    Raises:
        SynthgenError: with the file that says it.
    """
    if layer != HUMAN_LAYER:
        return
    first = next(iter(files.sources.values()), files.image_folder)
    for folder in _folders(files):
        if (why := describe_export(folder / EXPORT_FILE)) is not None:
            raise _refusal(str(folder / EXPORT_FILE), why, first)
    for role, source in files.sources.items():
        if role != "images" and source.is_dir():
            _check_png_masks(source)


def refuse_machine_masks(parts: Iterable[DatasetPart], layer: str, source: Path) -> Iterator[DatasetPart]:
    """The same stream, up to the first finding about masks that machines drew, if they are to be masks by people.

    Args:
        parts: what a reader yields.
        layer: the layer to write.
        source: the file or folder of the masks.

    Raises:
        SynthgenError: with the first of these masks.
    """
    for part in parts:
        if layer == HUMAN_LAYER and isinstance(part, SourceFinding) and part.code == "machine_masks":
            where, what = part.examples[0]
            raise _refusal(where, what, source)
        yield part


def describe_export(path: Path) -> str | None:
    """What the file of an export says about masks that machines drew; None if it counts none, or is not there.

    Args:
        path: the file; untrusted.

    Raises:
        SynthgenError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_EXPORT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    try:
        found = json.loads(text)
        counts = found["provenance"]
        machine = counts.get("machine", 0)
        if not isinstance(machine, int):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SynthgenError(
            f"{path} does not say who drew the masks of this export; export it again, or delete the file if the masks "
            "beside it are from elsewhere"
        ) from None
    if machine <= 0:
        return None
    models = found.get("models")
    names = [name for name in models if isinstance(name, str)] if isinstance(models, list) else []
    by = f" by {', '.join(names[:5])}"[:_MAX_NAME_CHARS] if names else ""
    return f"it counts {machine:,} masks that machines drew{by}"


def _folders(files: DatasetFiles) -> Iterator[Path]:
    """Where the file of an export may be: the folder of each source, and the two above it.

    Not those of the images: an annotation file from elsewhere may be of the images of an export.
    """
    sources = [path for role, path in files.sources.items() if role != "images"] or [files.image_folder]
    own = [(path if path.is_dir() else path.parent).absolute() for path in sources]
    above = [folder.parent for folder in own]
    yield from dict.fromkeys([*own, *above, *(folder.parent for folder in above)])  # YOLO has labels/train


def _check_png_masks(folder: Path) -> None:
    names = list_image_files(folder)
    for start in range(0, len(names), _BLOCK_FILES):
        for name in names.take(np.arange(start, min(start + _BLOCK_FILES, len(names)))):
            if name.lower().endswith(".png") and is_machine_png(folder / name):
                raise _refusal(str(folder / name), "it says that a machine drew its masks", folder)


def is_machine_png(path: Path) -> bool:
    """Whether the PNG file at `path` says that a machine drew its masks. A file that cannot be read says nothing."""
    try:
        text = read_png_text(path, PROVENANCE_KEYWORD)
    except OSError:  # whoever decodes it says what is wrong
        return False
    return text is not None and _names_machine(text)


def _names_machine(text: str) -> bool:
    """Whether the text of a PNG names machines: as words, or as counts by provenance."""
    try:
        counts: Any = json.loads(text)
    except (ValueError, RecursionError):
        counts = None
    if isinstance(counts, dict):
        counts = counts.get("provenance", counts)
    if isinstance(counts, dict):
        return counts.get("machine", 0) not in (0, None)
    return "machine" in _WORD.findall(text.lower())


def _refusal(where: str, what: str, source: Path) -> SynthgenError:
    is_importable = source.is_dir() or source.name.lower().endswith((".json", ".json.gz"))
    file = str(source) if is_importable else "FILE"
    how = "" if is_importable else ", as COCO JSON or PNG files"
    return SynthgenError(
        f"{where}: {what}, and the layer '{HUMAN_LAYER}' is for masks by people; ingest the boxes, and bring the masks "
        f"in with `synthgen import-masks {file} --dataset DATASET`{how}"
    )
