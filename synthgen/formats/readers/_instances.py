"""Shared by datasets in COCO's instances format: images, annotations and categories in one JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch, Licenses, SourceFinding
from synthgen.formats.readers._coco_json import stream_records
from synthgen.formats.readers._coco_records import (
    MARKS,
    NO_BOX,
    CocoBox,
    CocoCategory,
    CocoImage,
    CocoMask,
    LvisImage,
    clean_text,
)
from synthgen.formats.readers._ids import is_text_id, parse_id
from synthgen.formats.readers._json_kinds import describe_other_json
from synthgen.formats.readers._mask_origin import (
    NO_MASK,
    apply_origin,
    find_machine_file,
    find_machine_masks,
    origin_segmentation,
    pack_origin,
    record_origin,
    split_origin,
)
from synthgen.formats.readers._segmentations import draw_segmentation, find_problems, find_rle_size, summarize_polygon
from synthgen.images.decode import ImageError, find_image, read_image_header
from synthgen.records.box_table import NO_ID
from synthgen.records.rle import rle_bbox_xyxy
from synthgen.records.sample import Annotation, Sample

__all__ = [
    "NO_BOX",
    "CocoImage",
    "LvisImage",
    "complete",
    "find_annotation_file",
    "find_split_folder",
    "mask_problems",
    "read_instances",
    "shorten_mask",
]

#: The list of licences is read up to this size; COCO's has 1 kB.
_MAX_LICENSE_BYTES = 2**17

#: `info` is read up to this size: that of our own exports holds a recipe and the names of models.
_MAX_INFO_BYTES = 2**17


def mask_problems(payload: bytes, height: int, width: int) -> dict[str, str]:
    """What is wrong with the mask of a payload of the layer "human"; see `synthgen.formats.readers`.

    Args:
        payload: as `read_instances` gives it.
        height: of the image in pixels; 0 = unknown.
        width: of the image in pixels; 0 = unknown.
    """
    return find_problems(origin_segmentation(payload), height, width)


def shorten_mask(payload: bytes) -> bytes:
    """A payload, or a shorter one for which `mask_problems` says the same; see `synthgen.formats.readers`."""
    return summarize_polygon(origin_segmentation(payload))


def find_annotation_file(root: Path, names: Sequence[str], annotations: Path | None) -> Path:
    """The instances file: `annotations` if given, else the first of `names` below root or root/annotations.

    Args:
        root: folder of the dataset.
        names: usual file names, the preferred one first.
        annotations: the user's own file; None = find it.

    Raises:
        SynthgenError: it is missing.
    """
    if annotations is not None:
        if not annotations.is_file():
            raise SynthgenError(f"no file {annotations}; --annotations should name a COCO-style JSON file")
        return annotations
    for folder in (root / "annotations", root):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise SynthgenError(
        f"no {names[0]} in {root} or {root / 'annotations'}; put it there, or name it with --annotations"
    )


def find_split_folder(root: Path, split: str) -> Path:
    """The folder of a split's images: root/split if it exists, else root."""
    return root / split if (root / split).is_dir() else root


def read_instances(
    files: DatasetFiles,
    layer: str,
    *,
    name_and_key: Callable[[CocoImage], tuple[str, str]],
    image_type: type[CocoImage] = CocoImage,
    box_type: type[CocoBox] = CocoBox,
    mask_type: type[CocoMask] = CocoMask,
    flag_fields: Mapping[str, str] | None = None,
) -> Iterator[ImageBatch | AnnotationBatch | Categories | Licenses | SourceFinding]:
    """Read `files.sources["instances"]`; layers other than "annotations" get each segmentation's JSON as payload.

    The payload also holds what the annotation says of the mask's origin; see `_mask_origin`. Masks that machines drew
    are a finding.

    Args:
        files: with the source "instances".
        layer: "annotations", or a layer with masks.
        name_and_key: an image's (file_name, image_key).
        image_type: type of the records of images: `CocoImage` or `LvisImage`.
        box_type: type of the records of the layer "annotations".
        mask_type: type of the records of the other layers.
        flag_fields: by name of the flag, the field of both types that sets it.

    Raises:
        SynthgenError: the file is not such JSON.
    """
    path = files.sources["instances"]
    masked = layer != "annotations"
    kinds: dict[str, type[msgspec.Struct]] = {
        "images": image_type,
        "annotations": mask_type if masked else box_type,
        "categories": CocoCategory,
    }
    count, missing, parents = 0, {"images", "annotations"}, _ParentFinder()
    try:
        small = {"licenses": _MAX_LICENSE_BYTES, **({"info": _MAX_INFO_BYTES} if masked else {})}
        for key, found in stream_records(path, kinds, on_bytes=files.on_bytes, small_keys=small):
            missing.discard(key)
            if key == "licenses":
                yield from map(_parse_licenses, found)
            elif key == "info":
                yield from filter(None, (find_machine_file(str(path), info) for info in found))
            elif key == "images":
                yield _image_batch(found, name_and_key)
            elif key == "annotations":
                yield _annotation_batch(found, count, flag_fields or {}, masked=masked)
                count += len(found)
                if masked and (machine := find_machine_masks(str(path), found)) is not None:
                    yield machine
            else:
                parents.add(found)
                yield Categories(
                    {c.id: c.name.strip() for c in found if c.name.strip()},
                    padded={c.id: c.name for c in found if c.name != c.name.strip()},
                    has_file_ids=not any(is_text_id(c.id) for c in found),
                    supercategories={c.id: c.supercategory for c in found if c.supercategory},
                )
        if missing:
            raise SynthgenError(f"{path} has no '{min(missing)}'; a COCO-style file has 'images' and 'annotations'")
    except SynthgenError:
        if count == 0 and (what := describe_other_json(path)) is not None:
            raise SynthgenError(what) from None
        raise
    if found_parents := parents.find():
        yield Categories({}, parents=found_parents)


class _ParentFinder:
    """Finds the categories whose name is another's `supercategory`."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._children: defaultdict[str, set[int]] = defaultdict(set)  # at most two by name

    def add(self, found: Sequence[CocoCategory]) -> None:
        for category in found:
            self._names[category.id] = category.name.strip()
            children = self._children[category.supercategory.strip()]
            if len(children) < 2:
                children.add(category.id)

    def find(self) -> frozenset[int]:
        return frozenset(
            number for number, name in self._names.items() if name and self._children.get(name, set()) - {number}
        )


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "human": each payload has the JSON of a segmentation. An unreadable one sets a flag; the box stays.

    A mask has the size of its image. If the file does not say it, the RLEs of the image do, or the header of its file.
    """

    def with_masks(sample: Sample, payloads: list[bytes | None]) -> Sample:
        if not sample.height * sample.width and any(payloads):
            sample = _with_size(sample, payloads, files.image_folder)
        masked = (_with_mask(a, p, sample) for a, p in zip(sample.annotations, payloads, strict=True))
        return replace(sample, annotations=tuple(masked))

    return with_masks


def _with_size(sample: Sample, payloads: list[bytes | None], image_folder: Path) -> Sample:
    """The sample with its image's size, pixels; unchanged if it cannot be found out."""
    sizes = {find_rle_size(origin_segmentation(payload)) for payload in payloads if payload is not None} - {None}
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None:
        try:
            size = read_image_header(find_image(image_folder, sample.file_name))[:2]
        except ImageError:
            return sample
    return replace(sample, height=size[0], width=size[1])


def _with_mask(annotation: Annotation, payload: bytes | None, sample: Sample) -> Annotation:
    if payload is None:
        return annotation
    origin, segmentation = split_origin(payload)
    rle, problems = draw_segmentation(segmentation, sample.height, sample.width)
    flags = tuple(sorted({*annotation.flags, *problems})) if problems else annotation.flags
    if rle is None:
        return replace(annotation, flags=flags)
    bbox = annotation.bbox
    if "no_box" in flags:
        x1, y1, x2, y2 = rle_bbox_xyxy(rle)
        bbox = (x1, y1, x2 - x1, y2 - y1)
    masked = replace(annotation, bbox=bbox, flags=flags, segmentation=rle, mask_source="human")
    return masked if origin is None else apply_origin(masked, origin)


def _image_batch(found: list[CocoImage], name: Callable[[CocoImage], tuple[str, str]]) -> ImageBatch:
    names = [name(image) for image in found]
    looked_over = [image for image in found if isinstance(image, LvisImage)]
    texts = [image.id_text for image in found]
    return ImageBatch(
        image_id=np.array([image.id for image in found], np.int64),
        file_name=[file_name for file_name, _ in names],
        image_key=[key for _, key in names],
        height=np.array([image.height for image in found], np.int32),
        width=np.array([image.width for image in found], np.int32),
        neg_categories=[image.neg_category_ids for image in looked_over] or None,
        not_exhaustive_categories=[image.not_exhaustive_category_ids for image in looked_over] or None,
        license_id=_license_ids(found),
        id_text=texts if any(texts) else None,
    )


def _license_ids(found: list[CocoImage]) -> NDArray[np.int64] | None:
    numbers = [image.license for image in found]
    if all(number is None for number in numbers):
        return None
    return np.array([NO_ID if number is None else number for number in numbers], np.int64)


def _parse_licenses(value: object) -> Licenses:
    """The licences of a file's `licenses`, as far as they can be read. A picture's own number stays in any case."""
    found = []
    for one in value if isinstance(value, list) else []:
        number = parse_id(one.get("id")) if isinstance(one, dict) else None
        if number is not None:
            found.append((number, clean_text(one.get("name")), clean_text(one.get("url"))))
    return Licenses(tuple(found))


def _annotation_batch(found: list[Any], count: int, flags: Mapping[str, str], *, masked: bool) -> AnnotationBatch:
    # One list per field, no checks of single records: this is half of the time of an ingest of boxes.
    ids = np.array([a.id for a in found], np.int64)
    ids = np.where(ids == NO_ID, np.arange(count + 1, count + len(ids) + 1), ids)  # else its number in the file
    numbers = chain.from_iterable([a.bbox for a in found])
    bbox = np.fromiter(numbers, np.float64, 4 * len(found)).reshape(-1, 4)
    given = {flag: np.fromiter(map(attrgetter(field), found), np.int64) != 0 for flag, field in flags.items()}
    marks = np.array([a.iscrowd for a in found], np.int64)
    marked = {"no_box": np.zeros(len(found), np.bool_)}
    if len(found) and marks.max() > 1:  # a flag that no annotation has is left out, except for no_box
        bits = {flag: (marks >> bit & 1).astype(np.bool_) for bit, flag in enumerate(MARKS) if bit}
        marked |= {flag: there for flag, there in bits.items() if there.any()}
    return AnnotationBatch(
        image_id=np.array([a.image_id for a in found], np.int64),
        id=ids,
        bbox=bbox,
        category=np.array([a.category_id for a in found], np.int64),
        iscrowd=(marks & 1).astype(np.bool_),
        flags={**marked, **given},
        area=np.array([a.area for a in found], np.float64) if masked else None,
        payload=_payloads(found) if masked else None,
    )


def _payloads(found: list[Any]) -> list[bytes | None]:
    """Copies of the segmentations, as the originals keep a large part of the file in memory; None without a mask."""
    if any(a.provenance is not None or a.mask_source is not None for a in found):
        return [pack_origin(record_origin(a), bytes(a.segmentation)) for a in found]
    texts = [bytes(a.segmentation) for a in found]
    return [None if text in NO_MASK else text for text in texts]
