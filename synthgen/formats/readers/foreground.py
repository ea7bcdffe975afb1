"""Foreground datasets: photographs with one mask each of salient objects, thin objects or cut-outs.

It reads DUTS, DIS5K, HRSOD, UHRSD, ThinObject5K, COIFT, THUS10K (MSRA10K) and DAVIS 2016 as they unpack, one or several
of them, or any two folders from `--images` and `--annotations`. Each image has one annotation of the category
"foreground": the pixels that are at least half white (128 of 255). A mask without such a pixel gives none.

An image key contains the folder, because releases use the same file names: its path below the dataset's folder
("foreground/DUTS-TR/DUTS-TR-Image/1.jpg"). For two folders elsewhere it contains the parent: the photographs' if they
are beside the masks ("foreground/mine/im/1.jpg"), else the masks'. Other files there change no key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._image_mask_pairs import ImageMaskPair, complete, make_key_prefix, pair_files, read_pairs
from synthgen.images.decode import ImageError, load_rgb

SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")

__all__ = ["LAYERS", "SPLITS", "complete", "files", "read"]

#: Names of sister folders, in lower case: (photographs, masks). "*" is any text.
_FOLDER_PAIRS = (
    ("im", "gt"),  # DIS5K
    ("*-image", "*-mask"),  # DUTS
    ("image", "mask"),  # UHRSD
    ("images", "masks"),  # COIFT, ThinObject5K
    ("images_*", "masks_*"),
    ("*", "*_mask"),  # HRSOD
    ("jpegimages", "annotations"),  # DAVIS
    *((images, "gt") for images in ("image", "images", "img", "imgs")),
)
_SINGLE_FOLDERS = ("imgs", "imgs_gt", "msra_10k", "thus10000")  # THUS10K: .jpg and .png in one folder
_MAX_DEPTH = 3  # levels of folders to search: root/DIS5K/DIS-TR/im
_MAX_FOLDERS = 10_000
_SPLIT_WORDS = {
    "train": re.compile(r"(?<![a-z])(tr|train|training)(?![a-z])"),
    "val": re.compile(r"(?<![a-z])(vd|val|valid|validation)(?![a-z])"),
    "test": re.compile(r"(?<![a-z])(te\d*|test|testing)(?![a-z])"),
}
_SPLIT_FOLDER = re.compile("train(ing)?|val(id|idation)?|test(ing)?", re.IGNORECASE)  # as a folder name
_FOREGROUND_THRESHOLD = 128
_MAX_GRAY_SPREAD = 64  # maximum difference of a grey pixel's channels due to compression
_CATEGORIES = Categories({1: "foreground"})


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """All pairs of sister folders of the split up to three folders below `root`, or the masks that `annotations` names.

    The folder's name gives the split (DUTS-TR, DIS-VD, DIS-TE1, ...); other folders are "train".

    Args:
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: folder of the masks; None = find the pairs of folders.

    Raises:
        SynthgenError: there are none.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise SynthgenError(f"{annotations} is no folder; --annotations should name the folder of the masks")
        parent = annotations.absolute().parent
        images = next((i for i, m in _paired_subfolders(parent) if m == annotations.absolute()), None)
        place = make_key_prefix(images or annotations, root)
        return DatasetFiles({"images": images or root, "masks": annotations}, images or root, image_key_prefix=place)
    found = [(i, m) for i, m in _find_pairs(root) if _split_of(i.relative_to(root).as_posix()) == split]
    if not found:
        raise SynthgenError(
            f"no photographs with masks of '{split}' in {root}; unpack DUTS, DIS5K, HRSOD, UHRSD, ThinObject5K, COIFT "
            "or THUS10K there, or name the two folders with --images and --annotations"
        )
    if len(found) == 1:
        images, masks = found[0]
        return DatasetFiles({"images": images, "masks": masks}, images, image_key_prefix=make_key_prefix(images, root))
    sources: dict[str, Path] = {}
    for images, masks in found:
        name = images.relative_to(root).as_posix()
        sources |= {f"images {name}": images, f"masks {name}": masks}
    return DatasetFiles(sources, root)


def read(files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the masks; see `synthgen.formats.readers`. The boxes are the masks' own.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: no photograph of a folder has a mask.
    """
    pairs: list[ImageMaskPair] = []
    for role, masks in files.sources.items():
        kind, _, name = role.partition(" ")
        if kind == "masks":
            images = files.sources[f"images {name}" if name else "images"]
            if name and not images.is_relative_to(files.image_folder):
                raise SynthgenError(
                    f"--images {files.image_folder} names one folder, and masks were found in several; name one of "
                    "them "
                    "with --annotations"
                )
            pairs += pair_files(
                images, masks, name_prefix=f"{name}/" if name else "", key_prefix=name or files.image_key_prefix
            )
    yield from read_pairs(pairs, files, _load_mask, ignore_labels={0}, with_masks=layer == "human")
    yield _CATEGORIES


def _load_mask(path: Path) -> NDArray[np.bool_]:
    """The pixels that are at least half white, bool [H, W].

    Args:
        path: image of the mask, grey values.

    Raises:
        ImageError: not an image, in colour, or with labels 0 and 1 instead of grey values.
    """
    red, green, blue = np.moveaxis(load_rgb(path), 2, 0)
    most = np.maximum(np.maximum(red, green), blue)
    if (most - np.minimum(np.minimum(red, green), blue)).max() > _MAX_GRAY_SPREAD:
        raise ImageError("is in colour, and a mask of foreground is white on black")
    if most.max() == 1:
        raise ImageError("holds 0 and 1, and a mask of foreground holds 0 to 255; multiply it by 255")
    return np.asarray(green >= _FOREGROUND_THRESHOLD, np.bool_)


def _find_pairs(root: Path) -> Iterator[tuple[Path, Path]]:
    """(photographs, masks), sorted by folder; symbolic links to folders are followed, three levels deep."""
    waiting, looked = [(root, 0)], 0
    while waiting and looked < _MAX_FOLDERS:
        folder, depth = waiting.pop(0)
        looked += 1
        pairs = list(_paired_subfolders(folder))
        for images, masks in pairs:
            splits = [
                p.name for p in _subfolders(images) if _SPLIT_FOLDER.fullmatch(p.name) and (masks / p.name).is_dir()
            ]
            yield from [(images / name, masks / name) for name in splits] or [(images, masks)]
        taken = {path for pair in pairs for path in pair}
        if depth < _MAX_DEPTH:
            waiting += [(path, depth + 1) for path in _subfolders(folder) if path not in taken]


def _paired_subfolders(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The pairs of folders directly below one; the folder itself, twice, if it holds both."""
    if folder.name.lower() in _SINGLE_FOLDERS and any(path.suffix.lower() == ".png" for path in folder.glob("*.*")):
        yield folder, folder
    below = {path.name.lower(): path for path in _subfolders(folder)}
    used: set[Path] = set()
    for images, masks in _FOLDER_PAIRS:
        pattern = re.compile(re.escape(images).replace(r"\*", "(.*)"))
        for name, path in below.items():
            match = pattern.fullmatch(name)
            image_folder = (
                below.get(masks.replace("*", match[1] if match and match.groups() else "")) if match else None
            )
            if image_folder is not None and image_folder != path and not {path, image_folder} & used:
                used |= {path, image_folder}
                yield path, image_folder


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # missing, or no permission
        return []


def _split_of(name: str) -> str:
    """The split in the last word of a folder's name; "train" if there is none."""
    last = {
        split: max((m.start() for m in words.finditer(name.lower())), default=-1)
        for split, words in _SPLIT_WORDS.items()
    }
    best = max(last, key=lambda split: last[split])
    return best if last[best] >= 0 else "train"
