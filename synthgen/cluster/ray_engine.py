"""The engine that runs a job's shards on a Ray cluster, with the same `Worker` as on one machine, in Ray actors.

Each actor has one shard at a time. If a worker dies, another worker does its shard again. A shard over which
`MAX_DEATHS_PER_SHARD` workers died is reported as failed, and the others continue. If a batch exceeds the job's
`timeout`, its worker is killed. Another worker runs the images of that batch one by one. An image that hangs alone
becomes a failed row. `worker_pool` decides where workers start."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from synthgen.cluster import connection
from synthgen.cluster.worker_pool import WorkerPool
from synthgen.generate.batch_threads import NONE_HUNG, BatchTimeoutError, HungRows
from synthgen.generate.job import Job
from synthgen.generate.worker import OnImages, ShardReport
from synthgen.storage.shard_store import Shard

#: Below the logger "synthgen", so that the run's log has these messages.
log = logging.getLogger(__name__)

#: A shard is reported as failed after this many workers died over it.
MAX_DEATHS_PER_SHARD = 3

#: A shard is reported as failed after this many workers hung over it. An image that always hangs costs two of them.
MAX_HANGS_PER_SHARD = 12


def run_on_cluster(
    job: Job,
    shards: Sequence[Shard],
    *,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    on_images: OnImages | None = None,
) -> Iterator[ShardReport]:
    """Process the shards with workers on all nodes of the cluster; yield a report for each, in the order they end.

    Connects to the cluster of `ray job submit`, of RAY_ADDRESS or of this machine, else starts one on this machine.

    Args:
        job: what to do with each shard.
        shards: as `pending_shards` returns them.
        workers: at most this many, even if the cluster lacks resources for all of them yet (an autoscaler adds nodes);
            None = as many as fit at any time.
        gpus_per_worker: 0.5 puts two workers on a GPU; None = 1 where the cluster has GPUs and the model can use one,
            else 0. Each worker also gets one CPU.
        on_images: called with the number of images of each shard that is done.

    Raises:
        SynthgenError: there is no cluster; or no worker can start, e.g. because weights are missing or because no node
            sees the store.
    """
    job = replace(job, store=job.store.absolute(), image_folder=job.image_folder.absolute())
    remedy = "--store or SYNTHGEN_STORE (env_vars in pipelines/runtime_env.yaml)"
    connection.reject_temporary_dir(job.store, "the store", remedy)
    connection.connect()
    pool = WorkerPool(job, workers, gpus_per_worker)
    todo, deaths = deque(shards), Counter[Shard]()
    hung: dict[Shard, HungRows] = {}
    with contextlib.closing(pool), connection.show_warnings():
        while todo or pool.is_busy:
            pool.scale_up(len(todo))
            for worker, shard, outcome in pool.poll():
                if isinstance(outcome, ShardReport):
                    if on_images:
                        on_images(outcome.images)
                    yield outcome
                elif isinstance(outcome, BatchTimeoutError) and worker is not None and shard is not None:
                    pool.assign(worker, None)  # its threads hang
                    worker = None
                    hung[shard] = hung.get(shard, NONE_HUNG).after(outcome)
                    if hung[shard].hangs < MAX_HANGS_PER_SHARD:
                        next_step = "it failed" if hung[shard].proven.issuperset(outcome.rows) else "each is run alone"
                        log.warning("%s: %s; %s", shard, outcome, next_step)
                        todo.append(shard)
                    else:
                        yield ShardReport(
                            shard,
                            error=f"{shard}: {outcome}; it did not {MAX_HANGS_PER_SHARD} times, and nothing of this "
                            "shard was committed; allow more with --timeout",
                        )
                elif shard is not None:  # its worker died over it
                    deaths[shard] += 1
                    log.warning("a worker died over %s (%s)", shard, outcome)
                    if deaths[shard] < MAX_DEATHS_PER_SHARD:
                        todo.append(shard)
                    else:
                        yield ShardReport(
                            shard,
                            error=f"{shard}: its worker died {MAX_DEATHS_PER_SHARD} times ({outcome}); if the memory "
                            "is too small, lower --batch-size or the number of workers on a node",
                        )
                if worker is not None:
                    following = todo.popleft() if todo else None
                    pool.assign(worker, following, hung.get(following, NONE_HUNG) if following else NONE_HUNG)
