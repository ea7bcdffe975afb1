"""Engines run the shards of a job and yield their reports. `run_in_process` is the engine of one machine.

An engine is a function. The engine of a Ray cluster, `synthgen.cluster.ray_engine.run_on_cluster`, has the same
signature; both run the same `Worker`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from synthgen.errors import SynthgenError
from synthgen.generate.batch_threads import BatchTimeoutError
from synthgen.generate.job import Job
from synthgen.generate.renewal import describe_other_recipe, has_other_input
from synthgen.generate.worker import OnImages, ProcessedShard, ShardReport, Worker
from synthgen.storage.identity import content_digest_of, is_stale
from synthgen.storage.shard_store import Shard, ShardStore

#: After this many shards in a row over which the model hung, the remaining ones are not tried.
MAX_HANGS_IN_A_ROW = 3


def pending_shards(job: Job, *, part: tuple[int, int] = (0, 1)) -> list[Shard]:
    """The shards that the job has not committed yet, or from other rows than those of its input now, in order.

    Args:
        job: what to do with each shard.
        part: (i, n): only shards whose index is i modulo n, so that the parts do not change while shards are committed.

    Raises:
        SynthgenError: the input layer is missing or incomplete; the output layer was made by another recipe, or from
            another version of its input and `job.update` is not set; or something that is no file has the name of a
            shard.
    """
    store = ShardStore(job.store)
    inputs = store.list_shards(job.dataset, job.split, job.input_layer)
    if not inputs or len(inputs) < inputs[0].num_shards:
        what = f"{len(inputs)} of {inputs[0].num_shards} shards" if inputs else "no shards"
        raise SynthgenError(
            f"{job.dataset}/{job.split}/{job.input_layer} has {what} in {job.store}; "
            f"make it first (`synthgen ingest`, or the stage that writes it)"
        )
    present = set(store.list_shards(job.dataset, job.split, job.layer))
    todo, outdated = [], 0
    for source in inputs:
        shard = source.in_layer(job.layer)
        if source.index % part[1] != part[0]:
            continue
        footer = store.read_footer(shard) if shard in present else None
        if footer is None:
            _check_shard_plan(shard, present)
            store.check_place(shard)
            todo.append(shard)
            continue
        parent = store.read_footer(source) or {}
        if has_other_input(job, footer, parent):
            outdated += 1
            todo.append(shard)
        elif footer.get("fingerprint") != job.fingerprint(parent.get("fingerprint", "")):
            raise SynthgenError(describe_other_recipe(job, shard, footer))
        elif is_stale(footer, content_digest_of(parent)) or (job.retry_failed and footer.get("failed")):
            todo.append(shard)
    if outdated and not job.update:
        raise SynthgenError(
            f"{outdated} of {len(inputs)} shards of {job.dataset}/{job.split}/{job.layer} were made from another "
            f"version of the layer '{job.input_layer}' than the one there now; add --update to make them again (images "
            "with an equal input keep their results), or choose another --layer"
        )
    return todo


def run_in_process(
    job: Job,
    shards: Sequence[Shard],
    *,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    on_images: OnImages | None = None,
) -> Iterator[ShardReport]:
    """The engine of one machine: yields a report per shard, in order, while it processes the next shard.

    If a batch exceeds the job's `timeout`, its shard fails, and the next shard begins with a new worker. The old one's
    threads cannot be stopped: they keep their memory while this process lives.

    Args:
        job: what to do with each shard.
        shards: as `pending_shards` returns them.
        workers: None or 1.
        gpus_per_worker: None; only Ray takes a number.
        on_images: called with the number of images done since the last call.

    Raises:
        SynthgenError: `workers` is above 1, or `gpus_per_worker` is given.
    """
    check_in_process_options(workers, gpus_per_worker)
    # A shard is encoded and written while the model works on the next one.
    with ThreadPoolExecutor(1, thread_name_prefix="commit") as pool:
        last: Future[ShardReport] | None = None
        try:
            for worker, done in _process_shards(job, shards, on_images):
                if last is not None:
                    yield last.result()
                last = pool.submit(worker.commit, done)
        except SynthgenError:  # a new worker cannot be made after a hang; the shard before it is still reported
            if last is not None:
                yield last.result()
            raise
        if last is not None:
            yield last.result()


def _process_shards(
    job: Job, shards: Sequence[Shard], on_images: OnImages | None
) -> Iterator[tuple[Worker, ProcessedShard | ShardReport]]:
    """Each shard as its worker leaves it, to be committed by that worker."""
    worker, hangs_in_a_row = Worker(job), 0
    for shard in shards:
        if hangs_in_a_row == MAX_HANGS_IN_A_ROW:
            error = f"{shard}: not tried, because {job.plugin} did not answer for the shards before it"
            yield worker, ShardReport(shard, error=error)
            continue
        if hangs_in_a_row:
            worker = Worker(job)
        try:
            yield worker, worker.process(shard, on_images)
            hangs_in_a_row = 0
        except BatchTimeoutError as why:
            hangs_in_a_row += 1
            error = (
                f"{shard}: {why}; nothing of it was committed; allow more with --timeout, or add `--engine ray`, "
                "which leaves out only the images that hang"
            )
            yield worker, ShardReport(shard, error=error)


def check_in_process_options(workers: float | None, gpus_per_worker: float | None) -> None:
    """Check the options of `run_in_process`, before any work.

    Args:
        workers: value of `--workers`.
        gpus_per_worker: value of `--gpus-per-worker`.

    Raises:
        SynthgenError: `workers` is above 1, or `gpus_per_worker` is given.
    """
    if gpus_per_worker is not None:
        raise SynthgenError("--gpus-per-worker needs Ray; add `--engine ray`")
    if workers not in (None, 1):
        raise SynthgenError(
            f"--workers {workers} needs Ray; add `--engine ray`, or without it start {workers} commands "
            f"with --part 0/{workers} to --part {workers - 1}/{workers} that all name the --segmenter or --captioner"
        )


def _check_shard_plan(shard: Shard, present: set[Shard]) -> None:
    other = next((s for s in present if s.num_shards != shard.num_shards), None)
    if other is not None:
        raise SynthgenError(
            f"{other} was cut by another plan than its input (of {shard.num_shards}); choose another --layer, "
            "or delete that layer's folder"
        )
