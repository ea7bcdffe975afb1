"""The worker pool: refused options, and where it starts workers in a simulated Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.generate.batch_threads import HungRows
from synthgen.generate.job import Job
from synthgen.generate.worker import ShardReport
from synthgen.storage.shard_store import Shard

worker_pool = pytest.importorskip("synthgen.cluster.worker_pool", reason="no Ray here")

GONE = "gone"


def job(store: Path, images: Path, **options: Any) -> Job:
    return Job("masks", "d", "train", "annotations", "masks", "box_fill", store, images, {"batch_size": 4, **options})


@pytest.mark.parametrize("gpus", [1.5, -1.0, float("nan"), float("inf")])
def test_gpus_that_cannot_be_are_refused(tmp_path, gpus):
    with pytest.raises(SynthgenError, match=r"--gpus-per-worker \S+ should be a part of one GPU or a whole number"):
        worker_pool.WorkerPool(job(tmp_path, tmp_path), None, gpus)


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_that_cannot_be_are_refused(tmp_path, workers):
    with pytest.raises(SynthgenError, match=f"--workers {workers} should be at least 1"):
        worker_pool.WorkerPool(job(tmp_path, tmp_path), workers, None)


class Promise:
    """Of a call: an outcome, or an exception, once it is `kept`."""

    def __init__(self) -> None:
        self.kept = False
        self.outcome: Any = None

    def keep(self, outcome: Any) -> None:
        self.kept, self.outcome = True, outcome


@dataclass
class SimulatedRay:
    """As much of Ray as a pool uses. It starts nothing: a test says by `settle` how the oldest start ended.

    Attributes:
        resources: node's id -> what it has; GONE = it has left.
        started: the options of each actor, in order; given: the job of the last.
        starts: promises of those that have not ended, (where, start).
        runs: promises of shards.
    """

    resources: dict[str, Any]
    started: list[dict[str, Any]] = field(default_factory=list)
    given: Job | None = None
    starts: list[tuple[Promise, Promise]] = field(default_factory=list)
    runs: list[Promise] = field(default_factory=list)

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name,
                "Alive": own != GONE,
                "Resources": {"CPU": 100.0, "GPU": 100.0} if own == GONE else own,
                "NodeManagerAddress": f"address-{name}",
            }
            for name, own in self.resources.items()
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": sum(own.get("GPU", 0) for own in self.resources.values())}

    def remote(self, _: type) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **own: SimpleNamespace(remote=lambda job: self._start(own, job)))

    def _start(self, own: dict[str, Any], given: Job) -> SimpleNamespace:
        where, start = Promise(), Promise()
        self.started.append(own)
        self.given = given
        self.starts.append((where, start))

        def run(shard: Shard, hung: HungRows) -> Promise:
            self.runs.append(Promise())
            return self.runs[-1]

        return SimpleNamespace(
            node=SimpleNamespace(remote=lambda: where),
            start=SimpleNamespace(remote=lambda: start),
            run=SimpleNamespace(remote=run),
        )

    def settle(self, node: str, outcome: Any) -> None:
        where, start = self.starts.pop(0)
        where.keep(node or worker_pool.RayError("it never got to a node"))
        start.keep(outcome)

    def wait(self, promises: list[Promise], **_: Any) -> tuple[list[Promise], list[Promise]]:
        return [promise for promise in promises if promise.kept][:1], []

    def get(self, promise: Promise, **_: Any) -> Any:
        assert promise.kept, "a pool should not wait for one worker"
        if isinstance(promise.outcome, Exception):
            raise promise.outcome
        return promise.outcome

    def kill(self, _: Any) -> None:
        pass

    def shunned(self, which: int = -1) -> str | None:
        """The nodes that a worker must not be placed on."""
        return self.started[which].get("label_selector", {}).get("ray.io/node-id")


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedRay:
    """Two nodes, each with room for two."""
    ray = SimulatedRay({"a": {"CPU": 2.0}, "b": {"CPU": 2.0}})
    monkeypatch.setattr(worker_pool, "ray", ray)
    return ray


@pytest.fixture
def pool(simulated: SimulatedRay, tmp_path: Path) -> Any:
    return worker_pool.WorkerPool(job(tmp_path, tmp_path), None, None)


GPUS = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("need", "nodes", "room"),
    [
        ({"CPU": 1.0}, [{"CPU": 2.0}, {"CPU": 3.0, "memory": 1e9}], 5),
        ({"CPU": 1.0}, [{"memory": 1e9}], 0),
        ({"CPU": 1.0, "GPU": 1.0}, [*GPUS, {"CPU": 64.0}], 2),
        ({"CPU": 1.0, "GPU": 1.0}, [{"CPU": 2.0, "GPU": 8.0}], 2),
        ({"CPU": 1.0, "GPU": 0.6}, GPUS, 2),  # 2 / 0.6 = 3, but no worker is on two nodes
        ({"CPU": 1.0, "GPU": 0.3333}, GPUS, 6),
        ({"CPU": 1.0, "GPU": 0.1}, [{"CPU": 64.0, "GPU": 3.0}], 30),  # 3 / 0.1 is a little less than 30
    ],
)
def test_room_is_counted_node_by_node(monkeypatch, need, nodes, room):
    ray = SimulatedRay({"left": GONE} | {str(i): own for i, own in enumerate(nodes)})
    monkeypatch.setattr(worker_pool, "ray", ray)
    assert sum(worker_pool.worker_slots_by_node(need).values()) == room


@pytest.mark.parametrize(
    ("nodes", "options", "asked", "gpus", "device"),
    [
        (GPUS, {"device": "auto"}, None, 1.0, "cuda"),
        (GPUS, {"device": "auto"}, 0.5, 0.5, "cuda"),
        (GPUS, {"device": "auto"}, 0.0, 0.0, "auto"),
        (GPUS, {"device": "cpu"}, None, 1.0, "cpu"),
        (GPUS, {}, None, 0.0, None),  # GrabCut
        (GPUS, {}, 1.0, 1.0, None),
        ([{"CPU": 8.0}], {"device": "auto"}, None, 0.0, "auto"),
    ],
)
def test_who_has_a_gpu_uses_it_and_who_has_no_use_gets_none(monkeypatch, tmp_path, nodes, options, asked, gpus, device):
    ray = SimulatedRay({str(i): own for i, own in enumerate(nodes)})
    monkeypatch.setattr(worker_pool, "ray", ray)
    plain = job(tmp_path, tmp_path, **options)
    pool = worker_pool.WorkerPool(plain, None, asked)
    pool.scale_up(1)
    assert ray.started[0]["num_gpus"] == gpus
    assert pool.resources.get("GPU", 0.0) == gpus
    assert ray.given.options.get("device") == device
    assert ray.given.fingerprint("") == plain.fingerprint("")


def test_as_many_are_started_as_there_is_room_or_work_for(simulated, pool, tmp_path):
    pool.scale_up(3)
    assert len(simulated.started) == 3
    pool.scale_up(3)  # those that begin will have them
    assert len(simulated.started) == 3
    pool.scale_up(100)
    assert len(simulated.started) == 4
    some = worker_pool.WorkerPool(job(tmp_path, tmp_path), 9, None)
    some.scale_up(100)
    assert len(simulated.started) == 4 + 9


def test_where_a_worker_refused_none_is_sent_again(simulated, pool, caplog):
    pool.scale_up(100)
    simulated.settle("a", "no driver (on node a)")
    assert list(pool.poll()) == []
    pool.scale_up(100)
    assert len(simulated.started) == 4, "there is room for two, and three are there"
    simulated.settle("a", "no driver (on node a)")
    simulated.settle("b", None)
    for _ in range(2):
        for worker, shard, _outcome in pool.poll():
            assert shard is None
            pool.assign(worker, None)
    pool.scale_up(100)
    assert len(simulated.started) == 5
    assert simulated.shunned() == "!in(a)"
    assert [simulated.shunned(i) for i in range(4)] == [None] * 4
    assert [record.message for record in caplog.records].count("a worker cannot begin: no driver (on node a)") == 1


def test_a_refusal_leaves_with_its_node(simulated, pool):
    pool.scale_up(1)
    pool.scale_up(2)
    simulated.settle("a", "no driver")
    assert list(pool.poll()) == []
    simulated.resources |= {"a": GONE, "c": {"CPU": 2.0}}
    pool.scale_up(100)
    assert len(simulated.started) == 2 + 3
    assert simulated.shunned() is None


def test_where_all_nodes_refuse_the_last_sentence_ends_the_run(simulated, pool):
    pool.scale_up(2)
    for node in "ab":
        simulated.settle(node, f"no driver on {node}")
        assert list(pool.poll()) == []
        if node == "a":
            pool.scale_up(2)
            assert (len(simulated.started), simulated.shunned()) == (3, "!in(a)")
    simulated.settle("b", "no driver on b")
    assert list(pool.poll()) == []
    with pytest.raises(SynthgenError, match=r"^no driver on b$"):
        pool.scale_up(2)
    assert len(simulated.started) == 3


def test_some_mishaps_are_no_refusal_and_many_in_a_row_are(simulated, pool):
    pool.scale_up(1)
    for deaths in (1, 2):
        simulated.settle("a", worker_pool.RayError("the actor died"))
        assert [(worker, shard) for worker, shard, _ in pool.poll()] == [(None, None)]
        pool.scale_up(1)
        assert (len(simulated.started), simulated.shunned()) == (1 + deaths, None)
    simulated.settle("a", None)  # then one begins, and they are forgotten
    ((worker, _, _),) = pool.poll()
    pool.assign(worker, Shard("d", "train", "masks", 0, 9))
    for _ in range(3):
        pool.scale_up(1)
        assert simulated.shunned() is None
        simulated.settle("a", worker_pool.RayError("the actor died"))
        list(pool.poll())
    pool.scale_up(1)
    assert simulated.shunned() == "!in(a)"


def test_deaths_nobody_knows_where_end_the_run_unless_others_work(simulated, pool):
    pool.scale_up(1)
    pool.scale_up(2)
    simulated.settle("a", None)
    ((worker, _, _),) = pool.poll()
    pool.assign(worker, Shard("d", "train", "masks", 0, 9))
    for _ in range(3):
        pool.scale_up(1)
        simulated.settle("", worker_pool.RayError("its environment could not be made"))
        list(pool.poll())
    count = len(simulated.started)
    pool.scale_up(1)  # none, but the run goes on
    assert len(simulated.started) == count
    simulated.runs[0].keep(ShardReport(Shard("d", "train", "masks", 0, 9)))
    ((worker, _, _),) = pool.poll()
    pool.scale_up(1)
    assert len(simulated.started) == count + 1, "after a success it is tried again"


@pytest.mark.parametrize(
    ("raised", "ends"),
    [
        (TypeError("one is not two"), TypeError),
        (MemoryError("too little"), SynthgenError),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), SynthgenError),  # as torch's
    ],
)
def test_a_mistake_ends_the_run_as_it_is_and_full_memory_by_a_sentence(simulated, pool, raised, ends):
    simulated.resources = {"a": {"CPU": 1.0}}
    failure = worker_pool.RayTaskError("start", "the remote traceback", raised)
    for _ in range(3):
        pool.scale_up(1)
        simulated.settle("a", failure)
        list(pool.poll())
    with pytest.raises(ends) as end:
        pool.scale_up(1)
    if ends is SynthgenError:
        told = f"{type(raised).__name__}: {raised}, on node address-a"
        assert str(end.value).startswith(f"3 workers in a row died before they could begin ({told}); a node needs mem")
    else:
        assert end.value.__cause__ is failure
        assert "the remote traceback" in str(failure)


def test_a_slow_start_is_not_taken_for_a_full_cluster(simulated, pool, caplog):
    pool.scale_up(1)
    assert list(pool.poll()) == []
    assert "no worker is there yet, each needs {'CPU': 1.0} of a node; waiting" in caplog.text
    caplog.clear()
    other = worker_pool.WorkerPool(pool.job, None, None)
    other.scale_up(1)
    simulated.starts[-1][0].keep("a")  # it is there, and loads its model
    assert list(other.poll()) == []
    assert caplog.text == ""
