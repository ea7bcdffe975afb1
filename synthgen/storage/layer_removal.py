"""The removal of a layer: deletes what synthgen wrote there, and nothing else.

Links are not followed. Files of others stay, and so do the folders that hold them. A removal that was killed is
finished by the same call.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.storage.atomic import is_temporary_path
from synthgen.storage.disk import sync_folder, translate_os_errors
from synthgen.storage.identity import parent_shard
from synthgen.storage.locks import lock_folder
from synthgen.storage.shard_store import ShardStore
from synthgen.storage.update_record import RECORD_NAME

_LOG_NAME = "_log"


@dataclass(frozen=True, slots=True)
class LayerRemoval:
    """What a removal deletes, or has deleted.

    Attributes:
        layer: DATASET/SPLIT/LAYER.
        shards: number of shards; size_bytes: of these files.
        dependents: layers that were made from this one, and cannot be renewed without it.
        foreign: entries of the folder that are not synthgen's, and stay.
    """

    layer: str
    shards: int
    size_bytes: int
    dependents: tuple[str, ...]
    foreign: tuple[str, ...]


def plan_removal(store: ShardStore, layer: str) -> LayerRemoval:
    """What `remove_layer` would delete. Changes nothing.

    Args:
        store: where the layer lies.
        layer: DATASET/SPLIT/LAYER.

    Raises:
        SynthgenError: there is no such layer, or a link is in its path.
    """
    place = _find_place(store, layer)
    own, foreign = _list_own(store, place)
    folder = store.layer_folder(*place)
    size = sum((folder / name).lstat().st_size for name in own)
    return LayerRemoval("/".join(place), len(own), size, tuple(_find_dependents(store, place)), tuple(foreign))


def remove_layer(store: ShardStore, layer: str, *, force: bool = False) -> LayerRemoval:
    """Delete the shards, the temporary files and the logs of a layer, and the folders that are empty then.

    Args:
        store: where the layer lies.
        layer: DATASET/SPLIT/LAYER.
        force: also if other layers were made from this one.

    Returns:
        What was deleted.

    Raises:
        SynthgenError: there is no such layer; a link is in its path; a job uses the layer; other layers were made from
            it, and `force` is not set.
    """
    plan = plan_removal(store, layer)
    if plan.dependents and not force:
        raise SynthgenError(
            f"{', '.join(plan.dependents)} cannot be renewed without {plan.layer}; delete what was made from it first, "
            "or add --force"
        )
    place = _find_place(store, layer)
    folder = store.layer_folder(*place)
    with translate_os_errors(folder, remedy="check its permissions"):
        with lock_folder(folder) as (handle, is_locked):
            if is_locked is not False:
                store.remove_stale_files(*place)
            # Those that stay are locked by their writers.
            if is_locked is False or any(map(is_temporary_path, folder.glob(".*.tmp"))):
                raise SynthgenError(f"a job uses {plan.layer}; wait until it has ended, or end it")
            for name in (*_list_own(store, place)[0], RECORD_NAME):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=handle)
            if not (folder / _LOG_NAME).is_symlink() and (folder / _LOG_NAME).is_dir():
                shutil.rmtree(_LOG_NAME, dir_fd=handle)
            os.fsync(handle)
        for empty in (folder, folder.parent, folder.parent.parent):
            try:
                empty.rmdir()
            except OSError:  # it holds something else
                break
            sync_folder(empty.parent)
    return plan


def _find_place(store: ShardStore, layer: str) -> tuple[str, str, str]:
    """The dataset, split and layer that a text names.

    Args:
        store: where the layer lies.
        layer: DATASET/SPLIT/LAYER.

    Raises:
        SynthgenError: there is no such folder, or a link is in its path.
    """
    parts = layer.strip("/").split("/")
    if len(parts) != 3:
        raise SynthgenError(f"'{layer}' does not name a layer; give DATASET/SPLIT/LAYER, as `synthgen status` lists")
    dataset, split, name = parts
    folder = store.layer_folder(dataset, split, name)
    for path in (folder.parent.parent, folder.parent, folder):
        if path.is_symlink():
            raise SynthgenError(f"{path} is a link, which is not followed; delete the link itself")
    if not folder.is_dir():
        raise SynthgenError(f"no layer {layer} in {store.root}; `synthgen status` lists what is there")
    return dataset, split, name


def _list_own(store: ShardStore, place: tuple[str, str, str]) -> tuple[list[str], list[str]]:
    """The names of the shard files in a layer's folder, and of what is not synthgen's."""
    folder = store.layer_folder(*place)
    names = {shard.relative_path.rpartition("/")[2] for shard in store.scan_layer(*place).shards}
    own, foreign = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in names and entry.is_file(follow_symlinks=False):
                own.append(entry.name)
            elif not _is_service(entry):
                foreign.append(entry.name)
    return own, foreign


def _is_service(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is the log, the record of updates, or a temporary file."""
    if entry.name == _LOG_NAME:
        return entry.is_dir(follow_symlinks=False)
    if entry.name == RECORD_NAME:
        return entry.is_file(follow_symlinks=False)
    return is_temporary_path(Path(entry.path)) and not entry.is_symlink()


def _find_dependents(store: ShardStore, place: tuple[str, str, str]) -> Iterator[str]:
    """The layers of the same images whose shards name this layer as their parent."""
    for other in store.list_layers():
        if other[:2] != place[:2] or other == place:
            continue
        for shard in store.scan_layer(*other).shards:
            try:
                parent = parent_shard(shard, store.read_footer(shard) or {})
            except SynthgenError:  # a damaged one
                continue
            if parent is not None and parent.layer == place[2]:
                yield "/".join(other)
            break


def format_removal(removal: LayerRemoval, *, is_done: bool) -> Iterator[str]:
    """A removal as lines of text.

    Args:
        removal: what is, or was, deleted.
        is_done: whether it was.
    """
    verb = "deleted" if is_done else "would delete"
    yield f"{removal.layer}: {verb} {removal.shards:,} shards ({removal.size_bytes / 1e6:,.2f} MB) and their logs"
    if removal.dependents:
        yield f"  {', '.join(removal.dependents)} cannot be renewed without it"
    if removal.foreign:
        stay = "stayed" if is_done else "would stay"
        yield f"  {stay}, as synthgen did not write it: {', '.join(removal.foreign[:10])}" + (
            f" and {len(removal.foreign) - 10:,} more" if len(removal.foreign) > 10 else ""
        )
