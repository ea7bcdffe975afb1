"""The engine of a cluster: the same `Worker` as on one machine, in Ray actors.

Each actor has one shard at a time; a shard whose worker died is done again by another; one that kills its worker every
time is reported, and the others go on. `crew.py` has who works.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from synthgen.cluster import connection as cluster
from synthgen.cluster.worker_pool import Crew
from synthgen.generate.job import Job
from synthgen.generate.worker import OnImages, ShardReport
from synthgen.records.store import Shard

#: One of the house's loggers, so that the run's log has what it says.
log = logging.getLogger(__name__)

#: A shard is given up once so many workers died over it.
MOST_DEATHS = 3


def ray_engine(
    job: Job,
    shards: Sequence[Shard],
    *,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    on_images: OnImages | None = None,
) -> Iterator[ShardReport]:
    """Make the shards with workers all over the cluster; a report for each as soon as it is there, in any order.

    Joins the cluster that `ray job submit`, RAY_ADDRESS or this machine says, else starts one of this machine alone.

    Args:
        workers: at most so many, also where the cluster has no room for all of them yet (an autoscaler makes it);
            None = as many as there is room for, at each time.
        gpus_per_worker: 0.5 puts two on a GPU; None = 1 where the cluster has GPUs, else 0, and a CPU each.
        on_images: called with the images of each shard that is done.

    Raises:
        SynthgenError: no cluster; or no worker can begin: weights that are not there, a store that no node sees.
    """
    job = replace(job, store=job.store.absolute(), images=job.images.absolute())
    remedy = "--store or SYNTHGEN_STORE (env_vars in pipelines/runtime_env.yaml)"
    cluster.refuse_passing(job.store, "the store", remedy)
    cluster.join()
    crew = Crew(job, workers, gpus_per_worker)
    todo, deaths = deque(shards), Counter[Shard]()
    with contextlib.closing(crew), cluster.warnings_told():
        while todo or crew.busy:
            crew.hire(len(todo))
            for hand, shard, outcome in crew.news():
                if isinstance(outcome, ShardReport):
                    if on_images:
                        on_images(outcome.images)
                    yield outcome
                elif shard is not None:  # its worker died over it
                    deaths[shard] += 1
                    log.warning("a worker died over %s (%s)", shard, outcome)
                    if deaths[shard] < MOST_DEATHS:
                        todo.append(shard)
                    else:
                        yield ShardReport(
                            shard,
                            error=f"{shard}: its worker died {MOST_DEATHS} times ({outcome}); if the memory is too "
                            "small, lower --batch-size or the number of workers on a node",
                        )
                if hand is not None:
                    crew.give(hand, todo.popleft() if todo else None)
