"""ADE20K's instance segmentation (Places Challenge 2017): the objects of 100 categories of SceneParse150.

The files are those of `_ade20k_instances`. Categories have their names and numbers in SceneParse150, so the instance,
panoptic and semantic tasks of ADE20K speak of the same things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, image_ids_and_keys
from synthgen.formats.readers._ade20k_instances import (
    LABEL_OF_CLASS,
    OBJECTS_PER_CATEGORY,
    SPLITS,
    find_instance_files,
    load_instance_map,
    recognize_instance_files,
)
from synthgen.formats.readers._image_mask_pairs import RegionMeaning, complete, pair_files, read_pairs

TITLE = "ADE20K instances"
LAYERS = ("annotations", "human")
LOOKS_FOR = "the folders images/training or validation, and annotations_instance/training or validation"

__all__ = ["LAYERS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose instance maps and photographs are in the release's folder, `path`."""
    return recognize_instance_files(path, with_stuff=False)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The folders of photographs and of instance maps; see `_ade20k_instances.find_instance_files`.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the folder of the split's instance maps, if it is elsewhere.

    Raises:
        SynthgenError: a folder is missing.
    """
    return find_instance_files(root, split, annotations, with_stuff=False)


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the instance maps; see `synthgen.formats.readers`. The boxes are the objects' own.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a folder is missing, or no photograph has an instance map.
    """
    pairs = pair_files(files.sources["images"], files.sources["instances"])
    known = image_ids_and_keys([pair.file_name for pair in pairs])
    pairs = [replace(pair, image_id=i, image_key=key) for pair, (i, key) in zip(pairs, known, strict=True)]
    yield from read_pairs(
        pairs, files, load_instance_map, ignore_labels={0}, with_masks=layer == "human", explain=_explain
    )
    yield Categories({label: CATEGORY_NAMES[label - 1] for label in LABEL_OF_CLASS[1:].tolist()})


def _explain(labels: NDArray[np.int64]) -> RegionMeaning:
    return RegionMeaning(labels // OBJECTS_PER_CATEGORY, np.zeros(len(labels), np.bool_), {})
