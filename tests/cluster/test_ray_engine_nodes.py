"""Clusters of three nodes on this machine: nodes, drivers and shards that die, nodes that join late, leftovers.

Each job is a driver process of its own. Its shards must have the bytes of a run on one machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset, mask_jobs

pytest.importorskip("ray", reason="Ray is not installed")

from ray import cluster_utils

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHARDS = 12
POISONED = 5  # the shard of image 21
OWN = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos"]
CRASHING = ["--segmenter", "fakes.crashing_segmenter"]
MEMORY = 80_000_000
PORTS = {"dashboard_port": 0, "dashboard_agent_listen_port": 0}


@contextlib.contextmanager
def cluster_of(*cpus: int) -> Iterator[cluster_utils.Cluster]:
    """A head without CPUs, and a node with as many as each number says."""
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": MEMORY, **PORTS}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        for count in cpus:
            add_node(made, count)
        yield made
    finally:
        made.shutdown()


def add_node(cluster: cluster_utils.Cluster, cpus: int) -> Any:
    return cluster.add_node(num_cpus=cpus, num_gpus=0, object_store_memory=MEMORY)


def start(folder: Path, address: str | None, *words: str, **variables: str) -> subprocess.Popen[str]:
    """A driver; without an address, the engine of one machine."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_"))}
    own |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "RAY_USAGE_STATS_ENABLED": "0", **variables}
    engine = ["--engine", "ray"] if address or variables else []
    return subprocess.Popen(
        [sys.executable, "-m", "synthgen", "masks", *OWN, *engine, *words],
        cwd=folder, env=own | ({"RAY_ADDRESS": address} if address else {}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def slow(folder: Path, seconds: float = 0.2) -> list[str]:
    """The words for a segmenter that takes its time for each image on a cluster, which changes no byte."""
    (folder / "slow.json").write_text(json.dumps({"seconds": seconds}))
    return ["--segmenter", "fakes.unloadable_segmenter", "-O", f"checkpoint={folder / 'slow.json'}"]


def finish(driver: subprocess.Popen[str]) -> tuple[int, str]:
    told = driver.communicate(timeout=180)[0]
    return driver.returncode, told


def layer(folder: Path) -> Path:
    return folder / "shards/boxes/train/masks"


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layer(folder).glob("*.parquet")}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "shards").rglob(".*.tmp")]


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def actors_of(*nodes: Any) -> list[int]:
    """Process ids of the actors on these nodes: children of their raylets."""
    raylets = {process.process.pid for node in nodes for process in node.all_processes.get("raylet", [])}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = int(path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in raylets and b"WorkerActor" in path.joinpath("cmdline").read_bytes():
                found.append(int(path.name))
    return found


def kill_node(cluster: cluster_utils.Cluster, node: Any) -> int:
    """Kill a node with its actors, as a power failure does; returns how many actors it had."""
    victims = actors_of(node)
    for process in node.all_processes["raylet"]:
        os.kill(process.process.pid, signal.SIGKILL)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)
    return len(victims)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ingested")
    coco_dataset.write_coco_dataset(folder, images=4 * SHARDS)
    command = [sys.executable, "-m", "synthgen", "ingest", *OWN, "--shard-size", "4"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return folder


@pytest.fixture
def place(ingested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ingested, tmp_path / "place"))


@pytest.fixture(scope="module")
def undisturbed(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of the same job."""
    folder = Path(shutil.copytree(ingested, tmp_path_factory.mktemp("undisturbed") / "place"))
    code, told = finish(start(folder, None, *slow(folder)))
    assert code == 0, told
    assert len(masks(folder)) == SHARDS
    return masks(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    with cluster_of(2, 1) as made:
        yield made


def test_a_node_dies_with_its_actors_and_a_late_one_takes_over(cluster, place, undisturbed):
    third = add_node(cluster, 2)
    driver = start(place, cluster.address, *slow(place, 1.0))
    assert wait_for(lambda: (actors_of(third) and masks(place)) or driver.poll() is not None)
    assert kill_node(cluster, third) > 0, "the node that died had no worker"
    late = add_node(cluster, 1)
    assert wait_for(lambda: actors_of(late) or driver.poll() is not None)
    assert actors_of(late), "the late node had no worker"
    code, told = finish(driver)
    cluster.remove_node(late)
    assert code == 0, told
    assert f"in {SHARDS} shards" in told
    assert masks(place) == undisturbed
    log = (layer(place) / "_log/run.log").read_text()
    assert "a worker died over" in log, "no worker died with a shard"


def test_a_node_that_dies_while_its_workers_start_is_done_without(cluster, place, undisturbed):
    third = add_node(cluster, 3)
    driver = start(place, cluster.address, *slow(place))
    assert wait_for(lambda: actors_of(third) or driver.poll() is not None)
    assert kill_node(cluster, third) > 0
    code, told = finish(driver)
    assert code == 0, told
    assert masks(place) == undisturbed


def test_drivers_that_are_killed_are_resubmitted_at_once(cluster, place, undisturbed):
    """A new driver does not wait until the workers of the old one are gone."""
    seed = 0
    rng, kills = random.Random(seed), 0
    for _ in range(2):
        driver = start(place, cluster.address, *slow(place))
        already = len(masks(place))
        assert wait_for(lambda: len(masks(place)) > already or driver.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 0.5))
        kills += driver.poll() is None
        driver.kill()
        driver.communicate()
        assert all(undisturbed[name] == content for name, content in masks(place).items()), f"seed {seed}"
    assert kills > 0, f"seed {seed}"
    code, told = finish(start(place, cluster.address, *slow(place)))
    assert code == 0, told
    assert masks(place) == undisturbed, f"seed {seed}"
    assert leftovers(place) == []
    assert wait_for(lambda: not actors_of(*cluster.list_all_nodes())), "workers outlive their driver"


def test_a_poison_shard_is_named_also_after_a_killed_driver(cluster, place, tmp_path):
    healthy = Path(shutil.copytree(place, tmp_path / "healthy"))
    code, told = finish(start(healthy, None, *CRASHING))
    assert code == 0, told
    image = (place / "photos/0021.png").read_bytes()
    mask_jobs.redden(place, 21)

    driver = start(place, cluster.address, *CRASHING)
    assert wait_for(lambda: masks(place) or driver.poll() is not None)
    driver.kill()
    driver.communicate()
    code, told = finish(start(place, cluster.address, *CRASHING))
    assert code == 1, told
    name = f"{POISONED:05d}-of-{SHARDS:05d}"
    assert f"  failed: boxes/train/masks/{name}: its worker died 3 times" in told, told
    expected = {file: content for file, content in masks(healthy).items() if not file.startswith(name)}
    assert masks(place) == expected, "every other shard is committed"
    (failure,) = (layer(place) / "_log/failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["shard"] == f"boxes/train/masks/{name}"

    (place / "photos/0021.png").write_bytes(image)
    code, told = finish(start(place, cluster.address, *CRASHING))
    assert (code, masks(place) == masks(healthy)) == (0, True), told
    assert leftovers(place) == []


def test_leftovers_of_a_killed_cluster_make_no_run_wait(place, undisturbed):
    """Its session folder and the file with its address stay, and nobody listens there."""
    with short_folder() as folder:
        old = folder / "ray/session_2026-01-01_00-00-00_000000_1"
        for part in ("sockets", "logs"):
            (old / part).mkdir(parents=True)
        (old / "sockets/raylet").touch()
        (folder / "ray/session_latest").symlink_to(old)
        (folder / "ray/ray_current_cluster").write_text("127.0.0.1:1")
        layer(place).mkdir()
        (layer(place) / ".00000-of-00012.parquet.0123456789abcdef.tmp").write_bytes(b"half")
        began = time.monotonic()
        code, told = finish(start(place, None, *slow(place), "--workers", "2", RAY_TMPDIR=str(folder)))
        seconds = time.monotonic() - began
    assert code == 0, told
    assert "the Ray cluster 127.0.0.1:1 of `ray start` is gone" in told
    assert masks(place) == undisturbed
    assert leftovers(place) == []
    assert seconds < 120, "it waited for the cluster that is gone"


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Paths of sockets have at most 107 bytes."""
    folder = Path("/tmp") / f"r{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
