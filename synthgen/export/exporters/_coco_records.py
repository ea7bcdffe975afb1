"""The records of COCO-style files: images, annotations, categories and licences, and the file that holds them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from synthgen.errors import SynthgenError
from synthgen.export.exporters import ExportCategory, ExportContext
from synthgen.export.mask_counter import MaskCounter
from synthgen.records.sample import Annotation, Sample, mask_provenance
from synthgen.storage.coco_stream import CocoStream

_encode = msgspec.json.Encoder().encode


class CocoFile:
    """A COCO-style file that is written annotation by annotation.

    Memory: 8 bytes for each id.

    Args:
        path: the JSON file, new; its folder is created.
        renumber: number images and annotations from 1.
        make_segmentation: the value of `segmentation` for an annotation with a mask; None = it cannot be written.
    """

    def __init__(
        self, path: Path, *, renumber: bool, make_segmentation: Callable[[Annotation], Any] | None = None
    ) -> None:
        self.path, self.renumber = path, renumber
        self._make_segmentation = make_segmentation or rle_segmentation
        self._image_ids, self._ids = array("q"), array("q")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = CocoStream(path)

    def write(
        self,
        sample: Sample,
        file_name: str,
        annotations: Sequence[Annotation],
        areas: Sequence[int],
        image_members: dict[str, Any] | None = None,
    ) -> list[Annotation]:
        """Write an image and its annotations, each on a line. Returns the annotations that were written.

        Args:
            sample: the image.
            file_name: its name in the file.
            annotations: those to write.
            areas: number of pixels of the mask of each.
            image_members: further members of the record of the image.
        """
        image_id = len(self._image_ids) + 1 if self.renumber else sample.image_id
        record: dict[str, Any] = {
            "id": image_id,
            "file_name": file_name,
            "height": sample.height,
            "width": sample.width,
        }
        if sample.license_id is not None:
            record["license"] = sample.license_id
        self._stream.images.add(_encode(record | (image_members or {})))
        self._image_ids.append(image_id)
        written, records = [], []
        for annotation, area in zip(annotations, areas, strict=True):
            segmentation = None
            if annotation.segmentation is not None:
                segmentation = self._make_segmentation(annotation)
                if segmentation is None:
                    continue
            number = len(self._ids) + 1 if self.renumber else annotation.id
            records.append(annotation_record(annotation, number, image_id, segmentation, area))
            self._ids.append(number)
            written.append(annotation)
        if records:
            self._stream.annotations.add(_encode(records)[1:-1])
        return written

    def finish(self, info: dict[str, Any], categories: Sequence[dict[str, Any]], licenses: Sequence[Any] = ()) -> None:
        """Write the rest of the file.

        Args:
            info: the member `info`.
            categories: the records of categories.
            licenses: the records of licences.

        Raises:
            SynthgenError: two images or annotations have one id, which readers of COCO do not expect.
        """
        for what, ids in (("images", self._image_ids), ("annotations", self._ids)):
            numbers = np.sort(np.frombuffer(ids, np.int64)) if ids else np.zeros(0, np.int64)
            again = numbers[1:][numbers[1:] == numbers[:-1]]
            if again.size:
                raise SynthgenError(
                    f"two {what} have the id {again[0]}, which COCO does not allow; number them anew: renumber=true"
                )
        members = {"categories": categories, "licenses": licenses, "info": info}
        self._stream.finish({name: _encode(value) for name, value in members.items()})

    def close(self) -> None:
        """Close the files."""
        self._stream.close()


class RleRecord(msgspec.Struct, gc=False):
    """COCO's compressed RLE."""

    size: tuple[int, int]
    counts: str


class AnnotationRecord(msgspec.Struct, omit_defaults=True, gc=False):
    """COCO's record of an annotation, with what we know beside it. What is None is left out."""

    id: int
    image_id: int
    category_id: int | None
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: Any = None
    predicted_iou: float | None = None
    stability_score: float | None = None
    box_iou: float | None = None
    sam_predicted_iou: float | None = None
    soft_iou: float | None = None
    mask_source: str | None = None
    provenance: str | None = None
    captions: list[str] | None = None
    flags: tuple[str, ...] = ()


def annotation_record(
    annotation: Annotation, number: int, image_id: int, segmentation: Any, pixels: int
) -> AnnotationRecord:
    """The record of an annotation.

    Args:
        annotation: the annotation; its `category_id` is that of the file.
        number: its id in the file.
        image_id: the id of its image in the file.
        segmentation: the member of this name; None = none.
        pixels: number of pixels of the mask.
    """
    a = annotation
    record = AnnotationRecord(
        number, image_id, a.category_id, a.bbox, coco_area(a, pixels), 1 if a.iscrowd else 0, segmentation
    )
    if a.captions:
        record.captions = [caption.text for caption in a.captions]
    if a.flags:
        record.flags = a.flags
    if a.segmentation is None:
        return record
    record.predicted_iou = _finite(a.predicted_iou)
    record.stability_score = _finite(a.stability_score)
    record.box_iou = _finite(a.box_iou)
    record.sam_predicted_iou = _finite(a.sam_predicted_iou)
    record.soft_iou = _finite(a.soft_iou)
    record.mask_source = a.mask_source
    record.provenance = mask_provenance(a)
    return record


def _finite(score: float | None) -> float | None:
    """The score, or None for NaN."""
    return score if score == score else None


def coco_area(annotation: Annotation, pixels: int) -> float:
    """COCO's `area`: the source's own for its own mask, or the mask's number of pixels; without a mask, the box's.

    Args:
        annotation: the annotation.
        pixels: number of pixels of the mask.
    """
    if annotation.segmentation is None:
        return max(annotation.bbox[2], 0.0) * max(annotation.bbox[3], 0.0)
    if annotation.area is not None and annotation.mask_source == "human":
        return annotation.area
    return float(pixels)


def rle_segmentation(annotation: Annotation) -> RleRecord | None:
    """The mask of `annotation` as a compressed RLE; None without a mask."""
    mask = annotation.segmentation
    return None if mask is None else RleRecord(mask.size, mask.counts.decode("ascii"))


def category_record(category: ExportCategory) -> dict[str, Any]:
    """COCO's record of `category`."""
    own: dict[str, Any] = {"id": category.id, "name": category.name}
    return own | ({"supercategory": category.supercategory} if category.supercategory else {})


def license_records(context: ExportContext) -> list[dict[str, Any]]:
    """COCO's records of the licences of `context`."""
    return [{"id": one.id, "name": one.name, "url": one.url} for one in context.licenses]


def info_record(context: ExportContext, masks: MaskCounter) -> dict[str, Any]:
    """The member `info`: what made the file, and who drew the masks.

    Args:
        context: of the export.
        masks: of the file.
    """
    own = {
        "version": context.version,
        "layer": context.layer,
        "recipe": dict(context.recipe),
        "provenance": masks.provenance,
        "models": list(masks.models),
    }
    return {"description": context.description, "synthgen": own}
