"""The records of COCO-style files: images, annotations, categories and licences, and the file that holds them."""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from synthgen.errors import SynthgenError
from synthgen.export.exporters import ExportCategory, ExportContext
from synthgen.records.sample import Annotation, Sample, mask_provenance

#: Scores of a mask that a file carries beside it.
SCORES = ("predicted_iou", "stability_score", "box_iou", "sam_predicted_iou", "soft_iou")

_encode = msgspec.json.Encoder().encode


class CocoFile:
    """A COCO-style file that is written annotation by annotation.

    Memory: 8 bytes for each id. The images go to a second file first, as the annotations are the larger part.

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
        self._file = path.open("xb", buffering=2**20)
        self._images = tempfile.TemporaryFile("w+b", buffering=2**18, dir=path.parent)  # noqa: SIM115 - as above
        self._file.write(b'{"annotations": [')

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
        self._images.write((b",\n" if self._image_ids else b"\n") + _encode(record | (image_members or {})))
        self._image_ids.append(image_id)
        written = []
        for annotation, area in zip(annotations, areas, strict=True):
            segmentation = None
            if annotation.segmentation is not None:
                segmentation = self._make_segmentation(annotation)
                if segmentation is None:
                    continue
            number = len(self._ids) + 1 if self.renumber else annotation.id
            own = annotation_record(annotation, number, image_id, segmentation, area)
            self._file.write((b",\n" if self._ids else b"\n") + _encode(own))
            self._ids.append(number)
            written.append(annotation)
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
        self._file.write(b'],\n"images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._file, 2**16)
        self._file.write(b'],\n"categories": ' + _encode(categories) + b',\n"licenses": ' + _encode(licenses))
        self._file.write(b',\n"info": ' + _encode(info) + b"}\n")
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._images.close()


def annotation_record(
    annotation: Annotation, number: int, image_id: int, segmentation: Any, pixels: int
) -> dict[str, Any]:
    """COCO's record of an annotation, with what we know beside it.

    Args:
        annotation: the annotation; its `category_id` is that of the file.
        number: its id in the file.
        image_id: the id of its image in the file.
        segmentation: the member of this name; None = none.
        pixels: number of pixels of the mask.
    """
    mask = annotation.segmentation
    record: dict[str, Any] = {
        "id": number,
        "image_id": image_id,
        "category_id": annotation.category_id,
        "bbox": annotation.bbox,
        "area": coco_area(annotation, pixels),
        "iscrowd": int(annotation.iscrowd),
    }
    if segmentation is not None:
        record["segmentation"] = segmentation
    if mask is not None:
        for name in SCORES:
            score = getattr(annotation, name)
            if score is not None and score == score:
                record[name] = score
        if annotation.mask_source is not None:
            record["mask_source"] = annotation.mask_source
        record["provenance"] = mask_provenance(annotation)
    if annotation.captions:
        record["captions"] = [caption.text for caption in annotation.captions]
    if annotation.flags:
        record["flags"] = annotation.flags
    return record


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


def rle_segmentation(annotation: Annotation) -> dict[str, Any] | None:
    """The mask of `annotation` as a compressed RLE; None without a mask."""
    mask = annotation.segmentation
    return None if mask is None else {"size": mask.size, "counts": mask.counts.decode("ascii")}


def category_record(category: ExportCategory) -> dict[str, Any]:
    """COCO's record of `category`."""
    own: dict[str, Any] = {"id": category.id, "name": category.name}
    return own | ({"supercategory": category.supercategory} if category.supercategory else {})


def license_records(context: ExportContext) -> list[dict[str, Any]]:
    """COCO's records of the licences of `context`."""
    return [{"id": one.id, "name": one.name, "url": one.url} for one in context.licenses]


class MaskCounter:
    """Counts the masks of a file by who drew them.

    Attributes:
        provenance: number of masks by `mask_provenance`.
        models: the `mask_source` of all masks that a model drew.
    """

    def __init__(self) -> None:
        self.provenance, self.models = Counter[str](), set[str]()

    def add(self, annotations: Sequence[Annotation]) -> None:
        """Count the masks of some `annotations`."""
        for annotation in annotations:
            if (provenance := mask_provenance(annotation)) is not None:
                self.provenance[provenance] += 1
                if provenance != "human" and annotation.mask_source:
                    self.models.add(annotation.mask_source)


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
        "provenance": dict(sorted(masks.provenance.items())),
        "models": sorted(masks.models),
    }
    return {"description": context.description, "synthgen": own}
