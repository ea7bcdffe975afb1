"""Semantic segmentation datasets: a folder of photographs and a folder of label maps.

It reads Cityscapes (`leftImg8bit/`, `gtFine/`), PASCAL VOC (`JPEGImages/`, `SegmentationClass/`), CamVid in SegNet's
form (`train/`, `trainannot/`), `images/` with `labels/`, and any two folders from `--images` and `--annotations`. A
file beside the maps names their labels (`_label_names`); those of Cityscapes and VOC are built in. Pixels without a
label (255, or a name such as void or background) give no annotation. A region holds all pixels of a category in an
image. An image key contains the folder, as in `foreground`: "semantic_folder/leftImg8bit/val/...".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._image_mask_pairs import ImageMaskPair, complete, make_key_prefix, pair_files, read_pairs
from synthgen.formats.readers._label_names import (
    NAME_FILES,
    LabelScheme,
    cityscapes_labels,
    find_names_file,
    read_label_names,
    voc_labels,
)
from synthgen.images.decode import load_label_map

SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]

_VOC_LAYOUT = ("JPEGImages", "SegmentationClass")

#: (photographs, label maps) below the dataset's folder; the first pair that exists is used.
_LAYOUTS = (
    ("leftImg8bit/{split}", "gtFine/{split}"),
    ("leftImg8bit/{split}", "gtCoarse/{split}"),
    ("{split}", "{split}annot"),
    *(
        (f"{images}/{{split}}", f"{labels}/{{split}}")
        for images in ("images", "imgs", "image", "img")
        for labels in ("labels", "annotations", "masks", "label", "annotation", "mask", "ann", "gt")
    ),
    ("{split}/images", "{split}/labels"),
    ("{split}/images", "{split}/masks"),
    _VOC_LAYOUT,
    *(("images", labels) for labels in ("labels", "annotations", "masks")),
)
_MAX_LIST_CHARS = 2**26  # characters of such a list
_VOC_LIST = "ImageSets/Segmentation/{split}.txt"  # VOC: most photographs have no label map

#: Cityscapes has several maps per photograph: labels, colours and instances.
_CITYSCAPES_MAP = re.compile(r"(.*)_gt(?:Fine|Coarse)_(label(?:Train)?Ids)", re.DOTALL)
_CITYSCAPES_IMAGE = "_leftImg8bit"


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The first of the usual pairs of folders below `root`, or the label maps that `annotations` names.

    For label maps from the user, the photographs are in the usual folders beside them, else below root.

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: folder of the label maps; None = find the folders.

    Raises:
        SynthgenError: there are no such folders.
    """
    if annotations is None:
        for images, labels, listing in _find_folders(root, split):
            return _make_files(images, labels, listing, make_key_prefix(images, root))
        raise SynthgenError(
            f"no photographs with label maps of '{split}' in {root} (such as leftImg8bit/{split} and gtFine/{split}, "
            f"images/{split} and labels/{split}, or {split} and {split}annot); name the two folders with --images and "
            "--annotations"
        )
    if not annotations.is_dir():
        raise SynthgenError(f"{annotations} is no folder; --annotations should name the folder of the label maps")
    own = annotations.absolute()
    for place in list(own.parents)[:2]:
        for any_split in (split, *SPLITS):
            for images, labels, _ in _find_folders(place, any_split):
                if labels.absolute() == own:
                    return _make_files(images, annotations, None, make_key_prefix(images, root))
    return _make_files(root, annotations, None, make_key_prefix(annotations, root))


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the label maps; see `synthgen.formats.readers`. The boxes are the regions' own.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: nothing says what the labels mean, or no photograph has a label map.
    """
    kind = _detect_cityscapes(files.sources["labels"])
    labels = _load_scheme(files, kind)
    load = functools.partial(load_label_map, color_coded=labels.is_color_coded)
    yield from read_pairs(
        _find_pairs(files, kind), files, load, ignore_labels=labels.ignore_labels, with_masks=layer == "human"
    )
    yield labels.categories


def _make_files(images: Path, labels: Path, listing: Path | None, place: str) -> DatasetFiles:
    names = find_names_file(labels)
    sources = {"images": images, "labels": labels, "names": names, "list": listing}
    return DatasetFiles(
        {role: path for role, path in sources.items() if path is not None}, images, image_key_prefix=place
    )


def _find_folders(root: Path, split: str) -> Iterator[tuple[Path, Path, Path | None]]:
    """The existing (photographs, label maps, list of the split's names or None); without splits, all are the first."""
    for layout in _LAYOUTS:
        images, labels = (root / part.format(split=split) for part in layout)
        if images.is_dir() and labels.is_dir():
            listing = root / _VOC_LIST.format(split=split)
            if layout == _VOC_LAYOUT and listing.is_file():
                yield images, labels, listing
            elif "{split}" in "".join(layout) or (split == SPLITS[0] and not _has_splits(root, images)):
                yield images, labels, None


def _has_splits(root: Path, images: Path) -> bool:
    """Whether the dataset defines splits; then no folder as a whole is a split."""
    return any((images / split).is_dir() or (root / _VOC_LIST.format(split=split)).is_file() for split in SPLITS)


def _load_scheme(files: DatasetFiles, cityscapes_kind: str | None) -> LabelScheme:
    if "names" in files.sources:
        return read_label_names(files.sources["names"])
    if cityscapes_kind is not None:
        return cityscapes_labels(train_ids=cityscapes_kind == "labelTrainIds")
    folder = files.sources["labels"]
    if folder.name == _VOC_LAYOUT[1]:
        return voc_labels()
    raise SynthgenError(
        f"nothing says what the labels in {folder} mean; lay a file {NAME_FILES[0]} there, a JSON list of names, the "
        "first "
        "of label 0"
    )


def _detect_cityscapes(folder: Path) -> str | None:
    """The kind of Cityscapes' maps in a folder: "labelIds", else "labelTrainIds", else None."""
    found = {match[2] for path in folder.rglob("*.png") if (match := _CITYSCAPES_MAP.fullmatch(path.stem))}
    return min(found, default=None)


def _find_pairs(files: DatasetFiles, cityscapes_kind: str | None) -> list[ImageMaskPair]:
    images, labels = files.sources["images"], files.sources["labels"]
    if cityscapes_kind is not None:

        def of_kind(stem: str) -> str | None:
            match = _CITYSCAPES_MAP.fullmatch(stem)
            return match[1] if match and match[2] == cityscapes_kind else None

        def without_suffix(stem: str) -> str:
            return stem.removesuffix(_CITYSCAPES_IMAGE)

        return pair_files(
            images, labels, key_prefix=files.image_key_prefix, image_stem=without_suffix, labels_stem=of_kind
        )
    pairs = pair_files(images, labels, key_prefix=files.image_key_prefix)
    if "list" not in files.sources:
        return pairs
    by_stem = {PurePosixPath(pair.file_name).stem: pair for pair in pairs}
    try:
        with files.sources["list"].open(encoding="utf-8") as file:
            names = file.read(_MAX_LIST_CHARS).split()
    except (OSError, UnicodeDecodeError):
        where = files.sources["list"]
        raise SynthgenError(f"cannot read {where} as a list of names, one a line; unpack it again") from None
    return [by_stem.get(name, ImageMaskPair(name, None, None)) for name in dict.fromkeys(names)]
