"""Ingest: writes the first layer of a dataset from its annotation files, sorted by image, checked, in shards."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError, job_has_started
from synthgen.formats.readers import DatasetFiles, DatasetReader
from synthgen.ingest.layer_source import LayerSource, ReadSlices, build_footer
from synthgen.ingest.origin_checks import check_origin
from synthgen.ingest.source_digests import remember_digests
from synthgen.ingest.update import LayerChanges, needs_update, preview_update, update_layer
from synthgen.progress import ReportPhase
from synthgen.records.recipe import format_recipe
from synthgen.records.sample import UNPROMPTED_FLAGS
from synthgen.storage.disk import without_empty_folders
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.locks import use_folder
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.storage.update_record import REMOVED_CHOICES, describe_unfinished, read_update_record

_WRITER_THREADS = 2  # writing a shard takes about twice as long as building it

#: Members of a recipe that an update changes.
_UPDATED_KEYS = {"sources", "image_names"}


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingest. Existing shards count by their footers.

    Attributes:
        shards: in the layer; committed: by this run.
        images, annotations, masks: how many; errors: images that have one.
        flags: how many annotations carry each flag.
        has_usable_box: whether a job can prompt a box, or there are masks.
        changes: what an update changed; None = the files had not changed.
    """

    shards: int
    committed: int
    images: int
    annotations: int
    masks: int
    errors: int
    flags: dict[str, int]
    has_usable_box: bool
    changes: LayerChanges | None = None


@without_empty_folders()
def ingest(
    store: ShardStore,
    reader: DatasetReader,
    files: DatasetFiles,
    *,
    name: str,
    split: str,
    layer: str = "annotations",
    shard_size: int = 0,
    match_names: bool = False,
    crowds_as_objects: bool = False,
    update: bool = False,
    removed: str = "drop",
    on_progress: ReportPhase | None = None,
) -> IngestReport:
    """Write the layer `name`/`split`/`layer` from the dataset's files. Existing shards are kept.

    Args:
        store: where the shards are written.
        reader: the dataset's format.
        files: as `reader.files` returns them.
        name: the dataset's name in the store.
        split: the split's name in the store.
        layer: one of the reader's `LAYERS`.
        shard_size: images per shard; 0 = as in existing shards, else a 64th of the images, at least 16 and at
            most 1000.
        match_names: also take image files that are there under another form of their name; see `name_matching`.
        crowds_as_objects: take annotations with `iscrowd` for single objects; `files` may say so, too.
        update: if the files have changed, write the shards whose rows change; see `update_layer`.
        removed: "drop" or "keep" the images that changed files do not list any more.
        on_progress: called with the phase, the units done and the units in all.

    Raises:
        SynthgenError: the files are not of this format, or changed meanwhile; two images have one id; the layer was
            made in another way, or from other files and `update` is not set; it is "human", and the files say that a
            machine drew a mask.
    """
    _check_request(reader, name, layer, removed)
    files = replace(files.for_layer(layer), crowds_as_objects=files.crowds_as_objects or crowds_as_objects)
    source = LayerSource(
        store, reader, files, name, split, layer, match_names=match_names, on_progress=on_progress or (lambda *_: None)
    )
    check_origin(files, layer)
    store.remove_stale_files(name, split, layer)
    present = source.present_shards()
    if present and not shard_size:
        shard_size = _shard_size(source, present)
    before = source.states()
    recipe = source.recipe(shard_size)
    # The digest reads the files a second time, parallel to the parser, so mostly from the page cache.
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        digests = pool.submit(source.digest)
        if present or read_update_record(source.folder) is not None:
            _check_same_recipe(store, present, recipe)
            if needs_update(source, present, digests.result().by_role, removed=removed if update else None):
                if not update:
                    raise SynthgenError(_describe_changes(source, present, digests.result().by_role))
                changes = update_layer(source, recipe, removed=removed)
                committed = 0 if changes is None else len(changes.by_shard)
                return replace(_build_report(store, source.present_shards(), committed), changes=changes)
            theirs = (store.read_footer(present[0]) or {}).get("recipe", {})
            if match_names and "image_names" in theirs:  # compared when the missing shards are made
                recipe["image_names"] = theirs["image_names"]
            if len(present) == present[0].num_shards:
                store.create_layer(name, split, layer)
                remember_digests(source.log, digests.result())
                record_image_folder(store, name, split, layer, files.image_folder)
                return _build_report(store, present, committed=0)
        else:
            store.create_root()
        store.create_layer(name, split, layer)
        with use_folder(source.folder), store.layer_scratch_folder(name, split, layer) as scratch:
            read = source.read(scratch, shard_size=shard_size)
            if read.image_names is not None and recipe.setdefault("image_names", read.image_names) != read.image_names:
                raise SynthgenError(
                    f"--match-names finds other images in {files.image_folder} than when {source} was "
                    f"begun; delete {source.folder}, or choose another --name"
                )
            with job_has_started():
                recipe["sources"] = digests.result().by_role
                source.check_unchanged(before)
                remember_digests(source.log, digests.result())
                record_image_folder(
                    store, name, split, layer, files.image_folder
                )  # before the last shard, which has no next one
                committed = _write_shards(source, read, recipe, set(present))
    return _build_report(store, store.list_shards(name, split, layer), committed)


def describe_source_change(
    store: ShardStore,
    reader: DatasetReader,
    files: DatasetFiles,
    *,
    name: str,
    split: str,
    layer: str = "annotations",
    match_names: bool = False,
    remember: bool = True,
) -> str | None:
    """A sentence if the layer was made from other files, or by other options; None if not, or if it is not there.

    Files that are certainly unchanged are not read again; others are hashed at 1 to 2 GB per second. Changed ones are
    parsed, to count the changes.

    Args:
        store: where the shards lie.
        reader: the dataset's format.
        files: as `reader.files` returns them.
        name: the dataset's name in the store.
        split: the split's name in the store.
        layer: the layer to compare.
        match_names: the option of `ingest` with which the layer would be made now.
        remember: write to the layer's log that the files are unchanged, which saves time later.
    """
    files = files.for_layer(layer)
    place = store.layer_folder(name, split, layer)
    present = store.list_shards(name, split, layer, check_update=False)
    recipe = (store.read_footer(present[0]) or {}).get("recipe", {}) if present else {}
    if recipe.get("sources") is None:
        return None
    for option, is_set in (("match_names", match_names), ("crowds_as_objects", files.crowds_as_objects)):
        if is_set != recipe.get(option, False):
            return (
                f"{name}/{split}/{layer} was made {'without' if is_set else 'with'} --{option.replace('_', '-')}; "
                f"choose another --name, or delete {place}"
            )
    source = LayerSource(store, reader, files, name, split, layer, match_names=match_names)
    now = source.digest()
    if needs_update(source, present, now.by_role):
        return _describe_changes(source, present, now.by_role)
    if remember:
        with contextlib.suppress(SynthgenError, OSError):
            remember_digests(source.log, now)
    return None


def has_changed(store: ShardStore, reader: DatasetReader, files: DatasetFiles, place: tuple[str, str, str]) -> bool:
    """Whether a layer was made from other files than those there now, or is in the middle of an update.

    Args:
        store: where the shards lie.
        reader: the dataset's format.
        files: as `reader.files` returns them.
        place: the dataset, the split and one of the reader's `LAYERS`.
    """
    source = LayerSource(store, reader, files.for_layer(place[2]), *place)
    present = source.present_shards()
    return bool(present) and needs_update(source, present, source.digest().by_role)


def preview_changes(
    store: ShardStore,
    reader: DatasetReader,
    files: DatasetFiles,
    *,
    name: str,
    split: str,
    layer: str = "annotations",
    match_names: bool = False,
    update: bool = False,
    removed: str = "drop",
) -> LayerChanges | None:
    """What `ingest` would change in a layer; None = nothing, or the layer is not there. Writes nothing.

    Args:
        store: where the shards lie.
        reader: the dataset's format.
        files: as `reader.files` returns them.
        name: the dataset's name in the store.
        split: the split's name in the store.
        layer: one of the reader's `LAYERS`.
        match_names: see `ingest`.
        update: see `ingest`.
        removed: see `ingest`.

    Raises:
        SynthgenError: as `ingest`.
    """
    _check_request(reader, name, layer, removed)
    check_origin(files.for_layer(layer), layer)
    source = LayerSource(store, reader, files.for_layer(layer), name, split, layer, match_names=match_names)
    present = source.present_shards()
    if not present and read_update_record(source.folder) is None:
        return None
    shard_size = _shard_size(source, present)
    _check_same_recipe(store, present, source.recipe(shard_size))
    now = source.digest().by_role
    if not needs_update(source, present, now, removed=removed if update else None):
        return None
    if not update:
        raise SynthgenError(_describe_changes(source, present, now))
    return preview_update(source, shard_size, removed=removed)


def _describe_changes(source: LayerSource, present: list[Shard], now: dict[str, str]) -> str:
    """The sentence that refuses an ingest or a job without `update`.

    Args:
        source: the layer and its files.
        present: its committed shards.
        now: the digests of the files, by role.
    """
    if (unfinished := describe_unfinished(source.folder)) is not None:
        return unfinished
    record = read_update_record(source.folder)
    recipes = [(source.store.read_footer(shard) or {}).get("recipe", {}) for shard in present]
    versions = [recipe.get("sources", {}) for recipe in recipes] if record is None else [record.sources]
    roles = [role for role in source.files.sources if any(now[role] != then.get(role) for then in versions)]
    paths = [source.files.sources[role] for role in roles]
    what = f"{', '.join(map(str, paths))} is not what {source} was made from"
    if not paths:
        what = f"{source} lacks shards, or holds others than its last update wrote"
    try:
        what += f" ({preview_update(source, _shard_size(source, present)).total})"
    except SynthgenError as why:
        return f"{what}, and cannot be updated: {why}"
    roboflow = [path.absolute().parent.parent for path in paths if path.name.startswith("_annotations.")]
    whole = f", or give the folder {roboflow[0]}, of which all splits are read" if roboflow else ""
    return f"{what}; add --update to bring it up to date, or choose another --name{whole}"


def _check_request(reader: DatasetReader, name: str, layer: str, removed: str) -> None:
    """Check the layer that a user wants of the dataset `name`, and what happens to removed images."""
    if layer not in reader.LAYERS:
        raise SynthgenError(f"{name} has no layer '{layer}' of its own (have: {', '.join(reader.LAYERS)})")
    if removed not in REMOVED_CHOICES:
        raise SynthgenError(f"--removed {removed} is not valid; choose {' or '.join(REMOVED_CHOICES)}")


def _shard_size(source: LayerSource, present: list[Shard]) -> int:
    """Images per shard, by the recipe of the first shard; 0 = by the size of the dataset."""
    footer = source.store.read_footer(present[0]) if present else None
    size = (footer or {}).get("recipe", {}).get("shard_size", 0)
    return size if isinstance(size, int) else 0


def _write_shards(source: LayerSource, read: ReadSlices, recipe: dict[str, Any], present: set[Shard]) -> int:
    """Commit the missing shards on threads while the next ones are built; returns their number."""
    committed = images = 0
    waiting: deque[Future[Path]] = deque()
    with ThreadPoolExecutor(_WRITER_THREADS, thread_name_prefix="commit") as pool:
        for one in read.slices:
            shard = Shard(source.name, source.split, source.layer, one.index, one.num_shards)
            images += len(one.columns.image_id)
            if shard not in present:
                content = read.content(one)
                if len(waiting) == _WRITER_THREADS:
                    waiting.popleft().result()
                waiting.append(pool.submit(source.store.commit, shard, content, build_footer(one, content, recipe)))
                committed += 1
            source.on_progress("writing", images, one.total_images)
        for future in waiting:
            future.result()
    return committed


def _build_report(store: ShardStore, shards: list[Shard], committed: int) -> IngestReport:
    counts = [footer["counts"] for shard in shards if (footer := store.read_footer(shard)) is not None]
    flags: Counter[str] = Counter()
    for of_shard in counts:
        flags.update(of_shard["flags"])
    images, annotations, masks, errors = (
        sum(of_shard[what] for of_shard in counts) for what in ("images", "annotations", "masks", "errors")
    )
    # A box may carry several of these flags. So the counts alone may not tell, and the shards are read.
    usable = annotations - sum(flags[flag] for flag in UNPROMPTED_FLAGS) > 0 or masks > 0
    return IngestReport(
        len(shards),
        committed,
        images,
        annotations,
        masks,
        errors,
        dict(sorted(flags.items())),
        usable or (annotations > 0 and _has_usable_box(store, shards)),
    )


def _has_usable_box(store: ShardStore, shards: list[Shard]) -> bool:
    samples = chain.from_iterable(map(store.read_samples, shards))
    return any(not UNPROMPTED_FLAGS.intersection(a.flags) for sample in samples for a in sample.annotations)


def _check_same_recipe(store: ShardStore, present: list[Shard], recipe: dict[str, Any]) -> None:
    """Check that shards were made as `recipe` says, from whatever version of the files."""
    for shard in present:
        theirs = (store.read_footer(shard) or {}).get("recipe", {})
        differ = [
            key for key in {**recipe, **theirs} if recipe.get(key) != theirs.get(key) and key not in _UPDATED_KEYS
        ]
        if not differ:
            continue
        if theirs.get("stage") != "ingest":
            how = f"by another stage ({format_recipe(theirs)})"
        else:
            how = "with " + ", ".join(f"{key} {theirs.get(key)} (now {recipe.get(key)})" for key in differ)
        folder = store.layer_folder(shard.dataset, shard.split, shard.layer)
        raise SynthgenError(f"{shard} was made {how}; choose another --name, or delete {folder}")
