"""ADE20K's panoptic segmentation: stuff from the label maps of SceneParse150, things from the instance maps.

The two are joined as Mask2Former and Mask DINO prepare the benchmark: the 50 categories of stuff first, then the
objects over them (https://github.com/facebookresearch/Mask2Former/blob/main/datasets/prepare_ade20k_pan_seg.py). A
pixel that the label map gives to a thing belongs to an object of the instance map, or to no segment. The files are
those of `_ade20k_instances`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS, image_ids_and_keys
from synthgen.formats.readers._ade20k_instances import (
    OBJECTS_PER_CATEGORY,
    SPLITS,
    find_instance_files,
    load_instance_map,
    recognize_instance_files,
)
from synthgen.formats.readers._image_mask_pairs import RegionMeaning, complete, pair_files, read_pairs
from synthgen.formats.readers._label_regions import relabel_in_place
from synthgen.images.decode import ImageError, load_label_map

TITLE = "ADE20K panoptic"
LAYERS = ("annotations", "human")
LOOKS_FOR = "the folders images/, annotations/ and annotations_instance/, each with training or validation"

__all__ = ["LAYERS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

#: A label beyond the names is an unknown category, and not left out.
_BEYOND_NAMES = len(CATEGORY_NAMES) + 1
_SEGMENT_LABELS = np.array([*sorted(STUFF_LABELS), _BEYOND_NAMES])


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose label maps, instance maps and photographs are in the release's folder, `path`."""
    return recognize_instance_files(path, with_stuff=True)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The folders of photographs, label maps and instance maps; see `_ade20k_instances.find_instance_files`.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the folder of the split's instance maps, if it is elsewhere.

    Raises:
        SynthgenError: a folder is missing.
    """
    return find_instance_files(root, split, annotations, with_stuff=True)


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The segments of both maps; see `synthgen.formats.readers`. The boxes are the segments' own.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a folder is missing, or no photograph has a label map.
    """
    labels, instances = files.sources["labels"], files.sources["instances"]

    def load(path: Path) -> NDArray[Any]:
        things = instances / path.relative_to(labels)
        if files.on_bytes is not None and things.is_file():
            files.on_bytes(things.stat().st_size)
        return _join_maps(path, things)

    pairs = pair_files(files.sources["images"], labels)
    known = image_ids_and_keys([pair.file_name for pair in pairs])
    pairs = [replace(pair, image_id=i, image_key=key) for pair, (i, key) in zip(pairs, known, strict=True)]
    yield from read_pairs(pairs, files, load, ignore_labels={0}, with_masks=layer == "human", explain=_explain)
    yield Categories(dict(enumerate(CATEGORY_NAMES, start=1)), STUFF_LABELS)


def _join_maps(label_map: Path, instance_map: Path) -> NDArray[Any]:
    """Numbers as those of `load_instance_map`, int32 [H, W]; the number of the object is 0 for stuff."""
    stuff = np.minimum(load_label_map(label_map), _BEYOND_NAMES).astype(np.uint8)
    if not instance_map.is_file():
        raise ImageError("has no instance map of its name")
    try:
        things = load_instance_map(instance_map)
    except ImageError as why:
        raise ImageError(f"has an instance map that {why}") from None
    if things.shape != stuff.shape:
        here, there = (f"{shape[1]} x {shape[0]}" for shape in (stuff.shape, things.shape))
        raise ImageError(f"is {here} pixels, its instance map {there}")

    def with_stuff(objects: NDArray[Any], place: slice) -> NDArray[Any]:
        labels = stuff[place].astype(np.int32)
        is_segment = np.isin(labels, _SEGMENT_LABELS)
        return np.where(objects > 0, objects, np.where(is_segment, labels * OBJECTS_PER_CATEGORY, 0))

    return relabel_in_place(things, with_stuff)


def _explain(labels: NDArray[np.int64]) -> RegionMeaning:
    return RegionMeaning(labels // OBJECTS_PER_CATEGORY, np.zeros(len(labels), np.bool_), {})
