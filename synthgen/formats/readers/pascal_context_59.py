"""PASCAL Context with 59 classes: label maps of VOC2010's photographs, as released or as prepared by others.

The files and their sources are in `_pascal_context`. A region holds all pixels of a class in an image. Pixels without a
class make no annotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._image_mask_pairs import complete
from synthgen.formats.readers._pascal_context import ALSO_HOLDS, CONTEXT_59, SPLITS, find_context_files, read_context
from synthgen.formats.readers._release import splits_with_files

TITLE = "PASCAL Context, 59 classes"
LAYERS = ("annotations", "human")
LOOKS_FOR = "JPEGImages/ with SegmentationClassContext/, annotations_detectron2/pc59_val/ or trainval/*.mat"

__all__ = ["ALSO_HOLDS", "LAYERS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits whose label maps and photographs are in the folder `path`."""
    return splits_with_files(path, SPLITS, files)


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The label maps and photographs of a split; see `_pascal_context.find_context_files`.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the folder of the label maps, if it is elsewhere.

    Raises:
        SynthgenError: there are no label maps, no photographs, or no list of the split.
    """
    return find_context_files(CONTEXT_59, root, split, annotations)


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the label maps; see `synthgen.formats.readers`. The boxes are the regions' own.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: no photograph has a label map, or the list of the split cannot be read.
    """
    return read_context(CONTEXT_59, files, layer)
