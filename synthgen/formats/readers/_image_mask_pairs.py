"""Datasets of a folder of photographs and a folder of label maps: pairs the files and reads their regions.

Nothing is skipped. A photograph without a map, a map without a photograph, and a map that is unreadable or of another
size each become a row with an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, DatasetFiles, ImageBatch
from synthgen.formats.readers._folder_listing import utf8_name
from synthgen.formats.readers._label_regions import LabelRegion, split_label_regions
from synthgen.images.decode import ImageError, read_image_header
from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.records.sample import Rle, Sample

_JPEG_SUFFIXES = frozenset((".jpg", ".jpeg"))  # photographs, if label maps are in the same folder
_BATCH = 128
_NO_SIZE = (0, 0)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageMaskPair:
    """A photograph and its label map.

    Attributes:
        file_name: the photograph's, below the image folder; the map's, if there is no photograph.
        image_path, labels_path: the files; None = missing.
        image_id, image_key: as in `ImageBatch`; id 0 = its position in the list, from 1.
    """

    file_name: str
    image_path: Path | None
    labels_path: Path | None
    image_id: int = 0
    image_key: str = ""


class RegionMeaning(NamedTuple):
    """What the labels of some regions say.

    Attributes:
        category: int64 [M].
        iscrowd: bool [M].
        flags: as in `AnnotationBatch`.
    """

    category: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    flags: dict[str, NDArray[np.bool_]]


def labels_are_categories(labels: NDArray[np.int64]) -> RegionMeaning:
    """The meaning of plain label maps: a label is a category.

    Args:
        labels: int64 [M].
    """
    return RegionMeaning(labels, np.zeros(len(labels), np.bool_), {})


def make_key_prefix(folder: Path, root: Path) -> str:
    """Prefix of image keys for a folder of photographs: its path below `root`, else its parent's name and its own.

    It does not depend on other files there, so a photograph keeps its key if more data is unpacked.
    """
    path, above = (Path(os.path.abspath(one)) for one in (folder, root))  # noqa: PTH100 - links keep their names
    names = path.relative_to(above).parts if path.is_relative_to(above) else path.parts[1:][-2:]
    return "/".join(names)


def list_images(folder: Path, *, suffixes: frozenset[str] = IMAGE_SUFFIXES, exclude: Path | None = None) -> list[str]:
    """Names of the files with these suffixes below a folder, with forward slashes, sorted.

    Files and folders with a leading dot are skipped. Symbolic links to files are followed. Links to folders are skipped
    with a warning, as they might lead anywhere.

    Args:
        folder: searched with all folders below it.
        suffixes: in lower case, with their dots; any case fits.
        exclude: a folder to skip.

    Raises:
        SynthgenError: there is no such folder, or it cannot be read.
    """
    found, away = [], exclude.resolve() if exclude is not None else None
    try:
        for place, folders, names in os.walk(folder, onerror=_raise):
            current = Path(place)
            folders[:] = sorted(n for n in folders if not n.startswith(".") and (current / n).resolve() != away)
            for name in folders:
                if (current / name).is_symlink():
                    log.warning("%s is a link and is not followed; lay the folder itself there", current / name)
            below = PurePosixPath(current.relative_to(folder).as_posix())
            found += [
                (below / name).as_posix()
                for name in names
                if not name.startswith(".") and PurePosixPath(name).suffix.lower() in suffixes
            ]
    except OSError as why:
        raise SynthgenError(f"cannot read {folder} ({why.strerror}); check the path and its permissions") from None
    return sorted(found)


def pair_files(
    images: Path,
    labels: Path,
    *,
    name_prefix: str = "",
    key_prefix: str = "",
    image_stem: Callable[[str], str | None] = lambda stem: stem,
    labels_stem: Callable[[str], str | None] = lambda stem: stem,
    labels_suffixes: frozenset[str] = IMAGE_SUFFIXES,
) -> list[ImageMaskPair]:
    """Pair photographs and label maps by their paths without suffix; sorted by name.

    One folder may hold both: then the JPEGs are the photographs. One may contain the other.

    Args:
        images: folder of the photographs.
        labels: folder of the label maps.
        name_prefix: prefix of the names of photographs, with its slash: their folder below the image root.
        key_prefix: prefix of their names in keys: `make_key_prefix` of their folder.
        image_stem: path of a photograph without suffix -> the common part of both; None = skip the file.
        labels_stem: path of a label map without suffix -> the common part of both; None = skip the file.
        labels_suffixes: of the label maps, in lower case, with their dots.

    Raises:
        SynthgenError: a folder is missing, or no photograph has a label map.
    """
    for folder, option in ((images, "--images"), (labels, "--annotations")):
        if not folder.is_dir():
            raise SynthgenError(f"no folder {folder}; name the right one with {option}")
    photographs = list_images(images, exclude=labels)
    maps = list_images(labels, suffixes=labels_suffixes, exclude=images)
    if images.resolve() == labels.resolve():
        photographs = [name for name in maps if PurePosixPath(name).suffix.lower() in _JPEG_SUFFIXES]
        maps = [name for name in maps if PurePosixPath(name).suffix.lower() not in _JPEG_SUFFIXES]
    of_stem: dict[str, str] = {}
    unpaired = []
    for name in maps:
        stem = labels_stem(_stem(name))
        if stem is not None and of_stem.setdefault(stem, name) != name:
            unpaired.append(name)

    def key(name: str) -> str:
        return "/" + "/".join(filter(None, (key_prefix, name)))

    found, used = [], set()
    for name in photographs:
        stem = image_stem(_stem(name))
        if stem is not None:
            its = of_stem.get(stem)
            used.add(stem)
            found.append(
                ImageMaskPair(name_prefix + name, images / name, labels / its if its else None, image_key=key(name))
            )
    if not any(pair.labels_path for pair in found):
        raise SynthgenError(
            f"no photograph below {images} has the name of a mask or label map below {labels} ({len(found):,} and "
            f"{len(of_stem):,} are there); name the two folders with --images and --annotations"
        )
    unpaired += [name for stem, name in of_stem.items() if stem not in used]
    found += [ImageMaskPair(name_prefix + name, None, labels / name, image_key=key(name)) for name in unpaired]
    return sorted(found, key=lambda pair: pair.file_name)


def read_pairs(
    pairs: Sequence[ImageMaskPair],
    files: DatasetFiles,
    load_label_map: Callable[[Path], NDArray[Any]],
    *,
    ignore_labels: Container[int],
    with_masks: bool,
    explain: Callable[[NDArray[np.int64]], RegionMeaning] = labels_are_categories,
) -> Iterator[ImageBatch | AnnotationBatch]:
    """Read label maps one at a time: an annotation for each region, and an error for each image without any.

    Args:
        pairs: in the order of the images.
        files: its `on_bytes` is called with the bytes of photographs and label maps.
        load_label_map: a file -> its label map, integers or bool [H, W], or `ImageError`.
        ignore_labels: labels without a category.
        with_masks: add each mask as payload.
        explain: labels, int64 [M] -> their meaning.
    """
    count = 0
    for start in range(0, len(pairs), _BATCH):
        some = pairs[start : start + _BATCH]
        looks = [
            (pair.image_id or place, *_read_pair(pair, load_label_map, ignore_labels))
            for place, pair in enumerate(some, start + 1)
        ]
        yield ImageBatch(
            image_id=np.array([image_id for image_id, *_ in looks], np.int64),
            file_name=[utf8_name(pair.file_name) for pair in some],
            image_key=[utf8_name(pair.image_key) for pair in some],
            height=np.array([size[0] for _, size, *_ in looks], np.int32),
            width=np.array([size[1] for _, size, *_ in looks], np.int32),
            error=[error for _, _, error, _ in looks],
        )
        rows = [(image_id, region) for image_id, _, _, found in looks for region in found]
        yield _annotation_batch(rows, count, explain, masks=with_masks)
        count += len(rows)
        if files.on_bytes is not None:
            files.on_bytes(sum(_file_bytes(path) for pair in some for path in (pair.image_path, pair.labels_path)))


def _annotation_batch(
    rows: Sequence[tuple[int, LabelRegion]],
    count: int,
    explain: Callable[[NDArray[np.int64]], RegionMeaning],
    *,
    masks: bool,
) -> AnnotationBatch:
    """Annotations of (image id, region), with ids from `count` + 1."""
    meaning = explain(np.array([region.label for _, region in rows], np.int64))
    return AnnotationBatch(
        image_id=np.array([image_id for image_id, _ in rows], np.int64),
        id=np.arange(count + 1, count + len(rows) + 1),
        bbox=np.array([region.bbox for _, region in rows], np.float64).reshape(-1, 4),
        category=meaning.category,
        iscrowd=meaning.iscrowd,
        flags=meaning.flags,
        payload=[region.mask.counts for _, region in rows] if masks else None,
    )


def complete(files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:  # noqa: ARG001
    """Layer "human": each payload is the RLE text of a mask of the image's size."""

    def with_masks(sample: Sample, payloads: list[bytes | None]) -> Sample:
        size = (sample.height, sample.width)
        masked = (
            a if counts is None else replace(a, segmentation=Rle(size, counts), mask_source="human")
            for a, counts in zip(sample.annotations, payloads, strict=True)
        )
        return replace(sample, annotations=tuple(masked))

    return with_masks


def read_image_sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of a photograph with EXIF orientation, and as stored; zeros if it cannot be opened.

    The job that needs its pixels will report the error.
    """
    try:
        height, width, turned = read_image_header(path) if path.is_file() else (0, 0, False)
    except ImageError:
        return _NO_SIZE, _NO_SIZE
    return (height, width), (width, height) if turned else (height, width)


def _read_pair(
    pair: ImageMaskPair, load: Callable[[Path], NDArray[Any]], unlabelled: Container[int]
) -> tuple[tuple[int, int], str | None, list[LabelRegion]]:
    """(height, width) of an image in the frame of its annotations, its error, its regions."""
    shown, stored = read_image_sizes(pair.image_path) if pair.image_path is not None else (_NO_SIZE, _NO_SIZE)
    if pair.labels_path is None:
        return shown, "no mask or label map has this image's name", []
    if pair.image_path is None:
        return shown, "no photograph has the name of this mask or label map", []
    if utf8_name(pair.file_name) != pair.file_name:
        return shown, "its file name is not UTF-8; rename the file", []
    if not pair.labels_path.is_file():  # opening a pipe would block
        return shown, "its mask or label map is no file, or a link to none", []
    try:
        labels = load(pair.labels_path)
        size = (labels.shape[0], labels.shape[1])
        if shown != _NO_SIZE and size not in (shown, stored):
            here, there = (f"{width} x {height}" for height, width in (size, shown))
            return shown, f"its mask or label map is {here} pixels, the photograph {there}", []
        return size, None, split_label_regions(labels, unlabelled)
    except ImageError as why:
        return shown, f"its mask or label map {why}", []


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _file_bytes(path: Path | None) -> int:
    try:
        return path.stat().st_size if path is not None else 0
    except OSError:
        return 0


def _raise(why: OSError) -> None:
    raise why
