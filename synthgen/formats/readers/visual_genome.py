"""Visual Genome: objects with free-form names, and regions with one human phrase each.

The release has one JSON array per kind with one element per image, some 108,000 in no particular order. The photographs
unpack to `VG_100K/` and `VG_100K_2/`. Half of them are COCO's and have COCO's image key.

A phrase belongs to its region's box. `region_graphs.json` names objects for some regions, but not which of them a
phrase describes ("a sign on the facade of the building"), so objects get no phrases.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._coco_images import coco_image_key
from synthgen.formats.readers._coco_json import stream_records
from synthgen.formats.readers._numbers import parse_floats, parse_int, parse_pixels
from synthgen.formats.readers._release import splits_with_files
from synthgen.records.sample import Caption, Sample

TITLE = "Visual Genome"
LOOKS_FOR = "objects.json and image_data.json"
SPLITS = ("train",)  # the release has no splits
LAYERS = ("annotations", "regions")

#: Below `root` or `root/annotations`; the first that exists. Version 1.2 has the version in its archive's name.
_FILE_NAMES = {
    "objects": ("objects.json", "objects_v1_2.json"),
    "images": ("image_data.json",),
    "regions": ("region_descriptions.json",),
}
_IMAGE_FOLDERS = ("VG_100K", "VG_100K_2")
_BATCH = 10_000
_NO_IMAGE = -1
_REGION_CATEGORY = 0  # the category of all regions, without a name

log = logging.getLogger(__name__)


# Field types are loose on purpose: releases differ, and a number in quotes must not stop the ingest at image 90,000.
class _Image(msgspec.Struct):
    image_id: Any = None
    id: Any = None  # 1.0
    coco_id: Any = None
    url: Any = None
    height: Any = None
    width: Any = None


class _Box(msgspec.Struct):
    object_id: Any = None
    region_id: Any = None
    id: Any = None  # 1.0
    image_id: Any = None
    image: Any = None  # 1.0: the image's id, or an object that has it
    x: Any = None
    y: Any = None
    w: Any = None
    h: Any = None
    width: Any = None
    height: Any = None
    names: Any = None
    phrase: Any = None


class _Element(msgspec.Struct):
    image_id: Any = None
    id: Any = None
    image_url: Any = None
    objects: list[_Box] | None = None
    regions: list[_Box] | None = None


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose files are in the release's folder, `path`."""
    return splits_with_files(path, SPLITS, files)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:  # noqa: ARG001 - there is one split
    """Find the release's files; `annotations` may name `objects.json`, whose siblings are then taken from its folder.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: `objects.json`, if it lies elsewhere.

    Raises:
        SynthgenError: both objects and regions are missing.
    """
    if annotations is not None and not annotations.is_file():
        raise SynthgenError(f"no file {annotations}; --annotations should name Visual Genome's objects.json")
    places = [annotations.parent] if annotations else [root, root / "annotations"]
    sources = {
        role: path
        for role, names in _FILE_NAMES.items()
        if (path := next((p / name for p in places for name in names if (p / name).is_file()), None))
    }
    if annotations:
        sources["objects"] = annotations
    if "objects" not in sources and "regions" not in sources:
        packed = [p / f"{name}.zip" for p in places for name in _FILE_NAMES["objects"] if (p / f"{name}.zip").is_file()]
        if packed:
            raise SynthgenError(f"{packed[0]} is still packed; unzip it there and run the same command again")
        raise SynthgenError(
            f"no objects.json in {places[0]}; unpack Visual Genome's JSON files there, or name it with --annotations"
        )
    images = next((p for p in (root, root / "images") if any((p / name).is_dir() for name in _IMAGE_FOLDERS)), root)
    # Without image_data.json the images are those with objects or regions, so every layer needs both.
    if "images" not in sources:
        return DatasetFiles(sources=sources, image_folder=images)
    return DatasetFiles(
        sources, images, layer_sources={"annotations": ("images", "objects"), "regions": ("images", "regions")}
    )


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """Stream images and boxes; memory is bounded by one image's element, the image ids and the distinct names.

    Every layer gives the same images, so that its shards have the same images. A category's id is a hash of its name:
    the source has no ids, and numbers in order of appearance would depend on the order of the file.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: the layer's file is missing, or is not such JSON.
    """
    role = "objects" if layer == "annotations" else "regions"
    if role not in files.sources:
        raise SynthgenError(
            f"no {_FILE_NAMES[role][0]} beside {next(iter(files.sources.values()))}, "
            f"and layer '{layer}' is made from it; unpack it there"
        )
    yield from _read_images(files)
    names: dict[str, int] = {}
    boxes: list[_Box] = []
    owners: list[int] = []
    named_twice = 0
    strange = False  # all elements have another structure
    for place, element in enumerate(_read_elements(files, role)):
        strange = (strange or place == 0) and getattr(element, role) is None
        some, owner = getattr(element, role) or [], _image_id(element)
        boxes += some
        named_twice += sum(isinstance(box.names, list) and len(box.names) > 1 for box in some)
        # Ingest reports images that are in no list; a box without an image would be lost.
        owners += (
            [_NO_IMAGE if (i := _image_id(box)) is None else i for box in some]
            if owner is None
            else [owner] * len(some)
        )
        if len(boxes) >= _BATCH:
            yield _region_batch(boxes, owners) if role == "regions" else _object_batch(boxes, owners, names)
            boxes, owners = [], []
    if boxes:
        yield _region_batch(boxes, owners) if role == "regions" else _object_batch(boxes, owners, names)
    if strange:
        raise SynthgenError(f"{files.sources[role]} has no '{role}' in any of its elements; is it the right file?")
    if named_twice:
        log.warning("%s: %d objects have several names; the first is the category", files.sources[role], named_twice)
    names.pop("", None)  # an object without a name keeps its category id and gets a flag
    yield Categories(
        {_REGION_CATEGORY: ""} if role == "regions" else {key: name for name, key in sorted(names.items())}
    )


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "regions": each payload is the region's phrase in UTF-8.

    Args:
        files: not used, as payloads have the phrases themselves.
        layer: not used, as only layer "regions" has payloads.
    """

    def with_phrases(sample: Sample, payloads: list[bytes | None]) -> Sample:
        return replace(
            sample,
            annotations=tuple(
                replace(region, captions=(Caption(phrase.decode(), "human"),)) if phrase else region
                for region, phrase in zip(sample.annotations, payloads, strict=True)
            ),
        )

    return with_phrases


def _read_images(files: DatasetFiles) -> Iterator[ImageBatch]:
    if "images" in files.sources:
        for _, found in stream_records(files.sources["images"], {"": _Image}, on_bytes=files.on_bytes):
            for start in range(0, len(found), _BATCH):
                yield _image_batch(found[start : start + _BATCH])
        return
    # Without image_data.json the images are those with objects or regions; objects also have the url.
    log.warning(
        "no image_data.json beside %s: sizes are unknown until the images are read, and photographs shared with COCO "
        "do not get COCO's key; unpack image_data.json.zip there",
        next(iter(files.sources.values())),
    )
    seen: set[int] = set()
    waiting: list[_Image] = []
    for role in ("objects", "regions"):
        for element in _read_elements(files, role) if role in files.sources else ():
            boxes = getattr(element, role) or ()
            ids = {_image_id(element)} if _image_id(element) is not None else {_image_id(box) for box in boxes}
            new = sorted(i for i in ids if i is not None and i not in seen)
            seen.update(new)
            waiting += [_Image(image_id=i, url=element.image_url) for i in new]
            if len(waiting) >= _BATCH:
                yield _image_batch(waiting)
                waiting = []
    if waiting:
        yield _image_batch(waiting)


def _read_elements(files: DatasetFiles, role: str) -> Iterator[_Element]:
    for _, found in stream_records(files.sources[role], {"": _Element}, on_bytes=files.on_bytes):
        yield from found


def _image_batch(found: list[_Image]) -> ImageBatch:
    ids = [_first_integer(image.image_id, image.id) for image in found]
    coco = [parse_int(image.coco_id) for image in found]
    return ImageBatch(
        image_id=np.asarray(ids, np.int64),
        file_name=[_file_name(i, image.url) for i, image in zip(ids, found, strict=True)],
        image_key=[f"visual_genome/{i}" if c is None else coco_image_key(c) for i, c in zip(ids, coco, strict=True)],
        height=np.asarray([parse_pixels(image.height) for image in found], np.int32),
        width=np.asarray([parse_pixels(image.width) for image in found], np.int32),
    )


def _file_name(image_id: int, url: object) -> str:
    """The last two parts of the url (".../VG_100K_2/1.jpg"): only it names the archive of an image.

    Without a url, the first archive is assumed. The name goes into shards, so it must not depend on this disk.
    """
    parts = PurePosixPath(url).parts if isinstance(url, str) else ()
    if len(parts) >= 2 and parts[-2] in _IMAGE_FOLDERS and ".." not in parts[-1]:
        return "/".join(parts[-2:])
    return f"{_IMAGE_FOLDERS[0]}/{image_id}.jpg"


def _region_batch(boxes: list[_Box], owners: list[int]) -> AnnotationBatch:
    return replace(
        _annotation_batch(boxes, owners, [box.region_id for box in boxes]),
        category=np.full(len(boxes), _REGION_CATEGORY, np.int64),
        payload=[_phrase_payload(box.phrase) for box in boxes],
    )


def _object_batch(boxes: list[_Box], owners: list[int], names: dict[str, int]) -> AnnotationBatch:
    """Annotations of objects; new names are added to `names` with their ids."""
    found = [_first_name(box.names) for box in boxes]
    names.update({name: _category_id(name) for name in set(found).difference(names)})
    category = np.array([names[name] for name in found], np.int64)
    return replace(_annotation_batch(boxes, owners, [box.object_id for box in boxes]), category=category)


def _annotation_batch(boxes: list[_Box], owners: list[int], ids: list[Any]) -> AnnotationBatch:
    """The fields that objects and regions share."""
    bbox = np.stack(
        [
            parse_floats([box.x for box in boxes]),
            parse_floats([box.y for box in boxes]),
            parse_floats([box.width if box.w is None else box.w for box in boxes]),
            parse_floats([box.height if box.h is None else box.h for box in boxes]),
        ],
        axis=1,
    )
    return AnnotationBatch(
        image_id=np.array(owners, np.int64),
        id=np.array([_first_integer(value, box.id) for value, box in zip(ids, boxes, strict=True)], np.int64),
        bbox=bbox,
        category=np.zeros(len(boxes), np.int64),
        iscrowd=np.zeros(len(boxes), np.bool_),
        flags={"no_box": np.asarray(np.isnan(bbox).any(axis=1), np.bool_)},
    )


def _image_id(thing: _Element | _Box) -> int | None:
    """The id of the image of an element or a box; None if missing."""
    nested = thing.id if isinstance(thing, _Element) else thing.image
    if isinstance(nested, dict):
        nested = nested.get("image_id", nested.get("id"))
    found = parse_int(thing.image_id)
    return parse_int(nested) if found is None else found


def _first_name(names: object) -> str:
    """The first name, stripped; "" if there is none."""
    first = names[0] if isinstance(names, list) and names else names
    return first.strip() if isinstance(first, str) else ""


def _phrase_payload(phrase: object) -> bytes | None:
    return phrase.strip().encode("utf-8", "replace") or None if isinstance(phrase, str) else None


def _category_id(name: str) -> int:
    """63 bits of BLAKE2, so that collisions among 100,000 names are practically impossible."""
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "big") >> 1


def _first_integer(*values: object) -> int:
    """The first integer of `values`; -1 if there is none."""
    for value in values:
        found = parse_int(value)
        if found is not None:
            return found
    return -1
