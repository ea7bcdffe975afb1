"""Label Studio's tasks: which of their annotations counts, which image they are about, and their regions as objects."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from synthgen.formats.readers._brush_rle import decode_brush_rle
from synthgen.formats.readers._numbers import parse_float, parse_pixels
from synthgen.formats.readers._object_rows import label_text
from synthgen.formats.readers._shapes import Shape, box_from_size, ellipse, mask_in_window, polygon, rotated_box
from synthgen.images.paths import IMAGE_SUFFIXES

_IMAGE_KEYS = ("image", "img", "photo", "picture", "image_url", "url", "file", "path")
_FULL_KEYS = frozenset({"annotations", "completions", "predictions", "data"})
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(.+)")
_STORED_PATH = re.compile(r"/local-files/?\?(?:[^#]*&)?d=([^&#]*)")
_MAX_PARTS = 8  # of a path that are tried
_MAX_NAME = 4_096


class LabelStudioTask(NamedTuple):
    """A task.

    Attributes:
        image: the reference to its image; "" if there is none.
        upload: the name of the uploaded file, if the task has one.
        results: the regions of the annotation that counts; None = there is none.
        others: how many other annotations it has that were not cancelled.
        predictions: how many regions models predicted.
        is_skipped: an annotator skipped it, and it has no other annotation.
        is_ambiguous: its image is a list of several.
    """

    image: str
    upload: str
    results: list[Any] | None
    others: int
    predictions: int
    is_skipped: bool = False
    is_ambiguous: bool = False


class LabelStudioRegion(NamedTuple):
    """A region: its kind ("rectangle", "polygon", ...), its geometry, its labels, its image's (height, width)."""

    kind: str
    value: dict[str, Any]
    labels: list[str]
    size: tuple[int, int]


def is_minimal(task: dict[str, Any]) -> bool:
    """Whether a task is in JSON-MIN: values and regions by the names of tags, one record an annotation."""
    return not _FULL_KEYS & task.keys()


def read_task(task: dict[str, Any]) -> LabelStudioTask:
    """A task of an export, in JSON or JSON-MIN."""
    if is_minimal(task):
        image, is_ambiguous = _image_reference(task)
        results = [
            {"value": region, "id": (key, number)}
            for key, value in task.items()
            if isinstance(value, list)
            for number, region in enumerate(value)
            if isinstance(region, dict)
        ]
        return LabelStudioTask(image, "", results, 0, 0, is_ambiguous=is_ambiguous)
    data = task.get("data")
    image, is_ambiguous = _image_reference(data if isinstance(data, dict) else {})
    given = [one for one in _list(task.get("annotations") or task.get("completions")) if isinstance(one, dict)]
    valid = [one for one in given if one.get("was_cancelled") is not True and one.get("skipped") is not True]
    chosen = max(valid, key=annotation_rank) if valid else None
    predicted = [one for one in _list(task.get("predictions")) if isinstance(one, dict)]
    return LabelStudioTask(
        image,
        label_text(task.get("file_upload")),
        _list(chosen.get("result")) if chosen is not None else None,
        max(len(valid) - 1, 0),
        sum(len(_list(one.get("result"))) for one in predicted),
        len(given) > len(valid) and not valid,
        is_ambiguous,
    )


def annotation_rank(annotation: dict[str, Any]) -> tuple[bool, str, float]:
    """The annotation with the highest rank counts: the ground truth, else the newest."""
    when = label_text(annotation.get("updated_at")) or label_text(annotation.get("created_at"))
    number = parse_float(annotation.get("annotation_id", annotation.get("id")))
    return annotation.get("ground_truth") is True, when, number if math.isfinite(number) else 0.0


def image_names(reference: str) -> list[str]:
    """Paths that a reference to an image may stand for, the most likely first.

    References are paths on a server (`/data/upload/1/1a2b3c4d-a.jpg`), local storage (`/data/local-files/?d=b/a.jpg`),
    addresses (s3://bucket/b/a.jpg, https://...), or paths of any system. The whole path is tried first, then without
    its first folders, down to its last part; each also without the prefix of an upload.
    """
    text = reference[:_MAX_NAME].replace("\\", "/")
    try:
        stored = _STORED_PATH.search(text)
        is_address = "://" in text or text.startswith("/data/")
        path = unquote(stored[1]) if stored else unquote(urlsplit(text).path) if is_address else text
    except ValueError:  # not a valid address
        path = text
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    if parts and re.fullmatch(r"[A-Za-z]:", parts[0]):
        parts = parts[1:]
    names = ["/".join(parts[start:]) for start in range(max(len(parts) - _MAX_PARTS, 0), len(parts))]
    uploaded = _UPLOAD_PREFIX.fullmatch(parts[-1]) if parts else None
    return [*names, uploaded[1]] if uploaded else names


def read_regions(results: list[Any]) -> Iterator[LabelStudioRegion]:
    """The regions of an annotation. Results with one id are one region: its shape may come apart from its labels."""
    regions: dict[Any, LabelStudioRegion] = {}
    for number, result in enumerate(results):
        one = result if isinstance(result, dict) else {}
        value = one.get("value")
        value = value if isinstance(value, dict) else {}
        kind = _kind(label_text(one.get("type")), value)
        if not kind:
            continue
        height, width = (parse_pixels(one.get(key, value.get(key))) for key in ("original_height", "original_width"))
        found = LabelStudioRegion(kind, value, _labels(value), (height, width))
        own = one.get("id")
        key = own if isinstance(own, str | int | tuple) and own != "" else ("number", number)
        known = regions.setdefault(key, found)
        if known is not found:
            shaped = found if known.kind == "labels" else known
            size = known.size if min(known.size) else found.size
            regions[key] = LabelStudioRegion(shaped.kind, shaped.value, known.labels or found.labels, size)
    yield from regions.values()


def was_turned(results: list[Any]) -> bool:
    """Whether an annotator turned the image in the tool; its coordinates may then be of the turned image."""
    turns = [parse_float(one.get("image_rotation")) for one in results if isinstance(one, dict)]
    return any(math.isfinite(turn) and turn % 360 != 0 for turn in turns)


def region_shape(region: LabelStudioRegion, height: int, width: int) -> tuple[Shape | None, bool]:
    """A region's shape, and whether its kind is an object. Percent become pixels.

    Args:
        region: as the task lists it; untrusted.
        height: of the image in pixels; 0 = unknown, then nothing can be read.
        width: of the image in pixels; 0 = unknown, then nothing can be read.
    """
    value = region.value

    def x(key: str) -> float:
        return parse_float(value.get(key)) * width / 100 if width else math.nan

    def y(key: str) -> float:
        return parse_float(value.get(key)) * height / 100 if height else math.nan

    angle = math.radians(parse_float(value.get("rotation") or 0))
    match region.kind:
        case "rectangle":
            if not math.isfinite(angle):
                return None, True
            if angle == 0:
                return box_from_size(x("x"), y("y"), x("width"), y("height")), True
            cos, sin, w, h = math.cos(angle), math.sin(angle), x("width"), y("height")
            steps = ((0.0, 0.0), (w * cos, w * sin), (w * cos - h * sin, w * sin + h * cos), (-h * sin, h * cos))
            return rotated_box([v for dx, dy in steps for v in (x("x") + dx, y("y") + dy)]), True
        case "polygon":
            pairs = [p if isinstance(p, list) and len(p) == 2 else (None, None) for p in _list(value.get("points"))]
            return polygon(
                [parse_float(v) * side / 100 for p in pairs for v, side in zip(p, (width, height), strict=True)]
            ), True
        case "ellipse":
            return ellipse(x("x"), y("y"), abs(x("radiusX")), abs(y("radiusY")), angle), True
        case "brush":
            try:
                mask = decode_brush_rle(value.get("rle"), height, width)
            except (ValueError, TypeError):
                return None, True
            return mask_in_window(mask, 0, 0, height, width), True
    return None, False


def _kind(type_: str, value: dict[str, Any]) -> str:
    """The kind of a region, of its type, or of its values if these are of a `Labels` tag; "" if it is no region."""
    name = type_.lower().removesuffix("labels") or ("labels" if type_ else "")
    if name in ("rectangle", "polygon", "ellipse", "brush", "keypoint"):
        return name
    if name in ("", "labels"):
        for key, kind in (("rle", "brush"), ("points", "polygon"), ("radiusX", "ellipse"), ("height", "rectangle")):
            if key in value:
                return kind
        return "keypoint" if "x" in value and "y" in value else "labels" if _labels(value) else ""
    return name if type_.lower().endswith("labels") else ""


def _labels(value: dict[str, Any]) -> list[str]:
    """The labels of a region, in a key such as "rectanglelabels"."""
    for key in sorted(value, key=str):
        if key.lower().endswith("labels") and isinstance(value[key], list):
            return [text for one in value[key] if (text := label_text(one)).strip()]
    return []


def _image_reference(data: dict[str, Any]) -> tuple[str, bool]:
    """The reference to a task's image, and whether it is one of several in a list."""
    keys = [key for key in _IMAGE_KEYS if key in data] + [key for key in data if key not in _IMAGE_KEYS]
    texts = [(key, data[key]) for key in keys if isinstance(data[key], str)]
    for key, text in texts:
        if key in _IMAGE_KEYS or any(
            PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in image_names(text)[-1:]
        ):
            return text, False
    for key in keys:
        some = data[key]
        if isinstance(some, list) and some and all(isinstance(one, str) for one in some):
            return some[0], True
    return "", False


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
