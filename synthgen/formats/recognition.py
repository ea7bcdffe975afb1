"""Recognises the format of a dataset by its files. Each reader says itself what it looks for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from synthgen import plugins
from synthgen.errors import MultipleErrors, SynthgenError

READERS_PACKAGE = "formats.readers"

_MAX_ENTRIES_BELOW = 10_000  # of a folder that is no dataset: looked at for folders
_MAX_FOLDERS_BELOW = 20  # that are tried as datasets
_MAX_SHOWN_BELOW = 5


@dataclass(frozen=True, slots=True)
class Recognized:
    """A dataset that a reader has recognised.

    Attributes:
        plugin: name of the reader.
        title: the format's usual name.
        splits: the dataset's splits, in the reader's order.
        root: the dataset's folder.
        annotations: the file, where the path named a file; else None.
        is_release: the layout of a published dataset, such as COCO's, rather than of a format.
    """

    plugin: str
    title: str
    splits: tuple[str, ...]
    root: Path
    annotations: Path | None
    is_release: bool


def recognize_dataset(path: Path) -> Recognized:
    """Find out which reader can read the dataset at a path. It looks at names, and at the start of a few files.

    The layout of a published dataset precedes a general format: COCO's own folder is also one of COCO JSON files.

    Args:
        path: the dataset's folder, or its annotation file.

    Raises:
        SynthgenError: there is no such file or folder; no reader recognises it (with the datasets in it, or with what
            each reader looks for); or several do.
    """
    check_exists(path)
    found = _find_readers(path)
    if len(found) == 1:
        return found[0]
    if found:
        titles = ", ".join(f"{one.title} (--dataset {option_name(one.plugin)})" for one in found)
        raise SynthgenError(
            f"{path} holds annotations of several formats and can be read as {titles}; choose one with --dataset"
        )
    below = _describe_datasets_below(path)
    if below:
        raise SynthgenError(
            f"{path} is not recognised as a dataset, but there are datasets in it: {below}; name one of these folders"
        )
    kinds = [
        f"{module.TITLE}: {module.LOOKS_FOR}"
        for name in plugins.list_plugins(READERS_PACKAGE)
        if hasattr(module := _load(name), "recognize")
    ]
    raise MultipleErrors(
        f"{path} is not recognised as a dataset; name its folder or annotation file, or a reader with --dataset. "
        "Looked for:",
        kinds,
    )


def _find_readers(path: Path) -> list[Recognized]:
    """The readers that recognise a path; only those of releases and of what they also hold, if there are any."""
    found = [one for name in plugins.list_plugins(READERS_PACKAGE) if (one := recognize_as(name, path)) is not None]
    releases = [one for one in found if one.is_release]
    beside = {name for one in releases for name in getattr(_load(one.plugin), "ALSO_HOLDS", ())}
    return [one for one in found if not releases or one.is_release or one.plugin in beside]


def _describe_datasets_below(path: Path) -> str:
    """The first folders directly in a folder that are datasets, with their formats; "" if there are none."""
    try:
        with os.scandir(path) as entries:
            some = islice(entries, _MAX_ENTRIES_BELOW)
            names = sorted(entry.name for entry in some if entry.name[0] != "." and entry.is_dir())
    except OSError:  # a file, or a folder that cannot be read
        return ""
    found = ((name, _find_readers(path / name)) for name in names[:_MAX_FOLDERS_BELOW])
    shown = [f"{name} ({' or '.join(one.title for one in readers)})" for name, readers in found if readers]
    return ", ".join(shown[:_MAX_SHOWN_BELOW]) + (", ..." if len(shown) > _MAX_SHOWN_BELOW else "")


def recognize_as(plugin: str, path: Path) -> Recognized | None:
    """What one reader recognises at a path; None if it does not, or if it cannot recognise files.

    Args:
        plugin: name of the reader.
        path: an existing folder or file.
    """
    module = _load(plugin)
    if not hasattr(module, "recognize"):
        return None
    splits = module.recognize(path)
    if splits is None:
        return None
    root, annotations = split_path(path)
    is_release = not getattr(module, "LAYOUT_SPLITS", False)
    return Recognized(plugin, module.TITLE, splits, root, annotations, is_release)


def find_splits(plugin: str, root: Path, annotations: Path | None) -> tuple[str, ...]:
    """The splits of a dataset whose reader is known.

    Args:
        plugin: name of the reader.
        root: folder of the dataset.
        annotations: the user's annotation file or folder; None = those in `root`.

    Raises:
        SynthgenError: no split has its files; the error of the first split.
    """
    module = _load(plugin)
    if getattr(module, "LAYOUT_SPLITS", False) and (splits := module.recognize(annotations or root)):
        return tuple(splits)
    if annotations is not None:
        return (module.SPLITS[0],)
    found, reasons = [], []
    for split in module.SPLITS:
        try:
            module.files(root, split, None)
            found.append(split)
        except SynthgenError as why:
            reasons.append(why)
    if not found:
        raise reasons[0]
    return tuple(found)


def split_path(path: Path) -> tuple[Path, Path | None]:
    """A dataset's folder and its annotation file, None if the path names the folder."""
    return (path, None) if path.is_dir() else (path.parent, path)


def check_exists(path: Path) -> None:
    """Refuse a path at which there is nothing, or a pipe or device, which a reader would wait for.

    Args:
        path: named by the user.

    Raises:
        SynthgenError: no file or folder has this name.
    """
    if not path.exists():
        raise SynthgenError(f"no file or folder {path}; name a dataset's folder or its annotation file")
    if not (path.is_file() or path.is_dir()):
        raise SynthgenError(f"{path} is a pipe or a device, and files are read several times; write it to a file first")


def option_name(plugin: str) -> str:
    """The name of a reader, `plugin`, as it is typed: "coco_json" is `--dataset coco-json`."""
    return plugin if "." in plugin else plugin.replace("_", "-")


def _load(plugin: str) -> Any:
    return plugins.load_plugin(READERS_PACKAGE, plugin)
