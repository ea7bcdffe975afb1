"""The engine of a cluster: the same `Worker` as on one machine, in Ray actors.

Ray places the actors and tells who died. Ours is the rest: each actor has one shard at a time; a shard whose worker
died is done again by another; one that kills its worker every time is reported, and the others go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.actor import Actor
from synthgen import weights
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.job import Job
from synthgen.generate.worker import OnImages, ShardReport
from synthgen.records.store import Shard

#: One of the house's loggers, so that the run's log has what it says.
log = logging.getLogger(f"synthgen.{__name__}")

#: A shard is given up once so many workers died over it; no more are hired once so many in a row could not begin.
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
        SynthgenError: no cluster; or no worker can begin: weights that are not there, a store that no node sees.
    """
    job = replace(job, store=job.store.absolute(), images=job.images.absolute())
    _refuse_passing_folder(job)
    _join_cluster()
    crew = _Crew(job, workers, gpus_per_worker)
    todo, deaths = deque(shards), Counter[Shard]()
    with contextlib.closing(crew), _warnings_told():
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


class _Crew:
    """The actors of a run; each has one call outstanding, its start or a shard."""

    def __init__(self, job: Job, workers: int | None, gpus_per_worker: float | None) -> None:
        self.job, self.workers = job, workers
        gpus = gpus_per_worker
        if gpus is None:  # what knows no device has no use for one
            there_are = ray.cluster_resources().get("GPU", 0) >= 1  # type: ignore[no-untyped-call]
            gpus = 1.0 if there_are and "device" in job.options else 0.0
        if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
            raise SynthgenError(f"--gpus-per-worker {gpus} should be a part of one GPU or a whole number of them")
        if gpus and job.options.get("device") == "auto":  # a node whose CUDA is broken must say so, not use its CPU
            self.job = replace(job, options={**job.options, "device": "cuda"})
        self.need = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        environment["SYNTHGEN_WEIGHTS"] = str(weights.folder())
        remote: Any = ray.remote(Actor)
        self.actor = remote.options(num_cpus=1, num_gpus=gpus, max_restarts=0, runtime_env={"env_vars": environment})
        self.calls: dict[Any, tuple[Any, Shard | None]] = {}
        self.proven = False  # some worker has begun
        self.nodes: dict[Any, str] = {}  # where a worker is, once it has begun or is sent there
        self.refused: dict[str, str] = {}  # node -> why a worker could not begin there
        self.mistake: BaseException | None = None  # of the last that died of it before it could begin
        self.early_deaths: list[str] = []  # of what workers died that had not begun, since the last good news
        self.told: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether any worker has a shard."""
        return any(shard is not None for _, shard in self.calls.values())

    def hire(self, waiting: int) -> None:
        """Start workers until there are as many as may be, or as can be of use.

        Raises:
            SynthgenError: there is none, and none can begin.
        """
        room = max(1, sum(_room(self.need).values())) if self.workers is None else max(1, self.workers)
        starting = sum(shard is None for _, shard in self.calls.values())
        if len(self.early_deaths) < MOST_DEATHS:
            for _ in range(min(room - len(self.calls), waiting - starting)):
                actor = self._hired()
                if actor is None:
                    break
                self.calls[actor.start.remote()] = (actor, None)
        if not self.calls:
            if self.mistake is not None:
                raise self.mistake  # ours, not the cluster's
            raise SynthgenError(self._why_none())

    def _hired(self) -> Any | None:
        """A new worker, wherever Ray likes; but not where one refused, and would refuse again."""
        spare = _room(self.need)
        self.refused = {node: why for node, why in self.refused.items() if node in spare or not self.calls}
        if not self.refused:
            return self.actor.remote(self.job)
        for actor, _ in self.calls.values():
            if (node := self.nodes.get(actor, "")) in spare:
                spare[node] -= 1
        best = max(spare.keys() - self.refused.keys(), key=lambda node: (spare[node], node), default=None)
        if best is None or spare[best] < 1:
            return None
        there = NodeAffinitySchedulingStrategy(best, soft=False)
        actor = self.actor.options(scheduling_strategy=there).remote(self.job)
        self.nodes[actor] = best
        return actor

    def give(self, actor: Any, shard: Shard | None) -> None:
        """The next shard for a worker; without one it may go."""
        if shard is None:
            ray.kill(actor)
        else:
            self.calls[actor.run.remote(shard)] = (actor, shard)

    def news(self) -> Iterator[tuple[Any, Shard | None, Any]]:
        """What has happened since, some seconds long: (worker that is free, shard, report or cause of death)."""
        done, _ = ray.wait(list(self.calls), num_returns=1, timeout=LOOK)
        if not done and not self.proven:
            self._tell(f"no node has room for a worker yet, each needs {self.need}; waiting")
        for call in done:
            actor, shard = self.calls.pop(call)
            try:
                outcome = ray.get(call)
            except RayError as why:
                yield self._buried(actor, shard, why)
                continue
            if isinstance(outcome, str):
                self.refused[self._node_of(actor)] = outcome
                ray.kill(actor)
                continue
            if shard is None:
                self.nodes[actor] = self._node_of(actor)
            self.proven = True
            self.early_deaths.clear()
            yield actor, shard, outcome
        for sentence in self.refused.values() if self.proven else ():  # else it may be the end, which is told once
            self._tell(f"a worker cannot begin: {sentence}")

    def _buried(self, actor: Any, shard: Shard | None, why: RayError) -> tuple[None, Shard | None, str]:
        """What is left of a worker whose call has failed."""
        ray.kill(actor)
        cause = why.cause if isinstance(why, RayTaskError) else None
        told = str(cause) if isinstance(cause, BrokenWorkerError) else _line(why)
        if shard is None:
            if cause is not None and not isinstance(cause, MemoryError | SynthgenError):
                self.mistake = cause
            self.early_deaths.append(told)
            log.info("a worker died before it could begin (%s)", told)
        return None, shard, told

    def _why_none(self) -> str:
        if len(self.early_deaths) < MOST_DEATHS:
            return next(reversed(self.refused.values()))
        return (
            f"{len(self.early_deaths)} workers died before they could begin ({self.early_deaths[-1]}); a node needs "
            "memory for the model of each worker on it: use fewer --workers, or a smaller --variant"
        )

    def _node_of(self, actor: Any) -> str:
        try:
            return str(ray.get(actor.node.remote(), timeout=LOOK))
        except RayError:
            return ""

    def _tell(self, what: str) -> None:
        """Once."""
        if what not in self.told:
            self.told.add(what)
            log.warning("%s", what)

    def close(self) -> None:
        """Let all go."""
        for actor, _ in self.calls.values():
            ray.kill(actor)


def _join_cluster() -> None:
    """Join the cluster that `ray job submit`, RAY_ADDRESS or this machine says, else start one of this machine alone.

    Raises:
        SynthgenError: it is not there, or does not let us in.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "of this machine"
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "/" not in host:  # Ray itself would try for many minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError, RayError) as why:
        raise SynthgenError(
            f"cannot join the Ray cluster {address} ({_line(why)}); mend RAY_ADDRESS, or unset it to use this machine "
            "alone"
        ) from why


@contextlib.contextmanager
def _warnings_told() -> Iterator[None]:
    """Show our own warnings at once, beside what the run's log keeps."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    log.addHandler(terminal)
    try:
        yield
    finally:
        log.removeHandler(terminal)


def _room(need: dict[str, float]) -> dict[str, int]:
    """How many workers each node that is there has room for, were it ours alone; a worker is on one node."""
    return {
        node["NodeID"]: min(int(node["Resources"].get(kind, 0) / amount + 1e-4) for kind, amount in need.items())
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }


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
