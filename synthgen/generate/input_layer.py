"""The layer that a job reads: its default name, its ingest if it is missing, the check of its source files."""

from __future__ import annotations

from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.job import Job
from synthgen.ingest.ingest import IngestReport, describe_source_change, ingest
from synthgen.progress import OpenProgress, PhaseProgress
from synthgen.storage.shard_store import ShardStore, check_name


def ingest_spec(
    spec: DatasetSpec, store: Path, layer: str, *, shard_size: int = 0, open_progress: OpenProgress
) -> IngestReport:
    """Ingest one layer of the dataset, with progress bars for reading and writing.

    Args:
        spec: the dataset.
        store: root folder of the shards.
        layer: one of the reader's `LAYERS`.
        shard_size: see `ingest`.
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
            on_progress=bars.report,
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


def ensure_input_layer(spec: DatasetSpec, job: Job, *, open_progress: OpenProgress) -> bool:
    """Make the job's input layer if it is missing, and check that it belongs to the current annotation files.

    A missing layer is made from the dataset's files. If these are not on this machine and the layer is complete, it is
    used as it is.

    Args:
        spec: the dataset of the job.
        job: names the store and the input layer.
        open_progress: creates the progress bar of an ingest.

    Returns:
        Whether it was made now.

    Raises:
        SynthgenError: the layer was made from other files, or cannot be made.
    """
    shard_store = ShardStore(job.store)
    present = shard_store.list_shards(job.dataset, job.split, job.input_layer)
    if job.input_layer not in spec.reader.LAYERS:
        return False
    if not present or len(present) < present[0].num_shards:
        ingest_spec(spec, job.store, job.input_layer, open_progress=open_progress)
        return True
    try:
        files = spec.locate_files()
    except SynthgenError:
        return False
    changed = describe_source_change(
        shard_store,
        files,
        name=spec.name,
        split=spec.split,
        layer=job.input_layer,
        match_names=spec.match_names,
    )
    if changed is not None:
        raise SynthgenError(changed)
    return False


def describe_missing_input(spec: DatasetSpec, job: Job) -> str | None:
    """A sentence about what `ensure_input_layer` would make; None if the job's input layer is complete.

    Args:
        spec: the dataset of the job.
        job: names the store and the input layer.
    """
    present = ShardStore(job.store).list_shards(job.dataset, job.split, job.input_layer)
    if (present and len(present) == present[0].num_shards) or job.input_layer not in spec.reader.LAYERS:
        return None
    sources = spec.locate_files().for_layer(job.input_layer).sources.values()
    sizes = {path: f" ({path.stat().st_size / 1e6:,.1f} MB)" if path.is_file() else "" for path in sources}
    files = " and ".join(f"{path}{size}" for path, size in sizes.items())
    return (
        f"{job.dataset}/{job.split}/{job.input_layer} is not there yet and would be made first, from {files}; "
        "`synthgen ingest` makes it alone and counts it"
    )
