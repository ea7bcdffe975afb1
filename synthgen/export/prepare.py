"""The annotations of an image as they are exported: chosen, checked and named, or counted with the reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from synthgen.errors import SynthgenError
from synthgen.export.categories import CategoryTable
from synthgen.export.exporters import ExportCategory
from synthgen.export.options import ExportOptions
from synthgen.images.image_error import utf8_safe
from synthgen.records.rle import check_rle, checked_areas, decode_mask, encode_mask, rle_area, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Rle, Sample


class PreparedSample(NamedTuple):
    """An image with the annotations to export.

    Attributes:
        sample: the image as the layer has it.
        annotations: those to export.
        mask_areas: number of pixels of the mask of each; 0 without a mask.
        present: names of the categories of all its annotations.
    """

    sample: Sample
    annotations: tuple[Annotation, ...]
    mask_areas: tuple[int, ...]
    present: frozenset[str]


class AnnotationPreparer:
    """Prepares the annotations of images.

    Attributes:
        left_out: reason -> number of annotations.

    Args:
        options: what the user asked for.
        table: the categories of the export.
    """

    def __init__(self, options: ExportOptions, table: CategoryTable) -> None:
        self.left_out = Counter[str]()
        self._options, self._table = options, table

    def prepare(self, samples: Sequence[Sample], accepts: Callable[[Annotation], bool]) -> list[PreparedSample]:
        """The annotations of some images that are exported. Their masks are checked together, which is faster.

        Args:
            samples: the images.
            accepts: whether the user wants an annotation.

        Raises:
            SynthgenError: a mask is damaged, or not of the size of its image.
        """
        chosen = [self._choose(sample, accepts) for sample in samples]
        masks = [a.segmentation for own, _ in chosen for a, _ in own if a.segmentation is not None]
        try:
            for sample, (own, _) in zip(samples, chosen, strict=True):
                size = sample.height, sample.width
                if any(a.segmentation is not None and tuple(a.segmentation.size) != size for a, _ in own):
                    raise SynthgenError("a mask is not of the size of its image")
            areas = iter(checked_areas(masks).tolist())
        except SynthgenError:
            for sample, (own, _) in zip(samples, chosen, strict=True):
                for annotation, _ in own:
                    _check_mask(annotation, sample)
            raise
        return [self._finish(sample, *own, areas) for sample, own in zip(samples, chosen, strict=True)]

    def _choose(
        self, sample: Sample, accepts: Callable[[Annotation], bool]
    ) -> tuple[list[tuple[Annotation, ExportCategory]], frozenset[str]]:
        """The annotations that the user wants with their categories, and the names of the categories of all."""
        chosen, present = [], set()
        for annotation in sample.annotations:
            category = self._table.find(annotation)
            if not isinstance(category, str):
                present.add(category.name)
            if not accepts(annotation):
                self.left_out["filter"] += 1
            elif isinstance(category, str):
                self.left_out[category] += 1
            else:
                chosen.append((annotation, category))
        return chosen, frozenset(present)

    def _finish(
        self,
        sample: Sample,
        chosen: Sequence[tuple[Annotation, ExportCategory]],
        present: frozenset[str],
        areas: Iterator[int],
    ) -> PreparedSample:
        """Name and change the annotations; `areas` has the number of pixels of each mask."""
        prepared: list[Annotation] = []
        kept_areas: list[int] = []
        for annotation, category in chosen:
            area = 0 if annotation.segmentation is None else next(areas)
            found = self._prepare_one(annotation, category, area)
            if isinstance(found, str):
                self.left_out[found] += 1
                continue
            prepared.append(found[0])
            kept_areas.append(found[1])
        return PreparedSample(self._table.map_lists(sample), tuple(prepared), tuple(kept_areas), present)

    def _prepare_one(self, annotation: Annotation, category: ExportCategory, area: int) -> tuple[Annotation, int] | str:
        """The annotation and the area of its mask, or why it is left out."""
        x, y, width, height = annotation.bbox
        has_finite_box = math.isfinite(x + y + width + height)
        is_named = category.id == annotation.category_id and category.name == annotation.category
        if has_finite_box and is_named and area > self._options.min_area and not self._options.changes_masks:
            return annotation, area  # as most are; the rest of this function would say the same
        changes: dict[str, Any] = {}
        mask = annotation.segmentation if area else None
        if mask is None and annotation.segmentation is not None:  # an empty mask is none
            changes["segmentation"] = None
        if mask is not None and self._options.changes_masks:
            mask = self._clean(mask)
            area = rle_area(mask)
            changes |= {"segmentation": mask, "area": None}
        if mask is None and not self._options.keep_boxes:
            return "no_mask"
        if mask is not None and area < self._options.min_area:
            return "min_area"
        if not has_finite_box:
            if mask is None:
                return "no_box"
            x1, y1, x2, y2 = rle_bbox_xyxy(mask)
            changes["bbox"] = (x1, y1, x2 - x1, y2 - y1)
        if category.name != annotation.category:
            changes["category"] = category.name
        if category.id != annotation.category_id:
            changes["category_id"] = category.id
        return replace(annotation, **changes) if changes else annotation, area

    def _clean(self, mask: Rle) -> Rle:
        from synthgen.export.polygons import clean_mask

        pixels = clean_mask(
            decode_mask(mask),
            fill_holes=self._options.fill_holes,
            largest_component=self._options.largest_component,
        )
        return encode_mask(pixels)


def _check_mask(annotation: Annotation, sample: Sample) -> None:
    """Raise the error of a damaged mask with its place."""
    mask = annotation.segmentation
    if mask is None:
        return
    where = f"annotation {annotation.id} of image {utf8_safe(sample.file_name)}"
    if tuple(mask.size) != (sample.height, sample.width):
        sizes = f"{mask.size[0]} x {mask.size[1]}, not {sample.height} x {sample.width}"
        raise SynthgenError(f"{where}: its mask is {sizes}; make its shard again")
    try:
        check_rle(mask)
    except SynthgenError as why:
        raise SynthgenError(f"{where}: {why}; make its shard again") from None
