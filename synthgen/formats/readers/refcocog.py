"""RefCOCOg: complete sentences, written without a game.

The split is UMD's, in which each image is in one part. Google's, read with `--annotations "refs(google).p"`, has
objects of one image in both train and val, and no test.
"""

from __future__ import annotations

from pathlib import Path

from synthgen.formats.readers import DatasetFiles
from synthgen.formats.readers._refer import complete, find_refs, read

SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """refcocog/refs(umd).p and instances.json as the release unpacks, beside or below root; images are COCO's.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: see `find_refs`.

    Raises:
        SynthgenError: they are not there.
    """
    return find_refs(root, split, annotations, folder="refcocog", split_by="umd")
