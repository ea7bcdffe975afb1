"""What an export holds, as plain data: counted while it is written, for the dataset card and the Croissant file."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes, ImageMode
from synthgen.export.mask_counter import MaskCounter
from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.records.sample import PROVENANCES, Annotation

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file of an export.

    Attributes:
        path: below the export's folder, with forward slashes.
        bytes: its size.
        sha256: of its content, in hexadecimal digits.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """How much a split holds.

    Attributes:
        name: of the split.
        images, annotations: that were written.
        masks: of its images.
    """

    name: str
    images: int
    annotations: int
    masks: int


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """How often a category occurs.

    Attributes:
        id: its number in the export.
        name: its name; hostile.
        annotations, masks: of all splits.
    """

    id: int
    name: str
    annotations: int
    masks: int


@dataclass(frozen=True, slots=True)
class LicenseCounts:
    """How many images have a licence.

    Attributes:
        id: the number in the source's file; None = the source gives no licence for these images.
        name, url: as the source's file gives them; hostile; "" = it does not.
        images: of all splits.
    """

    id: int | None
    name: str
    url: str
    images: int


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export holds.

    Attributes:
        layer: "dataset/split/layer".
        description: one sentence about the layer and what made it.
        recipe: what made the layer; plain JSON.
        format: name of the exporter, such as "hf".
        title: the format's usual name.
        version: of synthgen.
        images: what happened with the images.
        splits: in the order of the export.
        categories: in the order of their ids.
        provenance: key of `PROVENANCES` -> number of masks.
        models: what drew masks that are not "human" -> number of masks; the largest first.
        licenses: in the order of the source's file; images without a licence last.
        options: thresholds, and options of the format, by name; plain JSON.
        left_out: reason -> number of annotations that are not in the export.
        notes: sentences of the exporter.
        data_files: split -> pattern of the files with its annotations, below the folder.
        files: without images that lie in folders of images.
    """

    layer: str
    description: str
    recipe: Mapping[str, Any]
    format: str
    title: str
    version: str
    images: ImageMode
    splits: tuple[SplitCounts, ...]
    categories: tuple[CategoryCounts, ...]
    provenance: Mapping[str, int]
    models: Mapping[str, int]
    licenses: tuple[LicenseCounts, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data_files: Mapping[str, str] = field(default_factory=dict)
    files: tuple[ExportFile, ...] = ()


class SummaryCounter:
    """Counts what is written. Memory does not grow with the number of images.

    Attributes:
        images, annotations: of each split.
        masks: counts masks by who drew them.

    Args:
        context: of the export.
    """

    def __init__(self, context: ExportContext) -> None:
        self._context = context
        self.images, self.annotations = (Counter(dict.fromkeys(context.splits, 0)) for _ in range(2))
        self.masks = MaskCounter()
        self._masks, self._licenses = Counter[str](), Counter[int | None]()
        self._categories = Counter[tuple[int | None, bool]]()  # id of a category, whether there is a mask

    def add(self, item: ExportItem, written: Sequence[Annotation]) -> None:
        """Count an image.

        Args:
            item: as the exporter got it.
            written: what `Exporter.write` returned.
        """
        self.images[item.split] += 1
        self.annotations[item.split] += len(written)
        self._licenses[item.sample.license_id] += 1
        self.masks.add(written)
        found = [(a.category_id, a.segmentation is not None) for a in written]
        self._categories.update(found)
        self._masks[item.split] += sum(has_mask for _, has_mask in found)

    def summarize(
        self,
        *,
        format: str,
        title: str,
        options: Mapping[str, Any],
        notes: ExportNotes,
        left_out: Mapping[str, int],
        files: tuple[ExportFile, ...],
    ) -> ExportSummary:
        """Everything that was counted.

        Args:
            format: name of the exporter.
            title: the format's usual name.
            options: thresholds, and options of the format.
            notes: what the exporter has to say.
            left_out: reason -> number of annotations that are not in the export, those of `notes` included.
            files: of the export; see `hash_files`.
        """
        context = self._context
        known = {one.id: one for one in context.licenses}
        order = [one.id for one in context.licenses if self._licenses[one.id]]
        numbers: list[int | None] = [*order, *sorted(n for n in self._licenses if n is not None and n not in known)]
        return ExportSummary(
            layer=context.layer,
            description=context.description,
            recipe=context.recipe,
            format=format,
            title=title,
            version=context.version,
            images=context.images,
            splits=tuple(
                SplitCounts(name, self.images[name], self.annotations[name], self._masks[name])
                for name in context.splits
            ),
            categories=tuple(
                CategoryCounts(
                    one.id,
                    one.name,
                    self._categories[one.id, True] + self._categories[one.id, False],
                    self._categories[one.id, True],
                )
                for one in context.categories
            ),
            provenance={**dict.fromkeys(PROVENANCES, 0), **self.masks.provenance},
            models=dict(sorted(self.masks.models.items(), key=lambda pair: (-pair[1], pair[0]))),
            licenses=tuple(
                LicenseCounts(
                    number,
                    known[number].name if number in known else "",
                    known[number].url if number in known else "",
                    self._licenses[number],
                )
                for number in (*numbers, *([None] if self._licenses[None] else []))
            ),
            options=dict(options),
            left_out=dict(left_out),
            notes=notes.lines,
            data_files=dict(notes.data_files),
            files=files,
        )


def plain_split_name(split: str) -> str:
    """A name of a split for files and for `datasets`: characters that are not ASCII letters, digits or "_" become "_".

    Args:
        split: one of the context's.
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", split) or "_"


def hash_files(folder: Path, image_folders: Collection[str] = ()) -> tuple[ExportFile, ...]:
    """The files in a folder and its subfolders, sorted by path, with their sizes and digests.

    Images are left out: a dataset has many, and they are the source's. Each file is read once, in parts.

    Args:
        folder: of the export.
        image_folders: paths below it, with forward slashes, in which image files and symbolic links are left out; "" =
            the folder itself.

    Raises:
        SynthgenError: a file cannot be read.
    """
    found = []
    try:
        for place, _, names in os.walk(folder):
            for name in names:
                path = Path(place, name)
                below = path.relative_to(folder).as_posix()
                if not _is_image(path, below, image_folders):
                    found.append(_hash_file(path, below))
    except OSError as why:
        raise SynthgenError(f"cannot read {folder} ({why.strerror}); export it again") from None
    return tuple(sorted(found, key=lambda one: one.path))


def _is_image(path: Path, below: str, image_folders: Collection[str]) -> bool:
    if not any(PurePosixPath(below).is_relative_to(one) for one in image_folders):
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or path.is_symlink()


def _hash_file(path: Path, below: str) -> ExportFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return ExportFile(below, size, digest.hexdigest())
