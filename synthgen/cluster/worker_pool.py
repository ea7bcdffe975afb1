"""The workers of a run on a Ray cluster: who is hired and where, what came of it, and who can work no more.

Ray places them. A node where one refused, or where several in a row died before they could begin, gets no more, as long
as it is there; the other nodes go on. The run ends when no worker is left and no node is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from synthgen.cluster.actor import Actor
from synthgen.cluster.connection import environment, line_of
from synthgen.errors import SynthgenError
from synthgen.generate.job import Job
from synthgen.records.store import Shard

#: One of the house's loggers, so that the run's log has what it says.
log = logging.getLogger(__name__)

#: A node gets no more workers once so many in a row died there before they could begin.
MOST_DEATHS = 3

#: Seconds between two looks at the cluster: nodes may have joined.
LOOK = 5.0


@dataclass(frozen=True, eq=False)
class Hand:
    """A worker: its actor, and the promise of its node's id, which it tells before it begins."""

    actor: Any
    where: Any

    def node(self) -> str:
        """Ray's id of its node; "" where it died before it could tell. Once it has begun or died, this is at once."""
        try:
            return str(ray.get(self.where, timeout=LOOK))
        except RayError:
            return ""


class Crew:
    """The workers of a run; each has one call outstanding, its start or a shard."""

    def __init__(self, job: Job, workers: int | None, gpus_per_worker: float | None) -> None:
        if workers is not None and workers < 1:
            raise SynthgenError(f"--workers {workers} should be at least 1")
        gpus = gpus_per_worker
        if gpus is None:  # what knows no device has no use for one
            there_are = ray.cluster_resources().get("GPU", 0) >= 1  # type: ignore[no-untyped-call]
            gpus = 1.0 if there_are and "device" in job.options else 0.0
        if not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
            raise SynthgenError(f"--gpus-per-worker {gpus} should be a part of one GPU or a whole number of them")
        if gpus and job.options.get("device") == "auto":  # a node whose CUDA is broken must say so, not use its CPU
            job = replace(job, options={**job.options, "device": "cuda"})
        self.job, self.workers = job, workers
        self.need = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
        own = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "runtime_env": {"env_vars": environment()}}
        self.options: dict[str, Any] = own
        self.calls: dict[Any, tuple[Hand, Shard | None]] = {}
        self.proven = False  # some worker has begun
        self.deaths = Counter[str]()  # node -> workers that died there before they could begin, since one could
        self.refused: dict[str, str] = {}  # node -> why none is sent there any more; "" = nobody knows where
        self.why: Exception = SynthgenError("no worker can begin")  # as the last of them said
        self.told: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether any worker has a shard."""
        return any(shard is not None for _, shard in self.calls.values())

    def hire(self, waiting: int) -> None:
        """Start workers until there are as many as may be, or as can be of use, wherever none has refused.

        Raises:
            SynthgenError: there is none, and none can begin.
        """
        room = room_on_nodes(self.need)
        self.refused = {node: why for node, why in self.refused.items() if node in room or not node}
        fit = sum(count for node, count in room.items() if node not in self.refused)
        if not self.refused or (fit and "" not in self.refused):
            most = max(1, fit) if self.workers is None else self.workers  # one waits for a node to join
            starting = sum(shard is None for _, shard in self.calls.values())
            for _ in range(min(most - len(self.calls), waiting - starting)):
                self._start_one()
        if not self.calls:
            raise self.why

    def _start_one(self) -> None:
        # Ray labels each node with its id.
        elsewhere = {"label_selector": {"ray.io/node-id": f"!in({','.join(self.refused)})"}} if self.refused else {}
        remote: Any = ray.remote(Actor)
        actor = remote.options(**self.options, **elsewhere).remote(self.job)
        hand = Hand(actor, actor.node.remote())
        self.calls[actor.start.remote()] = (hand, None)

    def give(self, hand: Hand, shard: Shard | None) -> None:
        """The next shard for a worker; without one it may go."""
        if shard is None:
            ray.kill(hand.actor)
        else:
            self.calls[hand.actor.run.remote(shard)] = (hand, shard)

    def news(self) -> Iterator[tuple[Hand | None, Shard | None, Any]]:
        """What has happened since, some seconds long: (worker that is free, shard, report or cause of death)."""
        done, _ = ray.wait(list(self.calls), num_returns=1, timeout=LOOK)
        for call in done:
            hand, shard = self.calls.pop(call)
            try:
                outcome = ray.get(call)
            except RayError as why:
                ray.kill(hand.actor)
                if shard is None:
                    self._died_early(hand.node(), why)
                yield None, shard, _told(why)
                continue
            if isinstance(outcome, str):
                self._refuse(hand.node(), SynthgenError(outcome))
                ray.kill(hand.actor)
                continue
            self.proven = True
            for node in {"", hand.node()} if shard is None else {""}:
                self.deaths[node] = 0
            self.refused.pop("", None)
            yield hand, shard, outcome
        if not done and not self.proven and not ray.wait([hand.where for hand, _ in self.calls.values()], timeout=0)[0]:
            self._tell(f"no worker is there yet, each needs {self.need} of a node; waiting")
        for sentence in self.refused.values() if self.proven or not done else ():  # else the end may be near, and tell
            self._tell(f"a worker cannot begin: {sentence}")

    def _died_early(self, node: str, why: RayError) -> None:
        """One death may be a mishap; so many in a row are the node's way."""
        self.deaths[node] += 1
        log.info("a worker died before it could begin (%s)", _told(why))
        if self.deaths[node] < MOST_DEATHS:
            return
        where = f"{_told(why)}, on node {_address(node)}"
        sentence = (
            f"{self.deaths[node]} workers in a row died before they could begin ({where}); a node needs memory for the "
            "model of each worker on it: use fewer --workers, or a smaller --variant"
        )
        if (mistake := _mistake(why)) is None:
            self._refuse(node, SynthgenError(sentence))
        else:
            self._refuse(node, mistake, told=where)

    def _refuse(self, node: str, why: Exception, told: str = "") -> None:
        self.why = why
        self.refused.setdefault(node, told or str(why))

    def _tell(self, what: str) -> None:
        """Once."""
        if what not in self.told:
            self.told.add(what)
            log.warning("%s", what)

    def close(self) -> None:
        """Let all go."""
        for hand, _ in self.calls.values():
            ray.kill(hand.actor)


def room_on_nodes(need: dict[str, float]) -> dict[str, int]:
    """How many workers each node that is there has room for, were it ours alone; a worker is on one node."""
    return {
        node["NodeID"]: min(int(node["Resources"].get(kind, 0) / amount + 1e-4) for kind, amount in need.items())
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }


def _address(node: str) -> str:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return next((str(there["NodeManagerAddress"]) for there in nodes if there["NodeID"] == node), "unknown")


def _told(why: RayError) -> str:
    cause = _raised(why)
    if cause is None:
        return line_of(why)
    return str(cause) if isinstance(cause, SynthgenError) else f"{type(cause).__name__}: {line_of(cause)}"


def _mistake(why: RayError) -> Exception | None:
    """What a worker raised where neither the user nor a node's memory is the cause; with its traceback."""
    cause = _raised(why)
    # The device's, by name: torch is not ours to know.
    if cause is None or isinstance(cause, SynthgenError | MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return None
    cause.__cause__ = why
    return cause


def _raised(why: RayError) -> Exception | None:
    cause = why.cause if isinstance(why, RayTaskError) else None
    return cause if isinstance(cause, Exception) else None
