"""The engine of a cluster: the same `Worker` as on one machine, in Ray actors; the only file that imports ray.

Ray places the actors and tells who died. Ours is the rest: each actor has one shard at a time; a shard whose worker
died is done again by another; one that kills its worker every time is reported, and the others go on.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from synthgen import weights
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.job import Job
from synthgen.generate.worker import OnImages, ShardReport, Worker
from synthgen.records.store import Shard

log = logging.getLogger(__name__)

#: A shard is given up once so many workers died over it; a job, once so many died before any could begin.
MOST_DEATHS = 3

#: Seconds between two looks at the cluster: nodes may have joined.
LOOK = 5.0

#: What the driver's environment says holds for its workers too.
_PASSED_ON = ("PYTHONPATH", "SYNTHGEN_DATA", "SYNTHGEN_STORE")


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
        SynthgenError: no worker can begin: weights that are not there, a store that no node sees.
    """
    job = replace(job, store=job.store.absolute(), images=job.images.absolute())
    _refuse_passing_folder(job)
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
    crew = _Crew(job, workers, gpus_per_worker)
    todo, deaths = deque(shards), Counter[Shard]()
    try:
        while todo or crew.busy:
            crew.hire(len(todo))
            for actor, shard, outcome in crew.news():
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
                if actor is not None:
                    crew.give(actor, todo.popleft() if todo else None)
    finally:
        crew.dismiss()


class _Crew:
    """The actors of a run; each has one call outstanding, its start or a shard."""

    def __init__(self, job: Job, workers: int | None, gpus_per_worker: float | None) -> None:
        self.job, self.workers = job, workers
        gpus = gpus_per_worker
        if gpus is None:
            gpus = 1.0 if _resources().get("GPU", 0) >= 1 else 0.0
        self.need = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        environment["SYNTHGEN_WEIGHTS"] = str(weights.folder())
        remote: Any = ray.remote(_Actor)
        self.actor = remote.options(num_cpus=1, num_gpus=gpus, max_restarts=0, runtime_env={"env_vars": environment})
        self.calls: dict[Any, tuple[Any, Shard | None]] = {}
        self.proven = False  # some worker has begun
        self.refused: list[str] = []  # why others could not
        self.early_deaths = 0
        self.told = False

    @property
    def busy(self) -> bool:
        """Whether any worker has a shard."""
        return any(shard is not None for _, shard in self.calls.values())

    def hire(self, waiting: int) -> None:
        """Start workers until there are as many as may be, or as can be of use."""
        room = self.workers
        if room is None:
            there_is = _resources()
            room = max(1, min(int(there_is.get(kind, 0) / amount) for kind, amount in self.need.items()))
        # One that refused would refuse again: its node lacks something.
        starting = sum(shard is None for _, shard in self.calls.values())
        for _ in range(min(room - len(self.refused) - len(self.calls), waiting - starting)):
            actor = self.actor.remote(self.job)
            self.calls[actor.start.remote()] = (actor, None)

    def give(self, actor: Any, shard: Shard | None) -> None:
        """The next shard for a worker; without one it may go."""
        if shard is None:
            ray.kill(actor)
        else:
            self.calls[actor.run.remote(shard)] = (actor, shard)

    def news(self) -> Iterator[tuple[Any, Shard | None, Any]]:
        """What has happened since, some seconds long: (worker that is free, shard, report or cause of death).

        Raises:
            SynthgenError: no worker can begin.
        """
        done, _ = ray.wait(list(self.calls), num_returns=1, timeout=LOOK)
        if not done and not self.proven and not self.told:
            self.told = True
            log.warning("no node has room for a worker yet, each needs %s; waiting", self.need)
        for call in done:
            actor, shard = self.calls.pop(call)
            try:
                outcome = ray.get(call)
            except RayError as why:
                yield self._buried(actor, shard, why)
                continue
            if isinstance(outcome, str):
                ray.kill(actor)
                self._take_refusal(outcome)
                continue
            self.proven = True
            yield actor, shard, outcome

    def _buried(self, actor: Any, shard: Shard | None, why: RayError) -> tuple[None, Shard | None, str]:
        """What is left of a worker whose call has failed."""
        ray.kill(actor)
        cause = why.cause if isinstance(why, RayTaskError) else None
        if shard is None:
            if cause is not None and not isinstance(cause, MemoryError):
                raise cause  # our mistake, not the cluster's
            self.early_deaths += 1
            if not self.proven and self.early_deaths >= MOST_DEATHS:
                raise SynthgenError(
                    f"{self.early_deaths} workers died before they could begin ({_line(why)}); a node needs memory for "
                    "the model of each worker on it: use fewer --workers, or a smaller --variant"
                )
        told = str(cause) if isinstance(cause, BrokenWorkerError) else _line(why)
        return None, shard, told

    def _take_refusal(self, why: str) -> None:
        self.refused.append(why)
        if not self.proven and not self.calls:
            raise SynthgenError(why)
        log.warning("a worker cannot begin: %s", why)

    def dismiss(self) -> None:
        """Let all go."""
        for actor, _ in self.calls.values():
            ray.kill(actor)


class _Actor:
    """A `Worker` in a process of its own, somewhere."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def start(self) -> str | None:
        """Load the model; the sentence of a mistake that the user can mend, if there is one."""
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        for folder, flag in ((self.job.store, "--store"), (self.job.images, "--images")):
            if not folder.is_dir():
                return f"node {node} does not see {folder}; all nodes must reach the same {flag} by the same path"
        try:
            self.worker = Worker(self.job)
        except SynthgenError as why:
            return f"{why} (on node {node})"
        return None

    def run(self, shard: Shard) -> ShardReport:
        """Make a shard."""
        return self.worker.run(shard)


def _resources() -> dict[str, float]:
    """What the nodes that are there have together, e.g. {"CPU": 16.0, "GPU": 2.0}."""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return total


def _refuse_passing_folder(job: Job) -> None:
    """`ray job submit --working-dir` unpacks the code into a folder that Ray deletes: no place for shards.

    Raises:
        SynthgenError: the store lies in it.
    """
    if "runtime_resources" in job.store.parts:
        raise SynthgenError(
            f"the store {job.store} lies in the job's working directory, which Ray deletes; give a folder that all "
            "nodes share, by --store or SYNTHGEN_STORE (env_vars in pipelines/runtime_env.yaml)"
        )


def _line(why: Exception) -> str:
    return next((line.strip() for line in str(why).splitlines() if line.strip()), type(why).__name__)[:200]
