"""ADE20K's full release (ADE20K_2021_17_01): every object, and every part of one, with a mask of its own.

Each photograph has a JSON of its objects and a folder with one PNG per object: 255 where it is visible, 128 where it is
occluded. The mask is the visible part, and the box is the mask's. Names are lists of synonyms, of which the first is
the category; parts (`part_level` 1 and more) have the flag "part".
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS, image_ids_and_keys
from synthgen.formats.readers._image_mask_pairs import complete, list_images, read_image_sizes
from synthgen.formats.readers._label_regions import split_label_regions
from synthgen.formats.readers._numbers import parse_float, parse_int
from synthgen.images.decode import ImageError, find_image, load_label_map

SPLITS = ("training", "validation")
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]

_VISIBLE_THRESHOLD = 192  # between 128, occluded, and 255, visible
_THREADS = 4  # PNGs of one photograph at once
_BATCH = 64
_MAX_JSON_BYTES = 2**26  # of a JSON; the largest has 1 MB
_MAX_OBJECTS = 10_000  # per photograph
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


class _Object(msgspec.Struct):
    # Loose on purpose: MATLAB writes a list of one element as an object.
    id: Any = None
    name: Any = None
    parts: Any = None
    instance_mask: Any = None
    polygon: Any = None


class _ObjectAnnotation(NamedTuple):
    """An annotation: id and first name of its object, its box, its RLE text, its flags."""

    id: int
    name: str
    bbox: tuple[float, float, float, float]
    rle_counts: bytes | None
    is_part: bool
    has_no_box: bool


class _ImageAnnotations(NamedTuple):
    """A photograph's (height, width), its error, its annotations."""

    size: tuple[int, int]
    error: str | None
    objects: list[_ObjectAnnotation]


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The folder images/ADE/<split> of the release, which lies in root or as root/ADE20K_2021_17_01.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: that folder itself, if it is elsewhere.

    Raises:
        SynthgenError: it is not there.
    """
    places = [root, root / "ADE20K_2021_17_01", root / "full" / "ADE20K_2021_17_01"]
    found = [annotations] if annotations is not None else [place / "images" / "ADE" / split for place in places]
    folder = next((place for place in found if place.is_dir()), None)
    if folder is None:
        raise SynthgenError(
            f"no folder {found[0]}; unpack ADE20K_2021_17_01 in {root}, or name its images/ADE/{split} with "
            "--annotations"
        )
    return DatasetFiles({"release": folder}, folder)


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the JSONs and PNGs; see `synthgen.formats.readers`. Memory is that of one photograph's PNGs.

    A photograph whose JSON is not there or cannot be read makes a row with an error. An object whose PNG cannot be
    used, or shows nothing of it, is flagged `bad_segmentation`; its box is then that of its polygon.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: there is no photograph.
    """
    folder = files.sources["release"]
    photographs = list_images(folder, suffixes=frozenset({".jpg"}))
    if not photographs:
        raise SynthgenError(f"no photographs below {folder}; unpack the whole of ADE20K_2021_17_01 there")
    names: dict[str, int] = {}
    known = image_ids_and_keys(photographs)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as pool:
        for start in range(0, len(photographs), _BATCH):
            some = photographs[start : start + _BATCH]
            ids = [number_ or place for place, (number_, _) in enumerate(known[start : start + _BATCH], start + 1)]
            looks = [_read_image(folder / name, pool) for name in some]
            yield ImageBatch(
                image_id=np.array(ids, np.int64),
                file_name=[name.encode("utf-8", "replace").decode() for name in some],
                image_key=[key for _, key in known[start : start + _BATCH]],
                height=np.array([look.size[0] for look in looks], np.int32),
                width=np.array([look.size[1] for look in looks], np.int32),
                error=[look.error for look in looks],
            )
            rows = [(i, drawn) for i, look in zip(ids, looks, strict=True) for drawn in look.objects]
            names.update({drawn.name: _category_id(drawn.name) for _, drawn in rows if drawn.name not in names})
            yield _annotation_batch(rows, names, masks=layer == "human")
            if files.on_bytes is not None:
                files.on_bytes(sum(_release_bytes(folder / name) for name in some))
    names.pop("", None)  # an object without a name keeps its category id and gets a flag
    stuff = {CATEGORY_NAMES[label - 1] for label in STUFF_LABELS}
    yield Categories(
        {key: name for name, key in sorted(names.items())},
        frozenset(key for name, key in names.items() if name in stuff),
    )


def _read_image(photograph: Path, pool: ThreadPoolExecutor) -> _ImageAnnotations:
    shown, stored = read_image_sizes(photograph)
    try:
        objects = _read_objects(photograph.with_suffix(".json"))
    except ValueError as why:
        return _ImageAnnotations(shown, f"its JSON {why}", [])
    sizes = {shown, stored} - {(0, 0)}
    drawn = list(pool.map(partial(_read_object, photograph.parent, sizes), range(len(objects)), objects))
    return _ImageAnnotations(shown, None, drawn)


def _read_objects(path: Path) -> list[_Object]:
    """The objects of a JSON.

    Args:
        path: JSON of one photograph; untrusted.

    Raises:
        ValueError: it is unusable; the message continues a sentence that starts with "its JSON".
    """
    try:
        if not path.is_file():
            raise ValueError("is not there")
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        found = msgspec.json.decode(text)["annotation"]["object"] if len(content) <= _MAX_JSON_BYTES else None
        objects = msgspec.convert([found] if isinstance(found, dict) else found, list[_Object])
    except (OSError, KeyError, TypeError, RecursionError, msgspec.MsgspecError):
        raise ValueError("cannot be read as the release's") from None
    if len(objects) > _MAX_OBJECTS:
        raise ValueError(f"lists {len(objects):,} objects, more than the limit of {_MAX_OBJECTS:,}")
    return objects


def _read_object(folder: Path, sizes: set[tuple[int, int]], place: int, thing: _Object) -> _ObjectAnnotation:
    """One object; `sizes` are the possible sizes of its photograph, empty if it cannot be opened."""
    own = parse_int(thing.id)
    level = parse_int(thing.parts.get("part_level")) if isinstance(thing.parts, dict) else None
    bbox, counts = _polygon_box(thing.polygon), None
    try:
        seen = (
            load_label_map(find_image(folder, thing.instance_mask if isinstance(thing.instance_mask, str) else ""))
            >= _VISIBLE_THRESHOLD
        )
        if not sizes or seen.shape in sizes:
            for region in split_label_regions(seen, ignore_labels={0}):
                bbox, counts = region.bbox, region.mask.counts
    except ImageError:
        pass  # no mask: gets a flag
    name = thing.name.split(",")[0].strip() if isinstance(thing.name, str) else ""
    name = name.encode("utf-8", "replace").decode()
    return _ObjectAnnotation(place if own is None else own, name, bbox or _NO_BOX, counts, bool(level), bbox is None)


def _polygon_box(polygon: object) -> tuple[float, float, float, float] | None:
    """Box of a polygon, XYWH in pixels; None if it has no points."""
    if not isinstance(polygon, dict):
        return None
    x, y = ([parse_float(v) for v in polygon[k]] if isinstance(polygon.get(k), list) else [] for k in ("x", "y"))
    if not x or not y or not np.isfinite([*x, *y]).all():
        return None
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def _annotation_batch(
    rows: list[tuple[int, _ObjectAnnotation]], names: dict[str, int], *, masks: bool
) -> AnnotationBatch:
    return AnnotationBatch(
        image_id=np.array([image_id for image_id, _ in rows], np.int64),
        id=np.array([drawn.id for _, drawn in rows], np.int64),
        bbox=np.array([drawn.bbox for _, drawn in rows], np.float64).reshape(-1, 4),
        category=np.array([names[drawn.name] for _, drawn in rows], np.int64),
        iscrowd=np.zeros(len(rows), np.bool_),
        flags={
            "part": np.array([drawn.is_part for _, drawn in rows], np.bool_),
            "no_box": np.array([drawn.has_no_box for _, drawn in rows], np.bool_),
            "bad_segmentation": np.array([drawn.rle_counts is None for _, drawn in rows], np.bool_),
        },
        payload=[drawn.rle_counts for _, drawn in rows] if masks else None,
    )


def _release_bytes(photograph: Path) -> int:
    """Bytes of a photograph and its annotation files."""
    stem = photograph.with_suffix("")
    others = [f"{stem}.json", f"{stem}_seg.png", *(f"{stem}_parts_{level}.png" for level in range(1, 7))]
    objects = stem.iterdir() if stem.is_dir() else ()
    return sum(path.stat().st_size for path in (photograph, *map(Path, others), *objects) if path.is_file())


def _category_id(name: str) -> int:
    """63 bits of BLAKE2: the name numbers of the release differ between releases."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
