"""Functions about datasets in the store and their files: doctor, ingest_dataset, remove_layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen.api.arguments import (
    PathLike,
    Progress,
    check_choice,
    check_count,
    check_flag,
    dataset_request,
    progress_opener,
    resolve_store,
)
from synthgen.errors import ArgumentError, job_has_started, shorten_value
from synthgen.generate import input_layer
from synthgen.generate.dataset_spec import DatasetRequest, DatasetSpec
from synthgen.progress import OpenProgress, PhaseProgress
from synthgen.storage.update_record import REMOVED_CHOICES

if TYPE_CHECKING:
    from synthgen.ingest.ingest import IngestReport
    from synthgen.ingest.update import LayerChanges
    from synthgen.ingest.validation.diagnosis import ValidationReport
    from synthgen.storage.layer_removal import LayerRemoval


def doctor(
    path: PathLike | None = None,
    *,
    images: PathLike | None = None,
    dataset: str | None = None,
    name: str | None = None,
    split: str | None = None,
    annotations: PathLike | None = None,
    data: PathLike | None = None,
    match_names: bool = False,
    crowds_as_objects: bool = False,
    check_images: str | int = "header",
    progress: Progress = False,
) -> ValidationReport:
    """Examine a dataset, as `synthgen doctor` does. Changes nothing.

    Args:
        path: the dataset's folder or annotation file. None = the reader `dataset` finds it below `data`.
        images: folder of the images, if it is not at the dataset's usual place.
        dataset: a reader, such as "coco-json". None = the format is recognised.
        name: the name of the dataset in the store.
        split: one part of the dataset. None = all.
        annotations: the annotation file or folder of masks of `dataset`, instead of `path`.
        data: folder of the datasets. None = the environment variable SYNTHGEN_DATA, or `data`.
        match_names: also take image files that are there under another form of their name.
        crowds_as_objects: take annotations with `iscrowd` for single objects.
        check_images: "header", "all" (decode every file), "none", or how many files to decode.
        progress: whether, or how, progress is shown.

    Returns:
        The report: counts and findings of each split, the verdict, and `is_ready`. Boxes in examples are
        (x, y, width, height) in absolute pixels of the original image.

    Raises:
        SynthgenError: the dataset is missing or unreadable, or an argument is not valid.
    """
    request = dataset_request(
        path, dataset, name, split, annotations, images, data,
        match_names=match_names, crowds_as_objects=crowds_as_objects,
    )  # fmt: skip
    if isinstance(check_images, bool) or not isinstance(check_images, str | Integral) or check_images == "":
        raise ArgumentError(
            f"check_images={shorten_value(check_images)} is not valid; give 'header', 'all', 'none' or a whole number"
        )
    return examine_request(request, check_images=check_images, open_progress=progress_opener(progress))[1]


def examine_request(
    request: DatasetRequest, *, check_images: str | int, open_progress: OpenProgress
) -> tuple[list[DatasetSpec], ValidationReport]:
    """The splits that a request names, and the report of `doctor` about them.

    Args:
        request: what the user said about the dataset.
        check_images: as in `doctor`.
        open_progress: opens a progress bar for each phase.
    """
    from synthgen.ingest.validation import validate

    specs = request.resolve()
    spec = specs[0]
    is_named = request.path is not None or request.split is not None or request.annotations is not None
    with PhaseProgress(open_progress, {"reading": "bytes", "examining": "images"}) as bars:
        report = validate.validate_dataset(
            spec.plugin,
            spec.root,
            [one.split for one in specs] if is_named else None,
            annotations=spec.annotations,
            images=request.images,
            check_images=check_images,
            name=request.name if request.path is not None or spec.name != spec.default_name else None,
            store_name=spec.name,
            path=request.path,
            match_names=request.match_names,
            crowds_as_objects=request.crowds_as_objects,
            on_progress=bars.report,
        )
    return specs, report


def ingest_dataset(
    path: PathLike | None = None,
    *,
    images: PathLike | None = None,
    layer: str = "annotations",
    dataset: str | None = None,
    name: str | None = None,
    split: str | None = None,
    annotations: PathLike | None = None,
    data: PathLike | None = None,
    store: PathLike | None = None,
    match_names: bool = False,
    crowds_as_objects: bool = False,
    shard_size: int = 0,
    update: bool = False,
    removed: str = "drop",
    progress: Progress = False,
) -> dict[str, IngestReport]:
    """Read a dataset's own files into shards, as `synthgen ingest` does. `generate_masks` does this if it is needed.

    Args:
        path: see `doctor`.
        images: see `doctor`.
        layer: "annotations" (boxes), or "human" (masks) or "regions" (phrases) if the dataset has them.
        dataset: see `doctor`.
        name: see `doctor`.
        split: see `doctor`.
        annotations: see `doctor`.
        data: see `doctor`.
        store: root of the shards. None = the environment variable SYNTHGEN_STORE, or `shards`.
        match_names: see `doctor`.
        crowds_as_objects: see `doctor`.
        shard_size: images per shard; 0 = by the size of the dataset, at most 1,000.
        update: if the annotation files have changed since, write the shards whose images differ.
        removed: what an update does with images that the files list no more: "drop" or "keep" them.
        progress: whether, or how, progress is shown.

    Returns:
        The layer of each split, "dataset/split/layer", and what was read.

    Raises:
        SynthgenError: the dataset is missing or unreadable, or the layer was made from other files.
    """
    request = dataset_request(
        path, dataset, name, split, annotations, images, data,
        match_names=match_names, crowds_as_objects=crowds_as_objects,
    )  # fmt: skip
    shard_size = check_count("shard_size", shard_size, 0, optional=False)
    check_flag("update", update)
    check_choice("removed", removed, REMOVED_CHOICES)
    done = ingest_request(
        request, resolve_store(store), layer, shard_size=shard_size, update=update, removed=removed,
        open_progress=progress_opener(progress),
    )  # fmt: skip
    return {f"{spec.name}/{spec.split}/{layer}": report for spec, report in done}


def ingest_request(
    request: DatasetRequest,
    store: Path,
    layer: str,
    *,
    shard_size: int,
    update: bool = False,
    removed: str = "drop",
    open_progress: OpenProgress,
    on_report: Callable[[DatasetSpec, IngestReport], None] = lambda *_: None,
) -> list[tuple[DatasetSpec, IngestReport]]:
    """Ingest each split that a request names. `on_report` is called after each.

    Args:
        request: what the user said about the dataset.
        store: the root of the shards.
        layer: the layer to write.
        shard_size: images per shard; 0 = by the size of the dataset.
        update: see `ingest_dataset`.
        removed: see `ingest_dataset`.
        open_progress: opens a progress bar for each split.
        on_report: called after each split.
    """
    done: list[tuple[DatasetSpec, IngestReport]] = []
    for spec in request.resolve():
        with job_has_started() if done else nullcontext():
            report = input_layer.ingest_spec(
                spec, store, layer, shard_size=shard_size, update=update, removed=removed, open_progress=open_progress
            )
        on_report(spec, report)
        done.append((spec, report))
    return done


def preview_request(
    request: DatasetRequest, store: Path, layer: str, *, update: bool, removed: str
) -> list[tuple[DatasetSpec, LayerChanges | None]]:
    """What an ingest of each split would change; None = nothing, or the whole layer would be made. Writes nothing.

    Args:
        request: what the user said about the dataset.
        store: the root of the shards.
        layer: the layer to write.
        update: see `ingest_dataset`.
        removed: see `ingest_dataset`.

    Raises:
        SynthgenError: as `ingest_dataset`.
    """
    return [
        (spec, input_layer.preview_spec(spec, store, layer, update=update, removed=removed))
        for spec in request.resolve()
    ]


def remove_layer(
    layer: str, *, store: PathLike | None = None, force: bool = False, dry_run: bool = False
) -> LayerRemoval:
    """Delete a layer, as `synthgen rm` does without asking: its shards, its temporary files and its logs.

    Args:
        layer: its name, "dataset/split/layer".
        store: root of the shards. None = the environment variable SYNTHGEN_STORE, or `shards`.
        force: also if other layers were made from this one.
        dry_run: only say what would be deleted.

    Returns:
        What was deleted, or would be.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: there is no such layer; a job uses it; other layers were made from it, and `force` is not set.
    """
    from synthgen.storage import layer_removal
    from synthgen.storage.shard_store import ShardStore

    if not isinstance(layer, str):
        raise ArgumentError(f"layer={shorten_value(layer)} is not a text; give a name")
    check_flag("force", force)
    check_flag("dry_run", dry_run)
    place = ShardStore(resolve_store(store))
    return (
        layer_removal.plan_removal(place, layer) if dry_run else layer_removal.remove_layer(place, layer, force=force)
    )
