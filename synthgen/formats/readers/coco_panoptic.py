"""COCO panoptic: one JSON of segments, and beside it one PNG an image whose colours are the segments' ids.

The PNGs are in the folder with the name of the JSON without `.json` (`annotations/panoptic_val2017/`). Any dataset in
this format can be read: `annotations` names its JSON. Segment ids are colours, unique only within an image.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._ade20k import key_from_text_id
from synthgen.formats.readers._coco_folders import looks_like_coco
from synthgen.formats.readers._coco_images import coco_file_name, coco_key_from_name, find_coco_image_folder
from synthgen.formats.readers._coco_json import stream_records
from synthgen.formats.readers._coco_records import clean_text, required_id
from synthgen.formats.readers._folder_listing import is_folder
from synthgen.formats.readers._ids import is_text_id, parse_id
from synthgen.formats.readers._numbers import parse_flag, parse_float, parse_int, parse_pixels
from synthgen.formats.readers._release import splits_with_files
from synthgen.images.decode import ImageError, find_image, load_rgb, read_image_header
from synthgen.images.packed import open_image
from synthgen.records.box_table import NO_ID
from synthgen.records.rle import encode_mask, rle_area, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Sample

TITLE = "COCO panoptic"
SPLITS = ("train2017", "val2017")
LAYERS = ("annotations", "human")
LOOKS_FOR = (
    "annotations/panoptic_train2017.json or panoptic_val2017.json without files of instances, or a JSON file with "
    "'panoptic' in its name beside the folder of PNG files with this name"
)

_BATCH = 10_000
_MAX_MISSING_SHARE = 0.05  # a larger share without a PNG means a wrong folder
_CITYSCAPES_ID = re.compile(r"([a-z][a-z-]*)_\d{6}_\d{6}")
_SPLIT_AT_END = re.compile(r"(?:^|_)((?:train|val|test)(?:\d{4})?)(?:_trainId)?$")
_THREADS = 16  # reading headers waits for the disk, not for the CPU

log = logging.getLogger(__name__)


# Segments are accepted in any spelling. Only a record without an id is refused, as it belongs to no image. Ids that are
# texts ("ADE_val_00000001") do not fit the types; `coerce` reads them.
_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Image(msgspec.Struct):
    id: _Id
    file_name: str = ""
    height: Any = None
    width: Any = None
    id_text: str = msgspec.field(default="", name="")  # no exporter writes an empty key

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> _Image:
        """An image in any spelling; ValueError without an id."""
        text = clean_text(value["id"][:200]) if isinstance(value.get("id"), str) else ""
        return cls(
            required_id(value, "id"), clean_text(value.get("file_name")), value.get("height"), value.get("width"), text
        )


class _Segment(msgspec.Struct):
    id: Any = None
    category_id: Any = None
    bbox: Any = None
    iscrowd: Any = 0


class _Segments(msgspec.Struct):
    image_id: _Id
    file_name: str = ""
    segments_info: list[_Segment] | None = None

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> _Segments:
        """The segments of an image in any spelling; ValueError without its id, or for segments that are no objects."""
        try:
            segments = msgspec.convert(value.get("segments_info"), list[_Segment] | None)
        except msgspec.ValidationError as why:
            raise ValueError(f"its 'segments_info': {why}") from None
        return cls(required_id(value, "image_id"), clean_text(value.get("file_name")), segments)


class _Category(msgspec.Struct):
    id: _Id
    name: str = ""
    isthing: bool | int | None = 1

    @classmethod
    def coerce(cls, value: dict[str, Any]) -> _Category:
        """A category in any spelling; ValueError without an id."""
        isthing = parse_flag(value.get("isthing", 1))
        return cls(required_id(value, "id"), clean_text(value.get("name")), isthing)


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the release's folder `path`, if it has no files of instances; or the split of a panoptic file.

    A file has "panoptic" in its name, and the folder of its PNGs beside it.
    """
    if not path.is_dir():
        is_own = (
            "panoptic" in path.stem and is_folder(path.with_suffix("")) and looks_like_coco(path, with_segments=True)
        )
        named = _SPLIT_AT_END.search(path.stem)
        return (named[1] if named else SPLITS[0],) if is_own else None
    found = splits_with_files(path, SPLITS, files) or ()
    return tuple(s for s in found if not (path / "annotations" / f"instances_{s}.json").is_file()) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The release's layout below `root`, or the JSON that `annotations` names with the PNG folder beside it.

    Images are COCO's: root/<split>, or <split> in `coco` beside root. Those of another JSON may be in <split> beside
    its folder, or where ADE20K and Cityscapes have them.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: another JSON of segments; None = the release's.

    Raises:
        SynthgenError: there is no such JSON.
    """
    json = annotations or root / "annotations" / f"panoptic_{split}.json"
    if not json.is_file():
        raise SynthgenError(f"no file {json}; put the release's JSON there, or name it with --annotations")
    folder = json.with_suffix("")
    return DatasetFiles(
        sources={"panoptic": json, **({"segments": folder} if folder.is_dir() else {})},
        image_folder=_find_image_folder(root, split, json),
        layer_sources={"annotations": ("panoptic",)},  # boxes do not need the PNGs
    )


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """Stream images and segments; for layer "human" each payload is the name of the image's PNG.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: the file is not such JSON; or, for layer "human", the folder of PNGs is missing or lacks more
            than 5 % of them.
    """
    pngs = _PngChecker(_find_png_folder(files)) if layer == "human" else None
    path = files.sources["panoptic"]
    missing = {"images", "annotations"}
    categories: list[_Category] = []
    for key, found in stream_records(
        path, {"images": _Image, "annotations": _Segments, "categories": _Category}, on_bytes=files.on_bytes
    ):
        missing.discard(key)
        for start in range(0, len(found), _BATCH):
            some = found[start : start + _BATCH]
            if key == "images":
                yield _image_batch(some)
            elif key == "annotations":
                _check_segments_info(some, path)
                if pngs is not None:
                    pngs.check(some)
                yield _annotation_batch(some, payloads=pngs is not None)
            else:
                categories += some
    if missing:
        raise SynthgenError(f"{path} has no '{min(missing)}'; a panoptic file has 'images' and 'annotations'")
    if pngs is not None:
        pngs.raise_if_many_missing()
    yield _make_categories(categories)


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "human": each segment gets the pixels of its colour.

    A segment whose colour is not in the PNG, or whose PNG cannot be used, is flagged `bad_segmentation`: its box stays.

    Args:
        files: the dataset's files; they name the folder of the PNGs.
        layer: not used, as only layer "human" has payloads.
    """
    folder = _find_png_folder(files)

    def with_masks(sample: Sample, payloads: list[bytes | None]) -> Sample:
        ids: dict[bytes | None, NDArray[np.int32] | None] = {
            png: _load_segment_ids(folder, png, sample) for png in dict.fromkeys(payloads)
        }
        masked = (_with_mask(a, ids[png]) for a, png in zip(sample.annotations, payloads, strict=True))
        return replace(sample, annotations=tuple(masked))

    return with_masks


def _find_image_folder(root: Path, split: str, json: Path) -> Path:
    """The first place that has the file's first photograph, else the first one; `gtFine/val` has only label maps."""
    above = json.absolute().parent.parent
    places = (
        above / "leftImg8bit" / split,  # beside gtFine/ of Cityscapes
        json.parent / "images" / {"train": "training", "val": "validation"}.get(split, split),  # ADEChallengeData2016/
        find_coco_image_folder(root, (split,)) / split,
        above / split,  # beside annotations/
    )
    found = list({place.absolute(): place for place in places if place.is_dir()}.values())
    if len(found) > 1 and (name := _first_file_name(json)) is not None:
        found = [place for place in found if _has_image(place, name)] or found
    return found[0] if found else root


def _first_file_name(json: Path) -> str | None:
    """The name of the first photograph of a file; None if the file cannot be read, which `read` will say."""
    try:
        for _, found in stream_records(json, {"images": _Image}):
            if found:
                return _file_name(found[0])
    except SynthgenError:
        pass
    return None


def _has_image(folder: Path, name: str) -> bool:
    try:
        find_image(folder, name)
    except ImageError:
        return False
    return True


def _find_png_folder(files: DatasetFiles) -> Path:
    folder = files.sources["panoptic"].with_suffix("")
    if not folder.is_dir():
        remedy = f"unzip {folder}.zip there" if folder.with_suffix(".zip").is_file() else "put the PNGs there"
        raise SynthgenError(f"no folder {folder}, and layer 'human' takes its masks from the PNGs in it; {remedy}")
    return folder


class _PngChecker:
    """Counts missing or unreadable PNGs before any are decoded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images, self.missing, self.example = folder, 0, 0, ""

    def check(self, found: list[_Segments]) -> None:
        """Check the PNGs of some images; one without segments needs none."""
        names = [record.file_name for record in found if record.segments_info]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="look") as pool:
            for name, there in zip(names, pool.map(self._is_readable, names), strict=True):
                self.images += 1
                self.missing += not there
                self.example = self.example or ("" if there else name)

    def raise_if_many_missing(self) -> None:
        if self.missing and self.missing / self.images > _MAX_MISSING_SHARE:
            raise SynthgenError(
                f"{self.missing:,} of {self.images:,} images have no readable PNG of their segments in {self.folder}, "
                f"e.g. {self.example or 'one that the file gives no name'}; put the whole release there and run the "
                "same command again; nothing was committed"
            )

    def _is_readable(self, name: str) -> bool:
        """Whether a PNG exists, opens, and has the end marker; no decoding."""
        try:
            path = find_image(self.folder, name)
            read_image_header(path)
            with open_image(path) as file:
                is_png = file.read(4) == b"\x89PNG"
                file.seek(max(0, file.seek(0, os.SEEK_END) - 64))
                return not is_png or b"IEND" in file.read()
        except (ImageError, OSError):
            return False


def _load_segment_ids(folder: Path, png: bytes | None, sample: Sample) -> NDArray[np.int32] | None:
    """Segment id of every pixel, int32 [H, W] in column-major memory (as RLE runs); None if the PNG cannot be used."""
    if png is None or not sample.height * sample.width:  # a mask has the size of its image
        return None
    try:
        rgb = load_rgb(find_image(folder, png.decode()), sample.height, sample.width)
    except ImageError as why:
        log.warning("image %d has no usable PNG of segments: %s %s", sample.image_id, png.decode(), why)
        return None
    red, green, blue = np.moveaxis(rgb.astype(np.int32), 2, 0)
    return np.asfortranarray(red + 256 * green + 65536 * blue)


def _with_mask(annotation: Annotation, ids: NDArray[np.int32] | None) -> Annotation:
    # Colour 0 means "no segment", so a segment with that id has no pixels.
    rle = None if ids is None or annotation.id == 0 else encode_mask(ids == annotation.id)
    if rle is None or not rle_area(rle):
        return replace(annotation, flags=tuple(sorted({*annotation.flags, "bad_segmentation"})))
    masked = replace(annotation, segmentation=rle, mask_source="human")
    if "no_box" in annotation.flags:
        x1, y1, x2, y2 = rle_bbox_xyxy(rle)
        masked = replace(masked, bbox=(x1, y1, x2 - x1, y2 - y1))
    return masked


def _check_segments_info(found: list[_Segments], path: Path) -> None:
    for record in found:
        if record.segments_info is None:
            raise SynthgenError(
                f"{path} lists no 'segments_info' for image {record.image_id}, and a panoptic file has its segments "
                "there; give a file of instances as --dataset coco or coco-json"
            )


def _image_batch(found: list[_Image]) -> ImageBatch:
    ids, texts = [image.id for image in found], [image.id_text for image in found]
    return ImageBatch(
        image_id=np.array(ids, np.int64),
        file_name=[_file_name(image) for image in found],
        image_key=[
            coco_key_from_name(image.id, image.file_name) or key_from_text_id(image.id_text, image.file_name)
            for image in found
        ],
        height=np.array([parse_pixels(image.height) for image in found], np.int32),
        width=np.array([parse_pixels(image.width) for image in found], np.int32),
        id_text=texts if any(texts) else None,
    )


def _file_name(image: _Image) -> str:
    """The name of a photograph below the image folder.

    The tool of Cityscapes writes `bonn_000001_000002_gtFine_leftImg8bit.png` for the id `bonn_000001_000002`. No file
    has this name; the photograph is `bonn/bonn_000001_000002_leftImg8bit.png`
    (https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/preparation/createPanopticImgs.py).
    """
    city = _CITYSCAPES_ID.fullmatch(image.id_text)
    if city is not None and image.file_name == f"{image.id_text}_gtFine_leftImg8bit.png":
        return f"{city[1]}/{image.id_text}_leftImg8bit.png"
    return coco_file_name(image.id, image.file_name)


def _annotation_batch(found: list[_Segments], *, payloads: bool) -> AnnotationBatch:
    rows = [(image.image_id, image.file_name, segment) for image in found for segment in image.segments_info or ()]
    bbox = np.array([_parse_box(segment.bbox) for *_, segment in rows], np.float64).reshape(-1, 4)
    categories = [parse_id(segment.category_id) for *_, segment in rows]
    return AnnotationBatch(
        image_id=np.array([image_id for image_id, *_ in rows], np.int64),
        id=np.array([_segment_id(segment.id) for *_, segment in rows], np.int64),
        bbox=bbox,
        category=np.array([NO_ID if c is None else c for c in categories], np.int64),
        iscrowd=np.array([parse_flag(segment.iscrowd) for *_, segment in rows], np.bool_),
        flags={"no_box": np.asarray(np.isnan(bbox).any(axis=1), np.bool_)},
        payload=[name.encode("utf-8", "replace") or None for _, name, _ in rows] if payloads else None,
    )


def _make_categories(found: list[_Category]) -> Categories:
    return Categories(
        {c.id: c.name.strip() for c in found if c.name.strip()},
        stuff=frozenset(c.id for c in found if not c.isthing),
        padded={c.id: c.name for c in found if c.name != c.name.strip()},
        has_file_ids=not any(is_text_id(c.id) for c in found),
    )


def _parse_box(bbox: object) -> tuple[float, float, float, float]:
    values = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None] * 4
    return (parse_float(values[0]), parse_float(values[1]), parse_float(values[2]), parse_float(values[3]))


def _segment_id(value: object) -> int:
    """A segment's id; 0, which means no segment, if it has none."""
    return parse_int(value) or 0
