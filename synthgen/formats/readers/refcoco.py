"""RefCOCO: short phrases that distinguish an object from others of its kind, from a two-player game.

The split is UNC's. Google's split of the same refs is read with `--annotations "refs(google).p" --split ...`.
"""

from __future__ import annotations

from pathlib import Path

from synthgen.formats.readers import DatasetFiles
from synthgen.formats.readers._refer import complete, find_refs, read

SPLITS = ("train", "val", "testA", "testB")
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """refcoco/refs(unc).p and instances.json as the release unpacks, beside or below root; images are COCO's.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: see `find_refs`.

    Raises:
        SynthgenError: they are not there.
    """
    return find_refs(root, split, annotations, folder="refcoco", split_by="unc")
