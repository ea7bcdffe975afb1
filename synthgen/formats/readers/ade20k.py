"""ADE20K in the form of the scene parsing benchmark (SceneParse150): label maps with 150 categories.

The release unpacks to `ADEChallengeData2016/{images,annotations}/{training,validation}`. Label 0, "other objects",
makes no annotation. A region holds all pixels of a category in an image, so it may be several things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS, image_ids_and_keys
from synthgen.formats.readers._folder_listing import first_names
from synthgen.formats.readers._image_mask_pairs import complete, pair_files, read_pairs
from synthgen.formats.readers._release import splits_with_files
from synthgen.images.decode import load_label_map

TITLE = "ADE20K, SceneParse150"
SPLITS = ("training", "validation")
LAYERS = ("annotations", "human")
LOOKS_FOR = (
    "photographs ADE_train_00000001.jpg in images/training and label maps in annotations/training, or validation"
)

__all__ = ["LAYERS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_IGNORE_LABELS = frozenset({0})
_SPLIT_PREFIX = {"training": "ADE_train_", "validation": "ADE_val_"}


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits in the release's folder, `path`, whose label maps have ADE20K's names: others use the same folders."""
    found = splits_with_files(path, SPLITS, files) or ()
    return tuple(split for split in found if _has_own_names(files(path, split, None), split)) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The release's folders below root, root/ADEChallengeData2016 or root/sceneparsing150.

    If images/ and annotations/ have no folders for splits, the file names decide (`ADE_val_`).

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: a user's own folder of label maps; its images are below `root` or in the user's image folder.

    Raises:
        SynthgenError: the folders are missing, or have no files of the split.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise SynthgenError(f"{annotations} is no folder; --annotations should name SceneParse150's label maps")
        return DatasetFiles({"images": root, "labels": annotations}, root)
    for place in (root, root / "ADEChallengeData2016", root / "sceneparsing150"):
        for below in (split, "."):
            images, labels = place / "images" / below, place / "annotations" / below
            if images.is_dir() and labels.is_dir() and (below == split or _has_split_files(labels, split)):
                return DatasetFiles({"images": images, "labels": labels}, images)
    raise SynthgenError(
        f"no folders images/{split} and annotations/{split} in {root}; unpack ADEChallengeData2016.zip there, or name "
        "the two with --images and --annotations"
    )


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the label maps of `files`, as `layer`; see `synthgen.formats.readers`. The boxes are the regions'
    own.
    """
    pairs = pair_files(files.sources["images"], files.sources["labels"])
    known = image_ids_and_keys([pair.file_name for pair in pairs])
    pairs = [replace(pair, image_id=i, image_key=key) for pair, (i, key) in zip(pairs, known, strict=True)]
    yield from read_pairs(pairs, files, load_label_map, ignore_labels=_IGNORE_LABELS, with_masks=layer == "human")
    yield Categories(dict(enumerate(CATEGORY_NAMES, start=1)), STUFF_LABELS)


def _has_split_files(labels: Path, split: str) -> bool:
    """Whether all the files of a folder are named as those of a split are."""
    names = [path.name for path in labels.iterdir()]
    return bool(names) and all(name.startswith(_SPLIT_PREFIX.get(split, "?")) for name in names)


def _has_own_names(found: DatasetFiles, split: str) -> bool:
    return any(name.startswith(_SPLIT_PREFIX[split]) for name in first_names(found.sources["labels"]))
