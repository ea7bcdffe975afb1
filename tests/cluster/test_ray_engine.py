"""The cluster's engine: the same bytes as on one machine, whoever is killed on the way.

Two nodes of a cluster run on this machine; each job is a driver process of its own, started as a user would.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import coco_dataset, ray_cluster
from PIL import Image

pytest.importorskip("ray", reason="Ray is not installed")

from ray import cluster_utils

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHARDS = 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    with ray_cluster.two_node_cluster(2) as made:
        yield made


def environment(address: str | None) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_"))}
    own |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "RAY_USAGE_STATS_ENABLED": "0"}
    return own | ({"RAY_ADDRESS": address} if address else {})


def start(
    folder: Path, address: str | None, *words: str, segmenter: str = "fakes.slow_segmenter"
) -> subprocess.Popen[str]:
    """A driver; without an address, the engine of one machine."""
    program = ["pipelines.masks"] if address else ["synthgen", "masks"]
    own = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos", "--segmenter", segmenter]
    if segmenter == "fakes.slow_segmenter":
        own += ["-O", "seconds=0.3"]
    return subprocess.Popen(
        [sys.executable, "-m", *program, *own, *words],
        cwd=folder, env=environment(address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # Whoever runs in the background passes on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip


def finish(driver: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        told = driver.communicate(timeout=180)[0]
    finally:
        driver.kill()  # one that hangs would keep its workers from the tests that follow
    return driver.returncode, told


def redden(folder: Path, number: int) -> None:
    """Give a picture the corner that the fake plugins fail on."""
    path = folder / f"photos/{number:04d}.png"
    picture = Image.open(path)
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(path)


def ingest(folder: Path, images: int = 4 * SHARDS) -> Path:
    coco_dataset.write_coco_dataset(folder, images=images)
    own = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos", "--shard-size", "4"]
    subprocess.run(
        [sys.executable, "-m", "synthgen", "ingest", *own],
        cwd=folder,
        env=environment(None),
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return ingest(tmp_path)


def masks(folder: Path, store: str = "shards") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / store / "boxes/train/masks").glob("*.parquet")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of the same job."""
    folder = ingest(tmp_path_factory.mktemp("undisturbed"))
    code, told = finish(start(folder, None))
    assert code == 0, told
    made = masks(folder)
    assert len(made) == SHARDS
    return made


def raylets_of(cluster: cluster_utils.Cluster) -> set[int]:
    return {p.process.pid for node in cluster.list_all_nodes() for p in node.all_processes.get("raylet", [])}


def workers_of(raylets: set[int]) -> list[int]:
    """Process ids of the actors that have a shard, or begin: children of these raylets."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in raylets and b"Actor" in path.joinpath("cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def wait_for(what, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def wait_for_workers(cluster: cluster_utils.Cluster, driver: subprocess.Popen[str], count: int = 1) -> None:
    assert wait_for(lambda: len(workers_of(raylets_of(cluster))) >= count or driver.poll() is not None)


def test_a_cluster_makes_the_bytes_of_one_machine(cluster, place, undisturbed):
    code, told = finish(start(place, cluster.address, "--workers", "4"))
    assert code == 0, told
    assert f"masks for 144 boxes on 48 images in {SHARDS} shards" in told
    assert masks(place) == undisturbed
    code, told = finish(start(place, cluster.address))
    assert (code, "nothing to do" in told) == (0, True)


def test_ten_kills_of_workers_and_of_drivers_change_no_byte(cluster, place, undisturbed):
    rng = random.Random(0)
    victims = ["worker", "driver"] * 5
    rng.shuffle(victims)
    driver = None
    for _ in range(50):
        if not victims:
            break
        if driver is None:
            driver = start(place, cluster.address, "--workers", "3")
        wait_for_workers(cluster, driver)
        time.sleep(rng.uniform(0, 1.5))
        found = workers_of(raylets_of(cluster))
        if driver.poll() is None and found:
            victim = victims.pop()
            if victim == "worker":  # the run goes on, until the next is killed
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(found), signal.SIGKILL)
                continue
            driver.kill()
            driver.communicate()
        else:  # it was faster
            code, told = finish(driver)
            assert code == 0 or "its worker died 3 times" in told, told
        driver = None
        assert wait_for(lambda: not workers_of(raylets_of(cluster))), "workers outlive their driver"
        made = masks(place)
        assert all(undisturbed[name] == content for name, content in made.items()), "a half or another shard"
        if len(made) == SHARDS:  # nothing is left to disturb
            for name in rng.sample(sorted(made), rng.randint(SHARDS // 2, SHARDS)):
                (place / "shards/boxes/train/masks" / name).unlink()
    assert victims == []
    if driver is not None:
        driver.kill()
        driver.communicate()

    driver = start(place, cluster.address, "--workers", "3")
    wait_for_workers(cluster, driver)
    for pid in workers_of(raylets_of(cluster))[:1]:  # and one whose driver lives on: it is replaced
        os.kill(pid, signal.SIGKILL)
    code, told = finish(driver)
    assert code == 0, told
    assert masks(place) == undisturbed


def test_a_node_that_dies_is_done_without(cluster, place, undisturbed):
    node = cluster.add_node(num_cpus=2, num_gpus=0)
    driver = start(place, cluster.address, "--workers", "6")
    wait_for_workers(cluster, driver, 4)
    cluster.remove_node(node, allow_graceful=False)
    code, told = finish(driver)
    assert code == 0, told
    assert masks(place) == undisturbed


def test_a_late_node_is_used(place, undisturbed):
    own = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False}
    )
    try:
        driver = start(place, own.address)
        time.sleep(9)
        assert driver.poll() is None, driver.communicate()[0]
        assert masks(place) == {}
        own.add_node(num_cpus=1, num_gpus=0)
        assert wait_for(lambda: masks(place))
        own.add_node(num_cpus=1, num_gpus=0)
        code, told = finish(driver)
    finally:
        own.shutdown()
    assert code == 0, told
    assert "no worker is there yet, each needs {'CPU': 1.0} of a node; waiting" in told
    assert masks(place) == undisturbed


def test_a_shard_that_kills_its_workers_fails_alone(cluster, tmp_path):
    place = ingest(tmp_path, images=16)
    redden(place, 6)
    code, told = finish(start(place, cluster.address, "--workers", "2", segmenter="fakes.crashing_segmenter"))
    assert code == 1, told
    assert re.search(r"masks/00001-of-00004: its worker died 3 times \(.+\); if the memory is too small", told)
    assert sorted(masks(place)) == [f"{i:05d}-of-00004.parquet" for i in (0, 2, 3)]
    (failure,) = (place / "shards/boxes/train/masks/_log/failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["shard"] == "boxes/train/masks/00001-of-00004"
    log = (place / "shards/boxes/train/masks/_log/run.log").read_text()
    assert log.count("a worker died over boxes/train/masks/00001-of-00004") == 3


def test_an_image_that_hangs_fails_alone(cluster, tmp_path):
    place = ingest(tmp_path, images=16)
    redden(place, 6)
    words = ["--workers", "2", "-O", "wrong=hang_in_pool", "--timeout", "2", "--max-error-share", "0.3"]
    code, told = finish(start(place, cluster.address, *words, segmenter="fakes.misbehaving_segmenter"))
    assert code == 0, told
    shard = "boxes/train/masks/00001-of-00004: fakes.misbehaving_segmenter did not answer within 2 s for"
    assert f"{shard} 0005.png and 3 more; each is run alone" in told
    assert f"{shard} 0006.png; it failed" in told
    assert "45 masks for 48 boxes on 16 images in 4 shards" in told
    assert "1 image failed" in told
    assert "Traceback" not in told
    assert wait_for(lambda: not workers_of(raylets_of(cluster))), "workers that hang outlive the run"
    assert len(masks(place)) == 4


def test_a_hang_that_keeps_pythons_lock_costs_its_shard_alone(cluster, tmp_path):
    """Its process cannot even tell: it is ended, as if it had died."""
    place = ingest(tmp_path, images=16)
    redden(place, 6)
    words = ["--workers", "2", "-O", "wrong=hang_with_lock", "--timeout", "0.5"]
    code, told = finish(start(place, cluster.address, *words, segmenter="fakes.misbehaving_segmenter"))
    assert code == 1, told
    assert "masks/00001-of-00004: its worker died 3 times" in told
    assert sorted(masks(place)) == [f"{i:05d}-of-00004.parquet" for i in (0, 2, 3)]


def test_a_worker_that_cannot_be_replaced_ends_the_job(cluster, tmp_path):
    """One worker has begun, and dies; no other can."""
    place = ingest(tmp_path, images=16)
    redden(place, 6)
    words = ["-O", f"fail_after_crash_file={place / 'crashed'}"]
    code, told = finish(start(place, cluster.address, "--workers", "1", *words, segmenter="fakes.crashing_segmenter"))
    assert code == 1, told
    assert re.search(
        r"^synthgen: the model cannot be loaded again; remove the file of the crash \(on node [\d.]+\)$", told, re.M
    ), told
    assert sorted(masks(place)) == ["00000-of-00004.parquet"]


def test_what_a_worker_logs_lies_beside_the_shards(cluster, tmp_path):
    place = ingest(tmp_path, images=16)
    redden(place, 6)
    words = ["--workers", "2", "--max-error-share", "0.3"]
    code, told = finish(start(place, cluster.address, *words, segmenter="fakes.failing_segmenter"))
    assert code == 0, told
    assert "Traceback" not in told
    (log,) = (place / "shards/boxes/train/masks/_log").glob("run-*.log")  # of the one that had something to tell
    assert "image 0006.png failed\nTraceback" in log.read_text()


def test_ctrl_c_ends_the_workers_too(cluster, place, undisturbed):
    driver = start(place, cluster.address, "--workers", "3")
    assert wait_for(lambda: masks(place) or driver.poll() is not None)
    driver.send_signal(signal.SIGINT)
    code, told = finish(driver)
    assert code == 130, told
    assert told.splitlines()[-1] == "stopped; what is committed stays, and the same command continues"
    assert "Traceback" not in told
    assert wait_for(lambda: not workers_of(raylets_of(cluster))), "workers outlive their driver"
    assert all(undisturbed[name] == content for name, content in masks(place).items())


def test_a_cluster_that_is_not_there_is_reported(place):
    code, told = finish(start(place, "127.0.0.1:1"))
    assert code == 2, told
    assert re.search(r"^synthgen: cannot join the Ray cluster 127.0.0.1:1 \(.+\); mend RAY_ADDRESS", told, re.M), told


@pytest.mark.parametrize(
    ("option", "exit_code", "sentence"),
    [
        ("fail_to_build=true", 2, r"^synthgen: the model is missing; download it \(on node [\d.]+\)$"),
        (
            "crash_in_build=true",
            1,  # the input may be right: the memory of the nodes is too small
            r"^synthgen: \d workers in a row died before they could begin \(.+, on node [\d.]+\); a node needs memory",
        ),
    ],
)
def test_a_model_that_no_node_can_make_is_reported_once(cluster, place, option, exit_code, sentence):
    code, told = finish(
        start(place, cluster.address, "--workers", "3", "-O", option, segmenter="fakes.crashing_segmenter")
    )
    assert code == exit_code, told
    assert len(re.findall(sentence, told, re.M)) == 1, told
    assert "Traceback" not in told
    assert masks(place) == {}


def unloadable(place: Path, **asked) -> list[str]:
    """The words for a job by `fakes.unloadable_segmenter`."""
    (place / "nodes.json").write_text(json.dumps({"seconds": 0.3, **asked}))
    return ["-O", f"checkpoint={place / 'nodes.json'}"]


@pytest.fixture(scope="module")
def untroubled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of the job of `fakes.unloadable_segmenter`."""
    folder = ingest(tmp_path_factory.mktemp("untroubled"))
    code, told = finish(start(folder, None, *unloadable(folder), segmenter="fakes.unloadable_segmenter"))
    assert code == 0, told
    return masks(folder)


def test_where_one_node_refuses_the_other_makes_every_shard(cluster, place, untroubled):
    words = unloadable(place, synthgen_error=[cluster.head_node.node_id])
    code, told = finish(start(place, cluster.address, "--workers", "4", *words, segmenter="fakes.unloadable_segmenter"))
    assert code == 0, told
    assert (
        len(re.findall(r"^a worker cannot begin: no driver on this node; install one \(on node [\d.]+\)$", told, re.M))
        == 1
    )
    assert masks(place) == untroubled
    assert len(untroubled) == SHARDS


def test_where_one_node_has_no_memory_the_other_makes_every_shard(cluster, place, untroubled):
    words = unloadable(place, out_of_memory=[cluster.head_node.node_id])
    code, told = finish(start(place, cluster.address, "--workers", "4", *words, segmenter="fakes.unloadable_segmenter"))
    assert code == 0, told
    assert masks(place) == untroubled
    log = (place / "shards/boxes/train/masks/_log/run.log").read_text()
    deaths = log.count("a worker died before it could begin (OutOfMemoryError: CUDA out of memory)")
    assert deaths >= 2
    assert told.count("a worker cannot begin: ") == (deaths >= 3), told
    assert "Traceback" not in told
    (own, *_) = (place / "shards/boxes/train/masks/_log").glob("run-*.log")
    assert "cannot begin\nTraceback" in own.read_text()


def test_a_mistake_on_every_node_keeps_its_traceback(cluster, place):
    words = unloadable(place, type_error=["all"])
    code, told = finish(start(place, cluster.address, "--workers", "4", *words, segmenter="fakes.unloadable_segmenter"))
    assert code == 1, told
    assert "fakes/unloadable_segmenter.py" in told
    assert told.rstrip().endswith("TypeError: expected a list, got a number")
    assert masks(place) == {}


def test_a_node_that_refused_may_leave_and_a_late_one_is_used(place, untroubled):
    own = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False}
    )
    try:
        bad = own.add_node(num_cpus=2, num_gpus=0)
        own.add_node(num_cpus=1, num_gpus=0)
        words = unloadable(place, synthgen_error=[bad.node_id], seconds=0.6)
        driver = start(place, own.address, *words, segmenter="fakes.unloadable_segmenter")
        assert wait_for(lambda: masks(place) or driver.poll() is not None)
        own.remove_node(bad)
        late = own.add_node(num_cpus=2, num_gpus=0)
        raylet = {p.process.pid for p in late.all_processes["raylet"]}
        assert wait_for(lambda: workers_of(raylet) or driver.poll() is not None)
        assert driver.poll() is None, driver.communicate()[0]
        code, told = finish(driver)
    finally:
        own.shutdown()
    assert code == 0, told
    assert told.count("a worker cannot begin: no driver on this node") == 1
    assert masks(place) == untroubled


def test_ray_job_submit_end_to_end(cluster, place):
    """The command of the README, against the cluster's head."""
    (place / "shards").rename(place / "alone")
    code, told = finish(start(place, None, "--store", "alone", segmenter="box_fill"))
    assert code == 0, told
    shutil.copytree(place / "alone/boxes/train/annotations", place / "shards/boxes/train/annotations")
    environment_file = place / "runtime_env.yaml"
    environment_file.write_text((ROOT / "pipelines/runtime_env.yaml").read_text().replace("/mnt/synthgen", str(place)))
    own = ["--dataset", "coco-json", "--annotations", str(place / "boxes.json"), "--images", str(place / "photos")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."),
            *("--address", f"http://{cluster.webui_url}", "--runtime-env", str(environment_file), "--"),
            *(sys.executable, "-m", "pipelines.masks", *own, "--segmenter", "box_fill"),
        ],
        cwd=ROOT, env=environment(None), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert f"in {SHARDS} shards" in done.stdout
    assert masks(place) == masks(place, "alone")
