"""Writes a layer as a COCO instances JSON."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from synthgen.errors import SynthgenError
from synthgen.records.rle import check_rle, rle_area, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.atomic import atomic_write, check_writable

#: What an error about the file suggests.
_REMEDY = "choose another path"

_SCORES = ("predicted_iou", "stability_score", "box_iou", "sam_predicted_iou", "soft_iou")


@dataclass(frozen=True, slots=True)
class CocoExport:
    """What was written.

    Attributes:
        path: the file.
        images, annotations, categories: number of each.
        left_out: reason -> number of annotations that are not in the file: "no_mask" (only with `masks_only`), and
            "no_box": the box is not finite, and there is no mask to read one off.
    """

    path: Path
    images: int
    annotations: int
    categories: int
    left_out: Mapping[str, int]


def write_coco(
    path: Path,
    samples: Iterable[Sample],
    categories: Sequence[str],
    description: str,
    *,
    masks_only: bool = False,
    renumber: bool = False,
) -> CocoExport:
    """Write samples as a COCO instances JSON, atomically; see `Layer.to_coco`.

    Memory: one sample, 8 bytes for each id, and the names of categories.

    Args:
        path: the JSON file.
        samples: the images with their annotations.
        categories: the names of the dataset's categories, in the order of their ids.
        description: goes into `info`.
        masks_only: as in `Layer.to_coco`.
        renumber: as in `Layer.to_coco`.

    Raises:
        SynthgenError: two images or annotations have one id, a mask is damaged, or the file cannot be written.
    """
    check_writable(path, remedy=_REMEDY)
    writer = _CocoWriter(categories, masks_only=masks_only, renumber=renumber)
    # The annotations are the larger part, so they go to the file at once, and the images to a second one.
    with (
        atomic_write(path, remedy=_REMEDY) as temporary,
        temporary.open("w", encoding="ascii") as file,
        tempfile.TemporaryFile("w+", encoding="ascii", dir=path.parent) as images,
    ):
        file.write(f'{{"info": {_to_json({"description": description})},\n"annotations": [')
        for sample in samples:
            writer.write(sample, images, file)
        images.seek(0)
        file.write('],\n"images": [')
        shutil.copyfileobj(images, file)
        file.write(f'],\n"categories": {_to_json(writer.categories())}}}\n')
        file.flush()
        writer.check_ids()
    return CocoExport(path, len(writer.image_ids), len(writer.ids), len(writer.category_ids), dict(writer.left_out))


class _CocoWriter:
    """Writes the records of samples, and remembers ids and names."""

    def __init__(self, categories: Sequence[str], *, masks_only: bool, renumber: bool) -> None:
        self.masks_only, self.renumber = masks_only, renumber
        self.category_ids = {name: number for number, name in enumerate(dict.fromkeys(categories), start=1)}
        self.image_ids, self.ids = array("q"), array("q")
        self.left_out = Counter[str]()

    def write(self, sample: Sample, images: IO[str], annotations: IO[str]) -> None:
        """Write an image and its annotations, each on a line."""
        image_id = len(self.image_ids) + 1 if self.renumber else sample.image_id
        record = {"id": image_id, "file_name": sample.file_name, "height": sample.height, "width": sample.width}
        images.write(("\n" if not self.image_ids else ",\n") + _to_json(record))
        self.image_ids.append(image_id)
        for annotation in sample.annotations:
            if self.masks_only and annotation.segmentation is None:
                self.left_out["no_mask"] += 1
                continue
            try:
                own = self._annotation_record(annotation, sample)
            except SynthgenError as why:
                raise SynthgenError(
                    f"annotation {annotation.id} of image {sample.file_name}: {why}; make its shard again"
                ) from None
            if own is None:
                self.left_out["no_box"] += 1
                continue
            own = {"id": len(self.ids) + 1 if self.renumber else annotation.id, "image_id": image_id, **own}
            annotations.write(("\n" if not self.ids else ",\n") + _to_json(own))
            self.ids.append(own["id"])

    def categories(self) -> list[dict[str, Any]]:
        """The records of categories."""
        return [{"id": number, "name": name} for name, number in self.category_ids.items()]

    def check_ids(self) -> None:
        """Refuse an id that two records have: readers of COCO keep one of the two.

        Raises:
            SynthgenError: with the id.
        """
        for what, ids in (("images", self.image_ids), ("annotations", self.ids)):
            numbers = np.sort(np.frombuffer(ids, np.int64)) if ids else np.zeros(0, np.int64)
            again = numbers[1:][numbers[1:] == numbers[:-1]]
            if again.size:
                raise SynthgenError(f"two {what} have the id {again[0]}, which COCO does not allow; add renumber=True")

    def _annotation_record(self, annotation: Annotation, sample: Sample) -> dict[str, Any] | None:
        """The record without ids; None if there is neither a finite box nor a mask.

        Args:
            annotation: the annotation.
            sample: its image.

        Raises:
            SynthgenError: the mask is damaged, or not of the image's size.
        """
        box, mask = annotation.bbox, annotation.segmentation
        record: dict[str, Any] = {}
        if mask is not None:
            check_rle(mask)
            if tuple(mask.size) != (sample.height, sample.width):
                raise SynthgenError(
                    f"its mask is {mask.size[0]} x {mask.size[1]}, not {sample.height} x {sample.width}"
                )
            record["segmentation"] = {"size": list(mask.size), "counts": mask.counts.decode("ascii")}
            area = float(rle_area(mask))
            if not all(map(math.isfinite, box)):
                x1, y1, x2, y2 = rle_bbox_xyxy(mask)
                box = (x1, y1, x2 - x1, y2 - y1)
        elif all(map(math.isfinite, box)):
            area = max(box[2], 0.0) * max(box[3], 0.0)
        else:
            return None
        category = self.category_ids.setdefault(annotation.category, len(self.category_ids) + 1)
        record |= {"category_id": category, "bbox": list(box), "area": area, "iscrowd": int(annotation.iscrowd)}
        scores = {name: getattr(annotation, name) for name in _SCORES}
        record |= {name: score for name, score in scores.items() if score is not None and math.isfinite(score)}
        if annotation.mask_source is not None:
            record["mask_source"] = annotation.mask_source
        if annotation.captions:
            record["captions"] = [caption.text for caption in annotation.captions]
        if annotation.flags:
            record["flags"] = list(annotation.flags)
        return record


def _to_json(value: Any) -> str:
    """ASCII, so that a name from a stranger is text in every reader."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
