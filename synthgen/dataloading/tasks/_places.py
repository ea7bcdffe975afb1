"""Shared by all tasks: the regions of a sample's annotations, and the Target of regions.

Rules for every task:

- An empty mask counts as no mask; the box still gives class and position. A box without area inside the image counts as
  no box; the mask's own box is used. An annotation with neither has no region and teaches nothing, but its name is not
  a negative.
- Two annotations with the same box, category and mask are one object, also if one of them has no mask: a segmenter
  gives both the same. If their masks differ, they are two objects, such as two panoptic segments with one bounding box.
- Crowds, and annotations without a category where names are learned, are neither positive nor negative. They are
  ignored, except where a target has a mask.
- Depictions and mirror images (`fake`, `reflected`) are ordinary objects, as in their dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from synthgen.dataloading.tasks import Target
from synthgen.errors import SynthgenError
from synthgen.records.boxes import clip_xyxy, xywh_to_xyxy
from synthgen.records.rle import rle_bbox_xyxy
from synthgen.records.rle_ops import is_empty_rle, rle_difference, rle_from_box, rle_union
from synthgen.records.sample import Annotation, Rle, Sample

Box = tuple[float, float, float, float]

#: An annotation with one of these flags has no usable box.
_INVALID_BOX_FLAGS = frozenset({"degenerate", "outside"})


@dataclass(frozen=True, slots=True)
class LabeledRegion:
    """A region: one annotation, or several that are one object.

    Attributes:
        annotations: one or more, in the order of their ids.
        box_xyxy: inside the image, with an area in float32; absolute pixels.
        mask: at least one pixel; None = only the box is known.
        boxes_without_mask: boxes of those `annotations` that lack a mask while others have one: the mask may be
            incomplete there.
        has_annotated_box: `box_xyxy` is an annotation's, clipped; else it is the mask's, or surrounds several.
    """

    annotations: tuple[Annotation, ...]
    box_xyxy: Box
    mask: Rle | None
    boxes_without_mask: tuple[Box, ...] = field(default=())
    has_annotated_box: bool = False

    @property
    def category(self) -> str:
        return self.annotations[0].category

    @property
    def is_crowd(self) -> bool:
        return self.annotations[0].iscrowd

    @property
    def is_thing(self) -> bool:
        return self.annotations[0].isthing

    @property
    def is_box_prompted(self) -> bool:
        """Whether the mask was generated from a human box; False for several regions merged."""
        own = {a.mask_source for a in self.annotations if a.segmentation is not None}
        return self.mask is not None and self.has_annotated_box and own.isdisjoint(("human", None))

    @property
    def is_part(self) -> bool:
        return "part" in self.annotations[0].flags


def extract_regions(sample: Sample) -> list[LabeledRegion]:
    """A region for each annotation that has one, in the order of ids.

    Args:
        sample: a row whose image size is known.

    Raises:
        SynthgenError: the image has no size yet, or a mask does not have the image's size.
    """
    height, width = sample.height, sample.width
    if sample.annotations and (height <= 0 or width <= 0):
        raise SynthgenError(
            f"image {sample.image_id} ({sample.file_name}) has no size, so its boxes have no frame; "
            "fill in the size of the image that was read, or train from a layer of masks or captions"
        )
    annotations = sorted(sample.annotations, key=lambda annotation: annotation.id)
    found = []
    for annotation, box in zip(annotations, _clip_boxes(annotations, height, width), strict=True):
        mask = _check_mask(sample, annotation)
        around = rle_bbox_xyxy(mask) if box is None and mask is not None else box
        if around is not None:
            found.append(LabeledRegion((annotation,), around, mask, has_annotated_box=box is not None))
    return found


def merge_duplicates(regions: Iterable[LabeledRegion]) -> list[LabeledRegion]:
    """The regions with duplicates merged, in the order of the first of each."""
    same: dict[tuple[Box, Box, str], dict[Rle | None, list[LabeledRegion]]] = {}
    for place in regions:
        of_box = same.setdefault((place.annotations[0].bbox, place.box_xyxy, place.category), {})
        of_box.setdefault(place.mask, []).append(place)
    joined = []
    for of_box in same.values():
        bare = of_box.pop(None, []) if len(of_box) > 1 else []
        for group in of_box.values():
            members = [a for place in (*group, *bare) for a in place.annotations]
            bare = []
            joined.append(replace(group[0], annotations=tuple(sorted(members, key=_annotation_id))))
    return sorted(joined, key=lambda place: place.annotations[0].id)


def merge_regions(regions: Sequence[LabeledRegion]) -> LabeledRegion:
    """One or more regions merged: the union of their masks, in the box around all of them."""
    if len(regions) == 1:
        return regions[0]
    masks = [place.mask for place in regions if place.mask is not None]
    x1, y1, x2, y2 = zip(*(place.box_xyxy for place in regions), strict=True)
    return LabeledRegion(
        annotations=tuple(a for place in regions for a in place.annotations),
        box_xyxy=(min(x1), min(y1), max(x2), max(y2)),
        mask=rle_union(masks) if len(masks) > 1 else next(iter(masks), None),
        boxes_without_mask=tuple(place.box_xyxy for place in regions if place.mask is None) if masks else (),
    )


def merge_by_category(regions: Iterable[LabeledRegion]) -> list[LabeledRegion]:
    """The regions of each category merged, in the order of the first of each."""
    groups: dict[str, list[LabeledRegion]] = {}
    for place in regions:
        groups.setdefault(place.category, []).append(place)
    return [merge_regions(group) for group in groups.values()]


def get_region_mask(labeled_region: LabeledRegion, sample: Sample) -> Rle:
    """The pixels of a region as far as known: its mask, else the rectangle of its box."""
    return labeled_region.mask or rle_from_box(labeled_region.box_xyxy, sample.height, sample.width)


def get_gap_masks(regions: Iterable[LabeledRegion], sample: Sample) -> list[Rle]:
    """Rectangles in which the objects' masks may be incomplete."""
    return [rle_from_box(box, sample.height, sample.width) for place in regions for box in place.boxes_without_mask]


def build_target(
    regions: Sequence[LabeledRegion], names: Sequence[str], texts: tuple[str, ...], ignored_masks: Sequence[Rle]
) -> Target:
    """The Target of regions and their names, which are all in `texts`. Masks take precedence over ignored pixels."""
    label = {text: index for index, text in enumerate(texts)}
    masks = tuple(place.mask for place in regions)
    ignore = (
        rle_difference(rle_union(ignored_masks), [mask for mask in masks if mask is not None])
        if ignored_masks
        else None
    )
    return Target(
        texts=texts,
        labels=np.array([label[name] for name in names], np.int64),
        boxes_xyxy=np.array([place.box_xyxy for place in regions], np.float32).reshape(-1, 4),
        masks=masks,
        mask_weights=np.ones(len(regions), np.float32),
        ignore=None if ignore is None or is_empty_rle(ignore) else ignore,
        annotation_ids=tuple(tuple(a.id for a in place.annotations) for place in regions),
        box_prompted=tuple(i for i, place in enumerate(regions) if place.is_box_prompted),
    )


def _annotation_id(annotation: Annotation) -> int:
    return annotation.id


def _clip_boxes(annotations: Sequence[Annotation], height: int, width: int) -> list[Box | None]:
    """Each annotation's box clipped to the image; None if no area is left."""
    bbox = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes: NDArray[np.float32] = clip_xyxy(xywh_to_xyxy(bbox), height, width).astype(np.float32)
    usable = np.isfinite(bbox).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return [
        cast(Box, tuple(box)) if there and _INVALID_BOX_FLAGS.isdisjoint(annotation.flags) else None
        for annotation, box, there in zip(annotations, boxes.tolist(), usable.tolist(), strict=True)
    ]


def _check_mask(sample: Sample, annotation: Annotation) -> Rle | None:
    """An annotation's mask if it has at least one pixel."""
    mask, size = annotation.segmentation, (sample.height, sample.width)
    if mask is None:
        return None
    try:
        if tuple(mask.size) == size:
            return None if is_empty_rle(mask) else mask
        wrong = f"a mask of {mask.size[0]} x {mask.size[1]} in an image of {size[0]} x {size[1]}"
    except SynthgenError as why:
        wrong = str(why)
    raise SynthgenError(
        f"image {sample.image_id} ({sample.file_name}), annotation {annotation.id}: {wrong}; make its layer again"
    )
