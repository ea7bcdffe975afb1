"""The cluster's engine before any cluster is there: what it refuses, and how many workers it counts room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.generate.job import Job

ray_engine = pytest.importorskip("pipelines.ray_engine", reason="no Ray here")


def job(store: Path, images: Path) -> Job:
    return Job("masks", "d", "train", "annotations", "masks", "box_fill", store, images, {"batch_size": 4})


@pytest.mark.parametrize("flag", ["--store", "--images"])
def test_a_node_says_what_it_does_not_see(tmp_path, flag):
    places = {"--store": tmp_path, "--images": tmp_path} | {flag: tmp_path / "elsewhere"}
    told = ray_engine.Actor(job(*places.values())).start()
    assert told is not None
    assert told.startswith("node ")
    wanted = f"does not see {tmp_path / 'elsewhere'}; all nodes must reach the same {flag} by the same path"
    assert told.endswith(wanted)


def test_a_store_that_ray_would_delete_is_refused(tmp_path):
    unpacked = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0"
    with pytest.raises(SynthgenError, match="which Ray deletes; give a folder that all nodes share, by --store"):
        next(ray_engine.ray_engine(job(unpacked / "shards", tmp_path), []))


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
    dead = {"Alive": False, "NodeID": "dead", "Resources": {"CPU": 100.0, "GPU": 100.0}}
    there = [{"Alive": True, "NodeID": str(i), "Resources": own} for i, own in enumerate(nodes)]
    monkeypatch.setattr(ray_engine.ray, "nodes", lambda: [dead, *there])
    assert sum(ray_engine._room(need).values()) == room


@pytest.mark.parametrize("gpus", [1.5, -1.0, float("nan"), float("inf")])
def test_gpus_that_cannot_be_are_refused(tmp_path, gpus):
    with pytest.raises(SynthgenError, match=r"--gpus-per-worker \S+ should be a part of one GPU or a whole number"):
        ray_engine._Crew(job(tmp_path, tmp_path), None, gpus)
