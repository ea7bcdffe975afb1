"""Resolves the dataset that a command names: its plugin, its files, its name in the store."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetReader
from synthgen.storage.shard_store import check_name

READERS_PACKAGE = "formats.readers"


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset as a command names it.

    Attributes:
        plugin: a plugin of `formats.readers`.
        name: its name in the store.
        split: part of the dataset.
        root: its folder; annotations: its annotation file, if the user names one.
        images: folder of its images, if the user names one.
        crowds_as_objects: take annotations with `iscrowd` for single objects.
    """

    plugin: str
    name: str
    split: str
    root: Path
    annotations: Path | None
    images: Path | None
    crowds_as_objects: bool = False

    @property
    def default_name(self) -> str:
        """Its name in the store, unless the user gives one."""
        return _default_name(self.plugin, self.annotations)

    @property
    def reader(self) -> DatasetReader:
        """The plugin itself."""
        return cast(DatasetReader, plugins.load_plugin(READERS_PACKAGE, self.plugin))

    def locate_files(self) -> DatasetFiles:
        """The files of the dataset.

        Raises:
            SynthgenError: it does not lie there.
        """
        files = self.reader.files(self.root, self.split, self.annotations).with_image_folder(self.images)
        return replace(files, crowds_as_objects=self.crowds_as_objects)

    def resolve_image_folder(self) -> Path:
        """The image folder. Looks for annotation files only if the user names no folder.

        Raises:
            SynthgenError: there is no such folder.
        """
        folder = self.images if self.images is not None else self.locate_files().image_folder
        if not folder.is_dir():
            raise SynthgenError(f"no folder {folder} with the images of {self.name}; name it with --images")
        return folder


def resolve_dataset(
    dataset: str,
    name: str | None,
    split: str | None,
    data: Path,
    annotations: Path | None,
    images: Path | None,
    *,
    crowds_as_objects: bool = False,
) -> DatasetSpec:
    """Resolve and check what the user named, before anything is read.

    Raises:
        SynthgenError: no such dataset, split or file; a name that cannot be a folder.
    """
    module: Any = plugins.load_plugin(READERS_PACKAGE, dataset)
    for part in ("SPLITS", "LAYERS", "files", "read"):
        if not hasattr(module, part):
            raise SynthgenError(f"module '{dataset}' has no {part} and is no dataset; see synthgen.{READERS_PACKAGE}")
    plugin = plugins.normalize_name(dataset)
    if split is None:
        split = module.SPLITS[0]
    elif split not in module.SPLITS and annotations is None and name is None:
        raise SynthgenError(f"{plugin} has no split '{split}' (have: {', '.join(module.SPLITS)})")
    if annotations is not None and not annotations.exists():
        raise SynthgenError(f"no file {annotations}; --annotations should name the annotation file")
    if name is None and plugin == "coco_json" and annotations is None:
        raise SynthgenError("--dataset coco-json needs --annotations FILE (or the --name of one ingested before)")
    name = name or _default_name(plugin, annotations)
    root = data / plugin
    if not root.is_dir() and "." not in plugin:  # the folder may be named as the option is spelt
        root = data / plugin.replace("_", "-")
    if plugin == "coco_json" and annotations is not None:
        root = annotations.parent
    return DatasetSpec(plugin, check_name(name), check_name(split), root, annotations, images, crowds_as_objects)


def _default_name(plugin: str, annotations: Path | None) -> str:
    if plugin == "coco_json" and annotations is not None:
        stem = Path(annotations.name.removesuffix(".gz")).stem  # boxes.json.gz is "boxes", too
        return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:200].strip("-_") or "dataset"
    return plugin.rsplit(".", 1)[-1]
