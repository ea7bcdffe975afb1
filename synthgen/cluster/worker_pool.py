"""The pool of workers that process the shards of a job on a Ray cluster.

Ray places the workers. The pool excludes a node on which a worker reports that it cannot start, or on which several in
a row die before they have started: it starts no more workers there while the node stays in the cluster, and other nodes
continue. The job ends with an error when no worker is left and none can be started.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from synthgen.cluster.actor import WorkerActor
from synthgen.cluster.connection import first_message_line, worker_environment
from synthgen.errors import FailedRunError, SynthgenError
from synthgen.generate.batch_threads import NONE_HUNG, HungRows
from synthgen.generate.job import Job
from synthgen.storage.shard_store import Shard

#: Below the logger "synthgen", so that the run's log has these messages.
log = logging.getLogger(__name__)

#: The pool excludes a node after this many workers in a row died there before they had started.
MAX_DEATHS_AT_START = 3

#: Seconds that `WorkerPool.poll` waits at most; between two polls nodes may have joined the cluster.
POLL_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class WorkerHandle:
    """One worker.

    Attributes:
        actor: its Ray actor.
        node_id: the future of its node's id, which the actor returns before it starts.
    """

    actor: Any
    node_id: Any

    def node(self) -> str:
        """Return Ray's id of its node, "" where it died before it returned one; immediate once it started or died."""
        try:
            return str(ray.get(self.node_id, timeout=POLL_SECONDS))
        except RayError:
            return ""


class WorkerPool:
    """The workers of a run. Each has one outstanding call: its start, or a shard.

    Attributes:
        resources: what Ray reserves for each worker.
        calls: future of an outstanding call -> (worker, its shard; None = its start).
        has_started: whether any worker has started.
        deaths_at_start: node -> workers in a row that died there before they had started.
        excluded: node -> why no worker is started there any more; the key "" stands for an unknown node.
        last_error: why the last worker could not start.

    Args:
        job: what to do with each shard.
        workers: at most this many; None = as many as fit.
        gpus_per_worker: None = 1 if the cluster has GPUs and the model can use one, else 0.

    Raises:
        SynthgenError: `workers` or `gpus_per_worker` is not valid.
    """

    def __init__(self, job: Job, workers: int | None, gpus_per_worker: float | None) -> None:
        if workers is not None and workers < 1:
            raise SynthgenError(f"--workers {workers} should be at least 1")
        gpus = gpus_per_worker
        if gpus is None:  # a model without the option `device` cannot use a GPU
            cluster_has_gpus = ray.cluster_resources().get("GPU", 0) >= 1  # type: ignore[no-untyped-call]
            gpus = 1.0 if cluster_has_gpus and "device" in job.options else 0.0
        if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
            raise SynthgenError(f"--gpus-per-worker {gpus} should be a part of one GPU or a whole number of them")
        if gpus and job.options.get("device") == "auto":  # a node whose CUDA is broken must say so, not use its CPU
            job = replace(job, options={**job.options, "device": "cuda"})
        self.job, self.workers = job, workers
        self.resources = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
        self._actor_options: dict[str, Any] = {
            "num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "runtime_env": {"env_vars": worker_environment()},
        }  # fmt: skip
        self.calls: dict[Any, tuple[WorkerHandle, Shard | None]] = {}
        self.has_started = False
        self.deaths_at_start = Counter[str]()
        self.excluded: dict[str, str] = {}
        self.last_error: Exception = SynthgenError("no worker can begin")
        self._reported: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """Whether any worker has a shard."""
        return any(shard is not None for _, shard in self.calls.values())

    def scale_up(self, pending_shards: int) -> None:
        """Start workers on nodes that are not excluded, up to the limit and to what the waiting shards need.

        Args:
            pending_shards: how many shards no worker has yet.

        Raises:
            SynthgenError: there is no worker, and none can be started.
        """
        room = worker_slots_by_node(self.resources)
        self.excluded = {node: why for node, why in self.excluded.items() if node in room or not node}
        usable = sum(count for node, count in room.items() if node not in self.excluded)
        if not self.excluded or (usable and "" not in self.excluded):
            limit = max(1, usable) if self.workers is None else self.workers  # one waits for a node to join
            starting = sum(shard is None for _, shard in self.calls.values())
            for _ in range(min(limit - len(self.calls), pending_shards - starting)):
                self._start_one()
        if not self.calls:
            raise self.last_error

    def _start_one(self) -> None:
        # Ray labels each node with its id.
        selector = {"label_selector": {"ray.io/node-id": f"!in({','.join(self.excluded)})"}} if self.excluded else {}
        remote: Any = ray.remote(WorkerActor)
        actor = remote.options(**self._actor_options, **selector).remote(self.job)
        worker = WorkerHandle(actor, actor.node.remote())
        self.calls[actor.start.remote()] = (worker, None)

    def assign(self, worker: WorkerHandle, shard: Shard | None, hung: HungRows = NONE_HUNG) -> None:
        """Give a worker its next shard; None = stop the worker.

        Args:
            worker: one without an outstanding call, or one that hangs.
            shard: the next one; None = stop the worker.
            hung: over which of the shard's images earlier workers hung.
        """
        if shard is None:
            ray.kill(worker.actor)
        else:
            self.calls[worker.actor.run.remote(shard, hung)] = (worker, shard)

    def poll(self) -> Iterator[tuple[WorkerHandle | None, Shard | None, Any]]:
        """Wait up to `POLL_SECONDS` for a call to end; yield (idle worker, shard, its report or the cause of death).

        The worker is None where it died. The shard is None where the call was the worker's start.
        """
        done, _ = ray.wait(list(self.calls), num_returns=1, timeout=POLL_SECONDS)
        for call in done:
            worker, shard = self.calls.pop(call)
            try:
                outcome = ray.get(call)
            except RayError as why:
                ray.kill(worker.actor)
                if shard is None:
                    self._record_death_at_start(worker.node(), why)
                yield None, shard, _describe(why)
                continue
            if isinstance(outcome, str):
                self._exclude(worker.node(), SynthgenError(outcome))
                ray.kill(worker.actor)
                continue
            self.has_started = True
            for node in {"", worker.node()} if shard is None else {""}:
                self.deaths_at_start[node] = 0
            self.excluded.pop("", None)
            yield worker, shard, outcome
        placed = [worker.node_id for worker, _ in self.calls.values()]
        if not done and not self.has_started and not ray.wait(placed, timeout=0)[0]:
            self._warn_once(f"no worker is there yet, each needs {self.resources} of a node; waiting")
        if self.has_started or not done:  # else the run may end with this very sentence
            for sentence in self.excluded.values():
                self._warn_once(f"a worker cannot begin: {sentence}")

    def _record_death_at_start(self, node: str, why: RayError) -> None:
        """Count a death before the start; exclude the node after `MAX_DEATHS_AT_START` in a row."""
        self.deaths_at_start[node] += 1
        log.info("a worker died before it could begin (%s)", _describe(why))
        if self.deaths_at_start[node] < MAX_DEATHS_AT_START:
            return
        where = f"{_describe(why)}, on node {_address(node)}"
        sentence = (
            f"{self.deaths_at_start[node]} workers in a row died before they could begin ({where}); a node needs "
            "memory for the model of each worker on it: use fewer --workers, or a smaller --variant"
        )
        if (bug := _program_error(why)) is None:
            self._exclude(node, FailedRunError(sentence))
        else:
            self._exclude(node, bug, sentence=where)

    def _exclude(self, node: str, why: Exception, sentence: str = "") -> None:
        self.last_error = why
        self.excluded.setdefault(node, sentence or str(why))

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            log.warning("%s", sentence)

    def close(self) -> None:
        """Stop all workers."""
        for worker, _ in self.calls.values():
            ray.kill(worker.actor)


def worker_slots_by_node(resources: dict[str, float]) -> dict[str, int]:
    """Return for each live node how many workers fit on it if nothing else runs; a worker is on one node.

    Args:
        resources: amount of each resource that one worker needs, such as {"CPU": 2}; each amount is above 0.
    """
    return {
        node["NodeID"]: min(int(node["Resources"].get(kind, 0) / amount + 1e-4) for kind, amount in resources.items())
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }


def _address(node_id: str) -> str:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return next((str(node["NodeManagerAddress"]) for node in nodes if node["NodeID"] == node_id), "unknown")


def _describe(why: RayError) -> str:
    cause = _cause(why)
    if cause is None:
        return first_message_line(why)
    return str(cause) if isinstance(cause, SynthgenError) else f"{type(cause).__name__}: {first_message_line(cause)}"


def _program_error(why: RayError) -> Exception | None:
    """Return what a worker raised, with its traceback; None where the user or a node's memory is the cause."""
    cause = _cause(why)
    # The device's error by its name: this package does not import torch.
    if cause is None or isinstance(cause, SynthgenError | MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return None
    cause.__cause__ = why
    return cause


def _cause(why: RayError) -> Exception | None:
    cause = why.cause if isinstance(why, RayTaskError) else None
    return cause if isinstance(cause, Exception) else None
