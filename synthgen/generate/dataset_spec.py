"""Resolves the dataset that a command names: its plugin, its files, its name in the store."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetReader
from synthgen.formats.recognition import (
    READERS_PACKAGE,
    check_exists,
    find_splits,
    option_name,
    recognize_as,
    recognize_dataset,
    split_path,
)
from synthgen.storage.shard_store import check_name


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset as a command names it.

    Attributes:
        plugin: a plugin of `formats.readers`.
        name: its name in the store.
        split: part of the dataset.
        root: folder of the dataset.
        annotations: its annotation file, if the user names one.
        images: folder of its images, if the user names one.
        match_names: also take image files that are there under another form of their name.
        crowds_as_objects: take annotations with `iscrowd` for single objects.
    """

    plugin: str
    name: str
    split: str
    root: Path
    annotations: Path | None
    images: Path | None
    match_names: bool = False
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """What a user says about a dataset, on the command line or in Python; None = not said.

    Attributes:
        path: its folder or annotation file. None = the reader `dataset` finds it below `data`.
        dataset: a reader. None = it is recognised by the files at `path`.
        name: its name in the store.
        split: part of the dataset. None = all splits at `path`.
        data: folder of the datasets, one folder each.
        annotations: the annotation file, or folder of masks, if it is not at the dataset's usual place.
        images: folder of the images, if it is not at the dataset's usual place.
        match_names, crowds_as_objects: see `DatasetSpec`.
    """

    path: Path | None = None
    dataset: str | None = None
    name: str | None = None
    split: str | None = None
    data: Path = Path("data")
    annotations: Path | None = None
    images: Path | None = None
    match_names: bool = False
    crowds_as_objects: bool = False

    def resolve(self) -> list[DatasetSpec]:
        """One spec for each split; see `resolve_datasets`.

        Raises:
            SynthgenError: no such dataset, split or file.
        """
        return resolve_datasets(
            self.path,
            self.dataset,
            self.name,
            self.split,
            self.data,
            self.annotations,
            self.images,
            match_names=self.match_names,
            crowds_as_objects=self.crowds_as_objects,
        )


def resolve_datasets(
    path: Path | None,
    dataset: str | None,
    name: str | None,
    split: str | None,
    data: Path,
    annotations: Path | None,
    images: Path | None,
    *,
    match_names: bool = False,
    crowds_as_objects: bool = False,
) -> list[DatasetSpec]:
    """Resolve what a command names, by a path or by `--dataset`; one spec for each split, if none is named.

    Args:
        path: the dataset's folder or annotation file; None = the reader `dataset` finds it below `data`.
        dataset: a reader; None = it is recognised by the files at `path`.
        name: name in the store; None = made of the path or of the reader.
        split: None = all splits at `path`. Without a path: all splits of a format, but the first of a release.
        data: folder of all datasets (`--data`).
        annotations: annotation file, only without `path`; None = the dataset's own.
        images: folder of the images; None = the dataset's own.
        match_names: see `DatasetSpec`.
        crowds_as_objects: see `DatasetSpec`.

    Raises:
        SynthgenError: nothing is named, or too much; no such dataset, split or file; the layout is unknown.
    """
    if path is None:
        if dataset is None:
            raise SynthgenError("no dataset is named; give its folder or annotation file, or --dataset")
        spec = resolve_dataset(
            dataset,
            name,
            split,
            data,
            annotations,
            images,
            match_names=match_names,
            crowds_as_objects=crowds_as_objects,
        )
        if split is not None or annotations is not None or not getattr(spec.reader, "LAYOUT_SPLITS", False):
            return [spec]
        if not spec.root.is_dir():  # ingested before, and its files are not on this machine
            return [spec]
        return [replace(spec, split=check_name(one)) for one in find_splits(spec.plugin, spec.root, None)]
    if annotations is not None:
        raise SynthgenError(f"{path} and --annotations {annotations} both name a dataset; leave one out")
    check_exists(path)
    if dataset is None:
        found = recognize_dataset(path)
        plugin, splits = found.plugin, found.splits
    else:
        _load_reader(dataset)
        plugin = plugins.normalize_name(dataset)
        splits = _splits_of_reader(plugin, path)
    root, file = split_path(path)
    if split is not None and split not in splits:
        raise SynthgenError(f"{path} has no split '{split}' (it has {', '.join(splits)})")
    own_name = check_name(name or _name_of_path(path))
    chosen = splits if split is None else (split,)
    return [
        DatasetSpec(plugin, own_name, check_name(one), root, file, images, match_names, crowds_as_objects)
        for one in chosen
    ]


def _splits_of_reader(plugin: str, path: Path) -> tuple[str, ...]:
    """The splits at a path for a reader that the user has chosen. A file that no reader recognises is left to it."""
    module: Any = plugins.load_plugin(READERS_PACKAGE, plugin)
    root, file = split_path(path)
    if not hasattr(module, "recognize"):
        return find_splits(plugin, root, file)
    found = recognize_as(plugin, path)
    if found is not None:
        return found.splits
    hint = _other_format(plugin, path)
    if file is not None and not hint:
        return (module.SPLITS[0],)
    raise SynthgenError(f"{path} is not recognised as {module.TITLE} ({module.LOOKS_FOR}){hint}")


def _other_format(plugin: str, path: Path) -> str:
    """A hint if another reader than the chosen one recognises a path; "" if the chosen one does, or none."""
    if recognize_as(plugin, path) is not None:
        return ""
    try:
        other = recognize_dataset(path)
    except SynthgenError:
        return ""
    return f"; it looks like {other.title}: use --dataset {option_name(other.plugin)}, or give the path alone"


def _name_of_path(path: Path) -> str:
    """The name in the store of a dataset at a path: the folder's, or the file's if the file's name says something."""
    absolute = path.absolute()
    if path.is_dir():
        is_split_of_roboflow = next(path.glob("_annotations.*"), None) is not None
        return _clean_name(absolute.parent.name if is_split_of_roboflow else absolute.name)
    if path.name.startswith("_annotations."):
        return _clean_name(absolute.parent.parent.name)
    if path.suffix in (".yaml", ".yml"):
        return _clean_name(absolute.parent.name)
    return _clean_name(path.name.partition(".")[0])


def _clean_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:200].strip("-_") or "dataset"


def _load_reader(dataset: str) -> Any:
    module: Any = plugins.load_plugin(READERS_PACKAGE, dataset)
    for part in ("SPLITS", "LAYERS", "files", "read"):
        if not hasattr(module, part):
            raise SynthgenError(f"module '{dataset}' has no {part} and is no dataset; see synthgen.{READERS_PACKAGE}")
    return module


def resolve_dataset(
    dataset: str,
    name: str | None,
    split: str | None,
    data: Path,
    annotations: Path | None,
    images: Path | None,
    *,
    match_names: bool = False,
    crowds_as_objects: bool = False,
) -> DatasetSpec:
    """Resolve and check what the user named, before anything is read.

    Args:
        dataset: name of a reader.
        name: name in the store; None = that of the reader, or of the annotation file.
        split: None = the first of the reader's `SPLITS`.
        data: folder of all datasets (`--data`).
        annotations: annotation file; None = the dataset's own.
        images: folder of the images; None = the dataset's own.
        match_names: see `DatasetSpec`.
        crowds_as_objects: see `DatasetSpec`.

    Raises:
        SynthgenError: no such dataset, split or file; a name that cannot be a folder.
    """
    module = _load_reader(dataset)
    plugin = plugins.normalize_name(dataset)
    folder_decides = getattr(module, "LAYOUT_SPLITS", False)  # which splits there are
    if split is None:
        split = module.SPLITS[0]
    elif not folder_decides and split not in module.SPLITS and annotations is None and name is None:
        raise SynthgenError(f"{plugin} has no split '{split}' (have: {', '.join(module.SPLITS)})")
    if annotations is not None:
        if not annotations.exists():
            raise SynthgenError(f"no file {annotations}; --annotations should name the annotation file")
        check_exists(annotations)
        if folder_decides and (hint := _other_format(plugin, annotations)):
            raise SynthgenError(f"{annotations} is not recognised as {module.TITLE} ({module.LOOKS_FOR}){hint}")
    if name is None and plugin == "coco_json" and annotations is None:
        raise SynthgenError("--dataset coco-json needs --annotations FILE (or the --name of one ingested before)")
    name = name or _default_name(plugin, annotations)
    root = data / plugin
    if not root.is_dir() and "." not in plugin:  # the folder may be named as the option is spelt
        root = data / plugin.replace("_", "-")
    if plugin == "coco_json" and annotations is not None:
        root = annotations.parent
    return DatasetSpec(
        plugin,
        check_name(name),
        check_name(split),
        root,
        annotations,
        images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )


def _default_name(plugin: str, annotations: Path | None) -> str:
    if plugin == "coco_json" and annotations is not None:
        return _clean_name(Path(annotations.name.removesuffix(".gz")).stem)  # boxes.json.gz is "boxes", too
    return plugin.rsplit(".", 1)[-1]
