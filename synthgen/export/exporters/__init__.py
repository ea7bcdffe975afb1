"""Plugin folder of export formats: one file per format; its name is the `--to` of `synthgen export`. A module defines:

    TITLE: str              the format's usual name, such as "YOLO segmentation"
    IMAGES: ImageMode       what happens with the images if the user does not say: "link" for folders that a trainer
                            reads, "none" where the format only names them, "embed" where the format holds their bytes
    IMAGE_MODES             a tuple of all that can happen with them; if it is missing, "link", "copy" and "none", or
                            "embed" and "none", whichever has `IMAGES`
    FLAT_IMAGES: bool       whether all images of a split lie in one folder, without subfolders
    OPTIONS                 a frozen dataclass of the format's own options (`plugin_options.option`)
    def build(context: ExportContext, options: OPTIONS) -> Exporter

An exporter writes files below `context.folder` only, which `run_export` renames to its final name when everything is
written. It keeps no sample: memory does not grow with the number of images, except for a few bytes each.

Everything that a stranger named (files, categories, captions) is data: it is escaped as the format demands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from synthgen.images.packed import ImageSource
from synthgen.records.sample import Annotation, Sample

#: What happens with images: links, copies, nothing, or bytes inside the files of the format.
ImageMode: TypeAlias = Literal["link", "copy", "none", "embed"]


@dataclass(frozen=True, slots=True)
class ExportCategory:
    """A category of an export.

    Attributes:
        id: its number: the source's own, or counted from 1. Formats that count from 0 use the place in
            `ExportContext.categories`.
        name: its name, as the source or the user's map of categories spells it.
        supercategory: as the source's file gives it; "" = none.
    """

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, slots=True)
class ExportLicense:
    """A licence that the source's file lists.

    Attributes:
        id: the number to which `Sample.license_id` refers.
        name: such as "Attribution License".
        url: where its text is.
    """

    id: int
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class ExportContext:
    """What an exporter knows before the first image.

    Attributes:
        folder: an empty folder to write in.
        layer: the layer's name, "dataset/split/layer".
        recipe: what made the layer; plain JSON.
        description: one sentence about the layer and what made it.
        categories: in the order of their ids.
        licenses: of the photographs, in the order of the source's file.
        splits: names of the splits, such as ("train", "val"); at least one.
        images: what happens with the images.
        version: the version of synthgen.
    """

    folder: Path
    layer: str
    recipe: Mapping[str, Any]
    description: str
    categories: tuple[ExportCategory, ...]
    licenses: tuple[ExportLicense, ...]
    splits: tuple[str, ...]
    images: ImageMode
    version: str


@dataclass(frozen=True, slots=True)
class ExportItem:
    """One image of an export.

    Attributes:
        split: one of `ExportContext.splits`.
        sample: the image with the annotations to write. Each `category_id` is that of an `ExportCategory`, and each
            `category` its name. Each mask was checked: it can be decoded, has the size of the image and is not empty.
        file_name: path of the image below the exporter's `image_folder(split)`, with forward slashes. It is unique and
            stays in the folder. Where images stay in place, it is the source's own name, untrusted: no path for a file.
        image: the image's file; None = it is not known, or the images are not needed.
        mask_areas: number of pixels of the mask of each annotation; 0 without a mask.
        present: names of the categories of all annotations of the image, also of those that are left out.
    """

    split: str
    sample: Sample
    file_name: str
    image: ImageSource | None
    mask_areas: tuple[int, ...]
    present: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ExportNotes:
    """What an exporter has to say at the end.

    Attributes:
        left_out: reason -> number of annotations that the format could not hold.
        lines: sentences for the user, such as how many masks the format changed, and the IoU lost.
        figures: the same as numbers, for programs.
        data_files: split -> pattern of the files with its annotations, below `ExportContext.folder`, such as
            "data/train-*.parquet". The dataset card and the Croissant file name them.
    """

    left_out: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    data_files: Mapping[str, str] = field(default_factory=dict)


class Exporter(Protocol):
    """Writes the images of one export, in order; see the docstring of this package."""

    def image_folder(self, split: str) -> str:
        """The folder for the images of a split, below `ExportContext.folder`, with forward slashes; "" = that folder.

        Args:
            split: one of `ExportContext.splits`.
        """
        ...

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write an image with its annotations. Returns the annotations as they were written, so without a mask if it is
        left out.

        Args:
            item: the image. Those of several splits come mixed.

        Raises:
            ImageError: the image cannot be read, where the format holds its bytes; nothing of it was written.
            SynthgenError: the file cannot be written, or an annotation cannot be read.
        """
        ...

    def finish(self) -> ExportNotes:
        """Write what stands at the end, and close all files. Called once, after the last image."""
        ...

    def close(self) -> None:
        """Close all files, also after an error; may be called again."""
        ...
