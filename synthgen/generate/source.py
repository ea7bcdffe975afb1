"""Which dataset a command means: its plugin, its name in the store, its files; and its layers, made when missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.datasets import Dataset, Files
from synthgen.records.store import check_word

SHELF = "generate.datasets"


class Bar(Protocol):
    """What counts progress for a person: `advance(n)` while the block runs."""

    def advance(self, count: int) -> None: ...


#: (what, total, unit) -> a context manager around a `Bar`
NewBar = Callable[[str, int, str], AbstractContextManager[Bar]]


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset as a command names it.

    Attributes:
        plugin: file on the shelf of datasets.
        name: what the store calls it.
        split: part of the dataset.
        root: its own folder; annotations: its annotation file, where the user names one.
        images: folder of its images, where the user names one.
    """

    plugin: str
    name: str
    split: str
    root: Path
    annotations: Path | None
    images: Path | None

    @property
    def module(self) -> Dataset:
        """The plugin itself."""
        return cast(Dataset, plugins.load(SHELF, self.plugin))

    def files(self) -> Files:
        """Where the dataset lies.

        Raises:
            SynthgenError: it does not lie there.
        """
        found = self.module.files(self.root, self.split, self.annotations)
        return found if self.images is None else replace(found, images=self.images)

    def image_folder(self) -> Path:
        """Folder of the images; asks for the annotation files only where the user names no folder.

        Raises:
            SynthgenError: there is no such folder.
        """
        folder = self.images if self.images is not None else self.files().images
        if not folder.is_dir():
            raise SynthgenError(f"no folder {folder} with the images of {self.name}; name it with --images")
        return folder


def resolve(
    dataset: str,
    name: str | None,
    split: str | None,
    data: Path,
    annotations: Path | None,
    images: Path | None,
) -> Source:
    """Understand what the user named, before anything is read.

    Raises:
        SynthgenError: no such dataset, split or file; a name that cannot be a folder.
    """
    module: Any = plugins.load(SHELF, dataset)
    plugin = dataset if "." in dataset else dataset.replace("-", "_")
    if split is None:
        split = module.SPLITS[0]
    elif split not in module.SPLITS and annotations is None and name is None:
        raise SynthgenError(f"{plugin} has no split '{split}' (have: {', '.join(module.SPLITS)})")
    if annotations is not None and not annotations.is_file():
        raise SynthgenError(f"no file {annotations}; --annotations should name the annotation file")
    if name is None:
        name = plugin.rsplit(".", 1)[-1]
        if plugin == "coco_json":
            if annotations is None:
                raise SynthgenError(
                    "--dataset coco-json needs --annotations FILE (or the --name of one ingested before)"
                )
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", annotations.stem).strip("-_") or "dataset"
    return Source(plugin, check_word(name), check_word(split), data / plugin, annotations, images)
