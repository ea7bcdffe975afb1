"""Label Studio: tasks of a split in <split>.json, labeling_config.xml for the project, images in images/<split>/.

Masks that a model drew are `predictions`, one for each model, with the mean of its scores: people see them, and accept
or change them. Masks that a person drew or checked are in the task's annotation, with the boxes of annotations without
a mask, as far as they are inside the image. A region's `meta` holds the annotation's box, the scores, the provenance,
and the captions as its text.

A mask is of the brush, with every pixel. With `shape=polygon` it is one polygon, whose parts and holes are joined by
lines: Label Studio has no groups of polygons. Coordinates are percent of the image.

A task names its image by `image_prefix` and its path in this folder, or, where the images stay in their place, its path
below their folder. The usual prefix is that of local storage: start Label Studio with LOCAL_FILES_SERVING_ENABLED=true
and LOCAL_FILES_DOCUMENT_ROOT set to this folder, and add the folder images/ as local storage of the project.

Format: https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import msgspec

from synthgen.errors import ArgumentError, shorten_value
from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._brush_rle import encode_brush_rle
from synthgen.export.exporters._polygon_loss import PolygonLoss, check_tolerance
from synthgen.export.exporters._tool_labels import ToolLabels, mask_scores
from synthgen.plugin_options import option
from synthgen.records.rle import decode_mask_window
from synthgen.records.sample import Annotation, Sample, mask_provenance

TITLE = "Label Studio"
IMAGES = "link"
FLAT_IMAGES = False

#: Kind of region -> its tag in the labeling config.
_TAGS = {"brush": "BrushLabels", "polygon": "PolygonLabels", "rectangle": "RectangleLabels"}

#: Who drew a region, in Label Studio's words.
_ORIGINS = {"machine": "prediction", "reviewed": "prediction-changed", "human": "manual", None: "manual"}

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class LabelStudioOptions:
    """Options of the exporter `labelstudio`.

    Raises:
        ArgumentError: a value is not valid.
    """

    shape: str = option("brush", metavar="brush|polygon", help="How masks are written; polygons are easier to edit")
    tolerance: float = option(1.0, help="How far a polygon may be from the mask's outline, in pixels")
    image_prefix: str = option(
        "/data/local-files/?d=", help="What stands before the path of an image, such as s3://bucket/"
    )

    def __post_init__(self) -> None:
        if self.shape not in ("brush", "polygon"):
            raise ArgumentError(f"shape={shorten_value(self.shape)} is not valid; give brush or polygon")
        check_tolerance(self.tolerance)


OPTIONS = LabelStudioOptions


class LabelStudioExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: LabelStudioOptions) -> None:
        self._context, self._options = context, options
        # Label Studio replaces "$word" in a label by a value of the task.
        self._labels = ToolLabels(context.categories, {"$": "\uff04"})
        self._licenses = {one.id: one.name for one in context.licenses}
        self._loss = PolygonLoss()
        self._left_out = Counter[str]()
        self._kinds = {options.shape}
        self._files: dict[str, BinaryIO] = {}
        self._counts = dict.fromkeys(context.splits, 0)
        for split in context.splits:
            self._files[split] = (context.folder / f"{split}.json").open("xb", buffering=2**20)
            self._files[split].write(b"[")

    def image_folder(self, split: str) -> str:
        """A folder for each `split` in the folder that local storage serves."""
        return f"images/{split}"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the `item` to the file of its split, as a task."""
        sample = item.sample
        drawn: list[dict[str, Any]] = []
        predicted: dict[str, list[dict[str, Any]]] = {}
        taken: set[str] = set()
        written: list[Annotation] = []
        for annotation in sample.annotations:
            region = self._region(annotation, sample, taken)
            if region is None:
                continue
            written.append(annotation)
            if region["origin"] == "prediction":
                predicted.setdefault(annotation.mask_source or "unknown", []).append(region)
            else:
                drawn.append(region)
        task = {
            "id": sample.image_id,
            "data": {
                "image": self._image_reference(item),
                "file_name": sample.file_name,
                "license": self._licenses.get(sample.license_id or 0, ""),
            },
            "annotations": [{"result": drawn, "was_cancelled": False, "ground_truth": False}] if drawn else [],
            "predictions": [_prediction(model, regions) for model, regions in predicted.items()],
        }
        self._files[item.split].write((b",\n" if self._counts[item.split] else b"\n") + _encode(task))
        self._counts[item.split] += 1
        return written

    def finish(self) -> ExportNotes:
        """Write the labeling config, and end the lists of tasks."""
        for file in self._files.values():
            file.write(b"\n]\n")
        self.close()
        with (self._context.folder / "labeling_config.xml").open("x", encoding="utf-8", newline="\n") as config:
            config.writelines(f"{line}\n" for line in self._config())
        return ExportNotes(dict(self._left_out), (*self._labels.lines(), *self._loss.lines()), self._loss.figures())

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def _image_reference(self, item: ExportItem) -> str:
        prefix = self._options.image_prefix
        in_place = self._context.images == "none"
        path = item.file_name if in_place else f"{self.image_folder(item.split)}/{item.file_name}"
        # Buckets take the name as it is; a server decodes it.
        is_url = prefix.startswith(("/", "http://", "https://"))
        return prefix + (quote(path, errors="replace") if is_url else path)

    def _region(self, annotation: Annotation, sample: Sample, taken: set[str]) -> dict[str, Any] | None:
        """The region of an annotation; None = it has neither a mask nor a box in an image of known size."""
        shape = self._shape(annotation, sample)
        if shape is None:
            return None
        kind, value = shape
        self._kinds.add(kind)
        name = f"{kind}labels"
        number = str(annotation.id)
        while number in taken:  # results with one id are one region
            number += "+"
        taken.add(number)
        provenance = mask_provenance(annotation)
        scores = mask_scores(annotation)
        region: dict[str, Any] = {
            "id": number,
            "type": name,
            "from_name": kind,
            "to_name": "image",
            "original_width": sample.width,
            "original_height": sample.height,
            "image_rotation": 0,
            "origin": _ORIGINS[provenance],
            "value": {**value, name: [self._labels.label(annotation)]},
        }
        if (score := _score(scores)) is not None:
            region["score"] = score
        meta: dict[str, Any] = {}
        if annotation.captions:
            meta["text"] = [caption.text for caption in annotation.captions]
        if all(map(math.isfinite, annotation.bbox)):
            meta["bbox"] = annotation.bbox
        if provenance is not None:
            meta |= {
                "provenance": provenance,
                **({"mask_source": annotation.mask_source} if annotation.mask_source else {}),
            }
        if annotation.iscrowd:
            meta["iscrowd"] = 1
        return region | {"meta": meta | scores}

    def _shape(self, annotation: Annotation, sample: Sample) -> tuple[str, dict[str, Any]] | None:
        """The kind of a region and its geometry; None = it has none."""
        width, height = sample.width, sample.height
        if annotation.segmentation is None:
            box = _percent_box(annotation.bbox, width, height)
            if isinstance(box, str):
                self._left_out[box] += 1
                return None
            return "rectangle", box
        window = decode_mask_window(annotation.segmentation)
        if self._options.shape == "brush":
            return "brush", {"format": "rle", "rle": encode_brush_rle(window, height, width)}
        [ring] = self._loss.draw(window, self._options.tolerance, single=True)
        return "polygon", {"points": (100 * ring / (width, height)).tolist(), "closed": True}

    def _config(self) -> Iterator[str]:
        """The lines of the labeling config, with the tags of the regions that were written."""
        yield "<View>"
        yield '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>'
        for kind, tag in _TAGS.items():
            if kind in self._kinds:
                yield f'  <{tag} name="{kind}" toName="image">'
                for label, color in self._labels.colors.items():
                    yield f'    <Label value={quoteattr(label)} background="{color}"/>'
                yield f"  </{tag}>"
        yield "</View>"


def build(context: ExportContext, options: LabelStudioOptions) -> LabelStudioExporter:
    """Make the exporter for `context` with the `options`."""
    return LabelStudioExporter(context, options)


def _prediction(model: str, regions: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [region["score"] for region in regions if "score" in region]
    mean = {"score": sum(scores) / len(scores)} if scores else {}
    return {"model_version": model, **mean, "result": regions}


def _percent_box(bbox: tuple[float, float, float, float], width: int, height: int) -> dict[str, float] | str:
    """The part of a box that is inside an image, in percent, as Label Studio refuses the rest; or why there is none.

    Args:
        bbox: XYWH, absolute pixels.
        width: of the image, in pixels; 0 = unknown.
        height: of the image, in pixels; 0 = unknown.
    """
    if not width or not height:
        return "no_image_size"
    if not all(map(math.isfinite, bbox)):
        return "no_box"
    x, y, w, h = bbox
    left, right = (100 * min(max(side, 0), width) / width for side in (x, x + w))
    top, bottom = (100 * min(max(side, 0), height) / height for side in (y, y + h))
    if left >= right or top >= bottom:
        return "outside_image"
    return {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}


def _score(scores: dict[str, float]) -> float | None:
    """The segmenter's estimate of a mask's IoU, in [0, 1] as Label Studio demands."""
    score = scores.get("predicted_iou", scores.get("soft_iou"))
    return None if score is None else min(max(score, 0.0), 1.0)
