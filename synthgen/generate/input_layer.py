"""The layer that a job reads: its default name, its ingest if it is missing, the check of its source files."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.job import Job
from synthgen.generate.renewal import preview_renewal
from synthgen.ingest.ingest import IngestReport, describe_source_change, has_changed, ingest, preview_changes
from synthgen.ingest.update import LayerChanges
from synthgen.progress import NoProgress, OpenProgress, PhaseProgress
from synthgen.storage.identity import parent_shard
from synthgen.storage.shard_store import ShardStore, check_name

log = logging.getLogger(__name__)


def ingest_spec(
    spec: DatasetSpec,
    store: Path,
    layer: str,
    *,
    shard_size: int = 0,
    update: bool = False,
    removed: str = "drop",
    open_progress: OpenProgress,
) -> IngestReport:
    """Ingest one layer of the dataset, with progress bars for reading and writing.

    Args:
        spec: the dataset.
        store: root folder of the shards.
        layer: one of the reader's `LAYERS`.
        shard_size: see `ingest`.
        update: see `ingest`.
        removed: see `ingest`.
        open_progress: creates progress bars.
    """
    with PhaseProgress(open_progress, {"reading": "bytes", "writing": "images"}) as bars:
        return ingest(
            ShardStore(store),
            spec.reader,
            spec.locate_files(),
            name=spec.name,
            split=spec.split,
            layer=layer,
            shard_size=shard_size,
            match_names=spec.match_names,
            update=update,
            removed=removed,
            on_progress=bars.report,
        )


def preview_spec(
    spec: DatasetSpec, store: Path, layer: str, *, update: bool, removed: str = "drop"
) -> LayerChanges | None:
    """What an ingest of one layer of the dataset would change; None = nothing, or the layer is not there.

    Args:
        spec: the dataset.
        store: root folder of the shards.
        layer: one of the reader's `LAYERS`.
        update: see `ingest`.
        removed: see `ingest`.

    Raises:
        SynthgenError: as `ingest`.
    """
    return preview_changes(
        ShardStore(store),
        spec.reader,
        spec.locate_files(),
        name=spec.name,
        split=spec.split,
        layer=layer,
        match_names=spec.match_names,
        update=update,
        removed=removed,
    )


def default_input_layer(spec: DatasetSpec, store: Path, layer: str, *, preferred: str) -> str:
    """The default input of a layer: the input it was started from, else `preferred` if it exists.

    Args:
        spec: the dataset.
        store: root folder of the shards.
        layer: layer to write; it may have been started.
        preferred: input layer of a new layer.
    """
    shard_store = ShardStore(store)
    for shard in shard_store.list_shards(spec.name, spec.split, check_name(layer))[:1]:
        begun = ((shard_store.read_footer(shard) or {}).get("parent") or {}).get("layer")  # null after an ingest
        if isinstance(begun, str):
            return begun
    return preferred if shard_store.list_shards(spec.name, spec.split, preferred) else "annotations"


def ensure_input_layer(
    spec: DatasetSpec, job: Job, *, removed: str = "drop", dry_run: bool = False, open_progress: OpenProgress
) -> IngestReport | None:
    """Make the job's input layer if it is missing, and check that it belongs to the current annotation files.

    A missing layer is made from the dataset's files, and with `job.update` a layer of changed files is updated. If the
    files are not on this machine and the layer is complete, it is used as it is.

    Args:
        spec: the dataset of the job.
        job: names the store and the input layer.
        removed: see `ingest`.
        dry_run: only check a layer that is complete, and write nothing.
        open_progress: creates the progress bar of an ingest.

    Returns:
        What was read, if shards of it were written now; None = it is as it was.

    Raises:
        SynthgenError: the layer was made from other files, or cannot be made.
    """
    if job.input_layer not in spec.reader.LAYERS:
        _warn_if_stale(spec, job)
        return None
    files = _find_files(spec, job)
    if files is None:
        return None
    if job.update or not _is_complete(job):
        made = ingest_spec(
            spec, job.store, job.input_layer, update=job.update, removed=removed, open_progress=open_progress
        )
        return made if made.committed else None
    changed = describe_source_change(
        ShardStore(job.store),
        spec.reader,
        files,
        name=spec.name,
        split=spec.split,
        layer=job.input_layer,
        match_names=spec.match_names,
        remember=not dry_run,
    )
    if changed is not None:
        raise SynthgenError(changed)
    return None


def preview_input_layer(
    spec: DatasetSpec, job: Job, *, removed: str = "drop", part: tuple[int, int] = (0, 1), limit: int | None = None
) -> list[str]:
    """Sentences about what `ensure_input_layer` would make or update, and the job after it; [] = nothing.

    Args:
        spec: the dataset of the job.
        job: names the store and the layers.
        removed: see `ingest`.
        part: of the job; see `pending_shards`.
        limit: maximum number of shards of the job; None = all.

    Raises:
        SynthgenError: as `ensure_input_layer`.
    """
    if (missing := describe_missing_input(spec, job)) is not None:
        return [missing]
    if not job.update or job.input_layer not in spec.reader.LAYERS:
        ensure_input_layer(spec, job, dry_run=True, open_progress=NoProgress)
        return []
    if _find_files(spec, job) is None:
        return []
    changes = preview_spec(spec, job.store, job.input_layer, update=True, removed=removed)
    if changes is None:
        return []
    place = f"{job.dataset}/{job.split}"
    return [
        f"{place}/{job.input_layer}: {changes.total}; {len(changes.by_shard):,} of {changes.num_shards:,} shards would "
        "be written again first",
        f"{place}/{job.layer}: {preview_renewal(job, changes, part=part, limit=limit)}",
    ]


def _find_files(spec: DatasetSpec, job: Job) -> DatasetFiles | None:
    """The files of a dataset; None = they are not on this machine, and the job's input layer is complete.

    Args:
        spec: the dataset of the job.
        job: names the store and the input layer.

    Raises:
        SynthgenError: they are not on this machine, and the layer is not complete.
    """
    try:
        return spec.locate_files()
    except SynthgenError:
        if not _is_complete(job):
            raise
        return None


def _is_complete(job: Job) -> bool:
    """Whether all shards of the job's input layer are committed, of whatever version."""
    present = ShardStore(job.store).list_shards(job.dataset, job.split, job.input_layer, check_update=False)
    return bool(present) and len(present) == present[0].num_shards


def _warn_if_stale(spec: DatasetSpec, job: Job) -> None:
    """Warn if the job's input was itself made from rows, or the boxes below it from files, that have changed since."""
    store = ShardStore(job.store)
    present = store.list_shards(job.dataset, job.split, job.input_layer)
    layer = f"{job.dataset}/{job.split}/{job.input_layer}"
    stage = (store.read_footer(present[0]) or {}).get("recipe", {}).get("stage") if present else None
    again = {"import": "the same `synthgen import-masks` again", "captions": "`synthgen captions ... --update`"}
    how = again.get(str(stage), "`synthgen masks ... --update`")
    stale = sum(store.is_stale(shard, store.read_footer(shard) or {}) for shard in present)
    if stale:
        what = f"{stale} of {len(present)} shards were made from rows that have changed since"
        log.warning("%s: %s; bring that layer up to date first, with %s", layer, what, how)
        return
    parent = parent_shard(present[0], store.read_footer(present[0]) or {}) if present else None
    if parent is None or parent.layer not in spec.reader.LAYERS:
        return
    with contextlib.suppress(SynthgenError):  # the files are not on this machine
        if has_changed(store, spec.reader, spec.locate_files(), (job.dataset, job.split, parent.layer)):
            what = f"the annotation files have changed since {parent.layer} was made from them"
            log.warning("%s: %s; bring that layer up to date first, with %s", layer, what, how)


def describe_missing_input(spec: DatasetSpec, job: Job) -> str | None:
    """A sentence about what `ensure_input_layer` would make; None if the job's input layer is complete.

    Args:
        spec: the dataset of the job.
        job: names the store and the input layer.
    """
    if _is_complete(job) or job.input_layer not in spec.reader.LAYERS:
        return None
    sources = spec.locate_files().for_layer(job.input_layer).sources.values()
    sizes = {path: f" ({path.stat().st_size / 1e6:,.1f} MB)" if path.is_file() else "" for path in sources}
    files = " and ".join(f"{path}{size}" for path, size in sizes.items())
    return (
        f"{job.dataset}/{job.split}/{job.input_layer} is not there yet and would be made first, from {files}; "
        "`synthgen ingest` makes it alone and counts it"
    )
