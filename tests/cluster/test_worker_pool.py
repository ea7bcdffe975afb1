"""The cluster's engine without a cluster: what it refuses; and whom it hires where, of a Ray that is played."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.generate.job import Job
from synthgen.records.store import Shard

ray_engine = pytest.importorskip("synthgen.cluster.engine", reason="no Ray here")
crew = pytest.importorskip("synthgen.cluster.worker_pool", reason="no Ray here")

GONE = "gone"


def job(store: Path, images: Path, **options: Any) -> Job:
    return Job("masks", "d", "train", "annotations", "masks", "box_fill", store, images, {"batch_size": 4, **options})


@pytest.mark.parametrize("flag", ["--store", "--images"])
def test_a_node_says_what_it_does_not_see(tmp_path, flag):
    places = {"--store": tmp_path, "--images": tmp_path} | {flag: tmp_path / "elsewhere"}
    told = crew.Actor(job(*places.values())).start()
    assert told is not None
    assert told.startswith("node ")
    wanted = f"does not see {tmp_path / 'elsewhere'}; all nodes must reach the same {flag} by the same path"
    assert told.endswith(wanted)


def test_a_store_that_ray_would_delete_is_refused(tmp_path):
    unpacked = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0"
    with pytest.raises(SynthgenError, match="which Ray deletes; give a folder that all nodes share, by --store"):
        next(ray_engine.ray_engine(job(unpacked / "shards", tmp_path), []))


@pytest.mark.parametrize("gpus", [1.5, -1.0, float("nan"), float("inf")])
def test_gpus_that_cannot_be_are_refused(tmp_path, gpus):
    with pytest.raises(SynthgenError, match=r"--gpus-per-worker \S+ should be a part of one GPU or a whole number"):
        crew.Crew(job(tmp_path, tmp_path), None, gpus)


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_that_cannot_be_are_refused(tmp_path, workers):
    with pytest.raises(SynthgenError, match=f"--workers {workers} should be at least 1"):
        crew.Crew(job(tmp_path, tmp_path), workers, None)


class Promise:
    """Of a call: an outcome, or an exception, once it is `kept`."""

    def __init__(self) -> None:
        self.kept = False
        self.outcome: Any = None

    def keep(self, outcome: Any) -> None:
        self.kept, self.outcome = True, outcome


@dataclass
class PlayedRay:
    """As much of Ray as a crew asks for. It starts nothing: a test says by `settle` how the oldest start ended.

    Attributes:
        resources: node's id -> what it has; GONE = it has left.
        hired: the options of each actor, in order; given: the job of the last.
        starts: promises of those that have not ended, (where, start).
        runs: promises of shards.
    """

    resources: dict[str, Any]
    hired: list[dict[str, Any]] = field(default_factory=list)
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
        return SimpleNamespace(options=lambda **own: SimpleNamespace(remote=lambda job: self._hire(own, job)))

    def _hire(self, own: dict[str, Any], given: Job) -> SimpleNamespace:
        where, start = Promise(), Promise()
        self.hired.append(own)
        self.given = given
        self.starts.append((where, start))

        def run(shard: Shard) -> Promise:
            self.runs.append(Promise())
            return self.runs[-1]

        return SimpleNamespace(
            node=SimpleNamespace(remote=lambda: where),
            start=SimpleNamespace(remote=lambda: start),
            run=SimpleNamespace(remote=run),
        )

    def settle(self, node: str, outcome: Any) -> None:
        where, start = self.starts.pop(0)
        where.keep(node or crew.RayError("it never got to a node"))
        start.keep(outcome)

    def wait(self, promises: list[Promise], **_: Any) -> tuple[list[Promise], list[Promise]]:
        return [promise for promise in promises if promise.kept][:1], []

    def get(self, promise: Promise, **_: Any) -> Any:
        assert promise.kept, "a crew should not wait for one worker"
        if isinstance(promise.outcome, Exception):
            raise promise.outcome
        return promise.outcome

    def kill(self, _: Any) -> None:
        pass

    def shunned(self, which: int = -1) -> str | None:
        """The nodes that a worker must not be placed on."""
        return self.hired[which].get("label_selector", {}).get("ray.io/node-id")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> PlayedRay:
    """Two nodes, each with room for two."""
    ray = PlayedRay({"a": {"CPU": 2.0}, "b": {"CPU": 2.0}})
    monkeypatch.setattr(crew, "ray", ray)
    return ray


@pytest.fixture
def hands(played: PlayedRay, tmp_path: Path) -> Any:
    return crew.Crew(job(tmp_path, tmp_path), None, None)


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
    ray = PlayedRay({"left": GONE} | {str(i): own for i, own in enumerate(nodes)})
    monkeypatch.setattr(crew, "ray", ray)
    assert sum(crew.room_on_nodes(need).values()) == room


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
    ray = PlayedRay({str(i): own for i, own in enumerate(nodes)})
    monkeypatch.setattr(crew, "ray", ray)
    plain = job(tmp_path, tmp_path, **options)
    hands = crew.Crew(plain, None, asked)
    hands.hire(1)
    assert ray.hired[0]["num_gpus"] == gpus
    assert hands.need.get("GPU", 0.0) == gpus
    assert ray.given.options.get("device") == device
    assert ray.given.fingerprint("") == plain.fingerprint("")


def test_as_many_are_hired_as_there_is_room_or_work_for(played, hands, tmp_path):
    hands.hire(3)
    assert len(played.hired) == 3
    hands.hire(3)  # those that begin will have them
    assert len(played.hired) == 3
    hands.hire(100)
    assert len(played.hired) == 4
    some = crew.Crew(job(tmp_path, tmp_path), 9, None)
    some.hire(100)
    assert len(played.hired) == 4 + 9


def test_where_a_worker_refused_none_is_sent_again(played, hands, caplog):
    hands.hire(100)
    played.settle("a", "no driver (on node a)")
    assert list(hands.news()) == []
    hands.hire(100)
    assert len(played.hired) == 4, "there is room for two, and three are there"
    played.settle("a", "no driver (on node a)")
    played.settle("b", None)
    for _ in range(2):
        for hand, shard, _outcome in hands.news():
            assert shard is None
            hands.give(hand, None)
    hands.hire(100)
    assert len(played.hired) == 5
    assert played.shunned() == "!in(a)"
    assert [played.shunned(i) for i in range(4)] == [None] * 4
    assert [record.message for record in caplog.records].count("a worker cannot begin: no driver (on node a)") == 1


def test_a_refusal_leaves_with_its_node(played, hands):
    hands.hire(1)
    hands.hire(2)
    played.settle("a", "no driver")
    assert list(hands.news()) == []
    played.resources |= {"a": GONE, "c": {"CPU": 2.0}}
    hands.hire(100)
    assert len(played.hired) == 2 + 3
    assert played.shunned() is None


def test_where_all_nodes_refuse_the_last_sentence_ends_the_run(played, hands):
    hands.hire(2)
    for node in "ab":
        played.settle(node, f"no driver on {node}")
        assert list(hands.news()) == []
        if node == "a":
            hands.hire(2)
            assert (len(played.hired), played.shunned()) == (3, "!in(a)")
    played.settle("b", "no driver on b")
    assert list(hands.news()) == []
    with pytest.raises(SynthgenError, match=r"^no driver on b$"):
        hands.hire(2)
    assert len(played.hired) == 3


def test_some_mishaps_are_no_refusal_and_many_in_a_row_are(played, hands):
    hands.hire(1)
    for deaths in (1, 2):
        played.settle("a", crew.RayError("the actor died"))
        assert [(hand, shard) for hand, shard, _ in hands.news()] == [(None, None)]
        hands.hire(1)
        assert (len(played.hired), played.shunned()) == (1 + deaths, None)
    played.settle("a", None)  # then one begins, and they are forgotten
    ((hand, _, _),) = hands.news()
    hands.give(hand, Shard("d", "train", "masks", 0, 9))
    for _ in range(3):
        hands.hire(1)
        assert played.shunned() is None
        played.settle("a", crew.RayError("the actor died"))
        list(hands.news())
    hands.hire(1)
    assert played.shunned() == "!in(a)"


def test_deaths_nobody_knows_where_end_the_run_unless_others_work(played, hands):
    hands.hire(1)
    hands.hire(2)
    played.settle("a", None)
    ((hand, _, _),) = hands.news()
    hands.give(hand, Shard("d", "train", "masks", 0, 9))
    for _ in range(3):
        hands.hire(1)
        played.settle("", crew.RayError("its environment could not be made"))
        list(hands.news())
    count = len(played.hired)
    hands.hire(1)  # none, but the run goes on
    assert len(played.hired) == count
    played.runs[0].keep(ray_engine.ShardReport(Shard("d", "train", "masks", 0, 9)))
    ((hand, _, _),) = hands.news()
    hands.hire(1)
    assert len(played.hired) == count + 1, "after good news it is tried again"


@pytest.mark.parametrize(
    ("raised", "ends"),
    [
        (TypeError("one is not two"), TypeError),
        (MemoryError("too little"), SynthgenError),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), SynthgenError),  # as torch's
    ],
)
def test_a_mistake_ends_the_run_as_it_is_and_full_memory_by_a_sentence(played, hands, raised, ends):
    played.resources = {"a": {"CPU": 1.0}}
    failure = crew.RayTaskError("start", "the remote traceback", raised)
    for _ in range(3):
        hands.hire(1)
        played.settle("a", failure)
        list(hands.news())
    with pytest.raises(ends) as end:
        hands.hire(1)
    if ends is SynthgenError:
        told = f"{type(raised).__name__}: {raised}, on node address-a"
        assert str(end.value).startswith(f"3 workers in a row died before they could begin ({told}); a node needs mem")
    else:
        assert end.value.__cause__ is failure
        assert "the remote traceback" in str(failure)


def test_a_slow_start_is_not_taken_for_a_full_cluster(played, hands, caplog):
    hands.hire(1)
    assert list(hands.news()) == []
    assert "no worker is there yet, each needs {'CPU': 1.0} of a node; waiting" in caplog.text
    caplog.clear()
    other = crew.Crew(hands.job, None, None)
    other.hire(1)
    played.starts[-1][0].keep("a")  # it is there, and loads its model
    assert list(other.news()) == []
    assert caplog.text == ""
