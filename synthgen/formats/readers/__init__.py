"""Shelf of datasets: one file each, its name is the `--dataset`. This is what such a file offers.

    SPLITS: tuple[str, ...]      the first is the default
    LAYERS: tuple[str, ...]      "annotations" (boxes) first, then layers of human masks or phrases

    def files(root, split, annotations) -> Files
        where the dataset's own files are below `root` (or the file that the user named); `SynthgenError` if not there
    def read(files, layer) -> Iterator[Images | Annotations | Categories]
        the content in the order of the file, in batches of some 10,000, never all at once
    def complete(files, layer) -> Callable[[Sample, list[bytes | None]], Sample]      only for layers with payloads
        adds to one sample what its annotations' payloads hold: masks, phrases

A reader knows the file's format and nothing else: sorting, auditing and sharding are `ingest`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthgen.records.sample import Sample


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """Where a dataset lies.

    Attributes:
        sources: the annotation files, by their role in this dataset ("instances", "objects", ...); a folder stands for
            the files in it.
        image_folder: folder below which `Sample.file_name` is found.
        layer_sources: by layer, the sources that it is made from; a layer that is not named here is made from all.
        split: the part that is to be read, where the sources hold several.
        image_key_prefix: what tells the photographs' folder from others of the same dataset, in keys of what is
            known by its name alone; wherever `image_folder` is.
        on_bytes: where it is given, a reader tells it how many further bytes of the sources it has read.
    """

    sources: dict[str, Path]
    image_folder: Path
    layer_sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    split: str = ""
    image_key_prefix: str = ""
    on_bytes: Callable[[int], None] | None = None

    def for_layer(self, layer: str) -> DatasetFiles:
        """With only the sources that a layer is made from."""
        roles = self.layer_sources.get(layer, tuple(self.sources))
        return replace(self, sources={role: path for role, path in self.sources.items() if role in roles})

    def with_image_folder(self, image_folder: Path | None) -> DatasetFiles:
        """With the folder of images that the user names, if any: also as a source, where the folder is one."""
        if image_folder is None:
            return self
        sources = {role: image_folder if role == "images" else path for role, path in self.sources.items()}
        return replace(self, sources=sources, image_folder=image_folder)

    def total_bytes(self) -> int:
        """What `on_bytes` will be told in all, roughly.

        That is the bytes of the files, and those below the folders where there is no file, or the images are a source.
        """
        paths = set(self.sources.values())
        files = {path for path in paths if path.is_file()}
        if "images" in self.sources or not files:
            files |= {file for folder in paths - files for file in folder.rglob("*") if file.is_file()}
        return sum(path.stat().st_size for path in files)


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """A batch of a dataset's images.

    Attributes:
        image_id: int64 [N].
        file_name: below the image folder.
        image_key: the photograph's identity (`Sample.image_key`); "" = nobody else's, `ingest` makes one of the
            dataset's name and the file's; what begins with a slash goes behind the dataset's name instead.
        height, width: int32 [N], pixels; 0 where the file does not say.
        error: why an image's annotations cannot be had, for `Sample.error`, or None; None throughout where not given.
        neg_categories, not_exhaustive_categories: N lists of category ids, for `Sample`'s fields of these names; given
            for all of a dataset's images or for none.
    """

    image_id: NDArray[np.int64]
    file_name: Sequence[str]
    image_key: Sequence[str]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    error: Sequence[str | None] | None = None
    neg_categories: Sequence[Sequence[int]] | None = None
    not_exhaustive_categories: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationBatch:
    """A batch of a dataset's annotations, of any images, in any order.

    Attributes:
        image_id: int64 [M]; id: int64 [M], the dataset's own.
        bbox: float64 [M, 4] XYWH, absolute pixels, original image, exactly as the file gives it.
        category: int64 [M], the file's own category id; `Categories` gives the names.
        iscrowd: bool [M].
        flags: flag name -> bool [M], for what the file itself says ("fake", "reflected", "no_box").
        payload: one `bytes` per annotation that `complete` understands; None = this layer has none.
    """

    image_id: NDArray[np.int64]
    id: NDArray[np.int64]
    bbox: NDArray[np.float64]
    category: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    payload: Sequence[bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class Categories:
    """A dataset's categories; a reader may give them in several parts.

    Attributes:
        names: by category id, in the order of the file, stripped of outer blanks and otherwise as they are spelt.
        stuff: ids of stuff categories.
        padded: names that the file spells with outer blanks, by id, as it spells them.
    """

    names: dict[int, str]
    stuff: frozenset[int] = frozenset()
    padded: dict[int, str] = field(default_factory=dict)


class DatasetReader(Protocol):
    """The module of one dataset, as the docstring of this package says."""

    SPLITS: tuple[str, ...]
    LAYERS: tuple[str, ...]

    def files(self, root: Path, split: str, annotations: Path | None) -> DatasetFiles: ...

    def read(self, files: DatasetFiles, layer: str) -> Iterator[ImageBatch | AnnotationBatch | Categories]: ...

    def complete(self, files: DatasetFiles, layer: str) -> Callable[[Sample, list[bytes | None]], Sample]: ...
