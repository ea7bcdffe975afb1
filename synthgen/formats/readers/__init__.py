"""Plugin folder of dataset formats: one file per format; its name is the `--dataset`. A reader module defines:

    SPLITS: tuple[str, ...]      the first is the default
    LAYERS: tuple[str, ...]      "annotations" (boxes) first, then layers of human masks or phrases

    def files(root, split, annotations) -> DatasetFiles
        the dataset's own files below `root` (or the file that the user named); `SynthgenError` if they are missing
    def read(files, layer) -> Iterator[DatasetPart]
        the content in the order of the file, in batches of some 10,000
    def complete(files, layer) -> Callable[[Sample, list[bytes | None]], Sample]      only for layers with payloads
        adds the content of the annotations' payloads to a sample: masks, phrases
    def mask_problems(payload, height, width) -> dict[str, str]      only for a layer "human" of segmentations
        flag -> reason, for what is wrong with the mask of a payload; it draws nothing. With it, `synthgen doctor` reads
        the layer "human" and reports them
    def shorten_mask(payload) -> bytes      with `mask_problems`
        a payload, or a shorter one for which `mask_problems` says the same

A reader whose files can be recognised defines these, too:

    TITLE: str                   the format's usual name, such as "YOLO"
    LOOKS_FOR: str               what `recognize` looks for, for the error about an unknown layout
    def recognize(path) -> tuple[str, ...] | None
        the splits of the dataset in this folder (or of this file); None if it is not of this format. It reads little:
        names in a few folders, the start of a few files
    LAYOUT_SPLITS = True         `SPLITS` are only usual names; `recognize` says which splits a folder has
    ALSO_HOLDS: tuple[str, ...]  of a published dataset: readers of general formats that may be meant as well

A reader only knows the format. `ingest` sorts, checks boxes and writes shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.records.sample import Sample


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """The files of a dataset.

    Attributes:
        sources: the annotation files by role ("instances", "objects", ...); a folder stands for the files in it.
        image_folder: folder below which `Sample.file_name` is found.
        layer_sources: by layer, the sources that it needs; other layers need all.
        split: the split to read, if the sources hold several.
        content_roles: roles of folders of which the digest covers the content of the files, but for images; of other
            folders it covers names and sizes. For folders of many small annotation files.
        image_key_prefix: distinguishes image folders of one dataset in image keys made of file names. It does not
            depend on the path of `image_folder`.
        on_bytes: called by the reader with the number of further bytes read.
        crowds_as_objects: `ingest` takes annotations with `iscrowd` for single objects. Some exporters set it for
            every mask in RLE.
    """

    sources: dict[str, Path]
    image_folder: Path
    layer_sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    split: str = ""
    content_roles: frozenset[str] = frozenset()
    image_key_prefix: str = ""
    on_bytes: Callable[[int], None] | None = None
    crowds_as_objects: bool = False

    def for_layer(self, layer: str) -> DatasetFiles:
        """The same with only the sources of a layer."""
        roles = self.layer_sources.get(layer, tuple(self.sources))
        return replace(self, sources={role: path for role, path in self.sources.items() if role in roles})

    def with_image_folder(self, image_folder: Path | None) -> DatasetFiles:
        """The same with the user's `image_folder`, if it is not None; it also replaces the source "images"."""
        if image_folder is None:
            return self
        sources = {role: image_folder if role == "images" else path for role, path in self.sources.items()}
        return replace(self, sources=sources, image_folder=image_folder)

    def total_bytes(self) -> int:
        """The approximate sum of all values that `on_bytes` will get.

        These are the bytes of the files; of the files that are no images in the folders of `content_roles`; and those
        in other folders without a file, or if the images are a source.
        """
        labels = {self.sources[role] for role in self.content_roles if role in self.sources}
        paths = set(self.sources.values())
        files = {path for path in paths if path.is_file()}
        if "images" in self.sources or not (files or labels - files):
            files |= {file for folder in paths - files for file in folder.rglob("*") if file.is_file()}
        for folder in labels - files:
            inside = (file for file in folder.rglob("*") if file.suffix.lower() not in IMAGE_SUFFIXES)
            files |= {file for file in inside if file.is_file()}
        return sum(path.stat().st_size for path in files)


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """A batch of images of a dataset.

    Attributes:
        image_id: int64 [N].
        file_name: below the image folder.
        image_key: the photograph's identity (`Sample.image_key`); "" = only this dataset has it, and `ingest` makes a
            key of the names of dataset and file; a key that starts with a slash is appended to the dataset's name.
        height: int32 [N], of each image, pixels; 0 if the file does not say.
        width: int32 [N], of each image, pixels; 0 if the file does not say.
        error: why an image's annotations cannot be read, for `Sample.error`, or None; None = no image has an error.
        neg_categories: N lists of category ids, for `Sample`'s field of this name; given for all of a dataset's images
            or for none.
        not_exhaustive_categories: N lists of category ids, for `Sample`'s field of this name; given as
            `neg_categories` is.
        id_text: the ids as the file spells them, "" for a number; for messages. None = all are numbers.
        license_id: int64 [N], the file's own number of each photograph's licence, `NO_ID` = none; None = none has one.
    """

    image_id: NDArray[np.int64]
    file_name: Sequence[str]
    image_key: Sequence[str]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    error: Sequence[str | None] | None = None
    neg_categories: Sequence[Sequence[int]] | None = None
    not_exhaustive_categories: Sequence[Sequence[int]] | None = None
    id_text: Sequence[str] | None = None
    license_id: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationBatch:
    """A batch of annotations of any images, in any order.

    Attributes:
        image_id: int64 [M], the image of each annotation.
        id: int64 [M], the dataset's own.
        bbox: float64 [M, 4] XYWH, absolute pixels, original image, exactly as the file gives it.
        category: int64 [M], the file's own category id; `Categories` gives the names.
        iscrowd: bool [M].
        flags: flag name -> bool [M], for what the file itself says ("fake", "reflected", "no_box").
        payload: one `bytes` per annotation, in a format that `complete` reads; None = this layer has none.
        area: float64 [M], of the file's own masks, pixels, NaN = not given; None = the file gives none.
    """

    image_id: NDArray[np.int64]
    id: NDArray[np.int64]
    bbox: NDArray[np.float64]
    category: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    payload: Sequence[bytes | None] | None = None
    area: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Categories:
    """Categories of a dataset; a reader may give them in several parts.

    Attributes:
        names: by category id, in the order of the file, stripped, otherwise unchanged.
        stuff: ids of stuff categories.
        padded: names with leading or trailing spaces in the file, unstripped, by id.
        parents: ids of categories whose name is the `supercategory` of another. Without boxes they are no categories
            of objects, such as the root category that Roboflow adds; `ingest` leaves them out.
        has_file_ids: whether the ids are those of the file, which an export keeps; else the reader made them up.
        supercategories: by category id, if the file gives any.
    """

    names: dict[int, str]
    stuff: frozenset[int] = frozenset()
    padded: dict[int, str] = field(default_factory=dict)
    parents: frozenset[int] = frozenset()
    has_file_ids: bool = False
    supercategories: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Licenses:
    """The licences that the file lists; images name one by its id.

    Attributes:
        records: (id, name, URL) of each, in the order of the file.
    """

    records: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class SourceFinding:
    """Something unusual in the files that no image or annotation shows, such as a label file without an image.

    `synthgen doctor` reports it; `ingest` logs it.

    Attributes:
        code: key of `ingest.validation.finding_codes.FINDING_CODES`.
        unit: what is counted: "boxes", "images", "categories", "files", "lines"; or what no total counts: "shapes",
            "masks", "splits".
        count: how many.
        examples: (where, what) of the first ones.
        stops: a job on this dataset would be useless.
    """

    code: str
    unit: str
    count: int
    examples: tuple[tuple[str, str], ...] = ()
    stops: bool = False


#: What a reader yields.
DatasetPart: TypeAlias = ImageBatch | AnnotationBatch | Categories | Licenses | SourceFinding


class DatasetReader(Protocol):
    """The module of a dataset format; see the docstring of this package."""

    SPLITS: tuple[str, ...]
    LAYERS: tuple[str, ...]

    def files(self, root: Path, split: str, annotations: Path | None) -> DatasetFiles:
        """The dataset's own files.

        Args:
            root: folder of the dataset.
            split: one of `SPLITS`, or of what `recognize` returns.
            annotations: the annotation file or folder that the user named; None = find it in `root`.

        Raises:
            SynthgenError: a file is missing.
        """
        ...

    def read(self, files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
        """The content of the files, in their order, in batches.

        Args:
            files: as `files` returns them.
            layer: one of `LAYERS`.

        Raises:
            SynthgenError: a file cannot be read, or has another format.
        """
        ...

    def complete(self, files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]:
        """A function that adds the content of payloads to a sample. It takes a payload or None for each annotation.

        Args:
            files: as `files` returns them.
            layer: one of `LAYERS` with payloads.
        """
        ...
