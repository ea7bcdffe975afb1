"""Training on a cluster: whoever is killed on the way, the checkpoint is that of a run undisturbed, bit for bit.

Two nodes of a cluster run on this machine; each training is a driver process of its own, started as a user would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import ray_cluster, train_layers

cluster_utils = pytest.importorskip("ray.cluster_utils")
trainer = pytest.importorskip("synthgen.cluster.trainer")  # Ray without its extra "train" has no ray.train

from synthgen.errors import SynthgenError  # noqa: E402
from synthgen.training import run_dir  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = 40
TEXT = f"""
name: toy
store: store
mixture:
  - {{shards: toy/train/human, task: instance, images: photos}}
augment: {{size: 32, scale: [0.5, 1.5]}}
model: {{backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1, learnable_queries: 3,
  conditional_queries: 4}}
schedule: {{batch_size: 4, mask_points: 16, lr: 1.0e-3, warmup_steps: 0, steps: {STEPS}, checkpoint_every: 4}}
dataloader: {{num_workers: 1}}
"""


def written(root: Path) -> Path:
    """A manifest beside its layer, of 12 rows."""
    train_layers.commit(root, 12, shards=2)
    path = root / "m.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    with ray_cluster.two_node_cluster(1) as made:
        yield made


def environment() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_"))}
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return own | {"PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def start(place: Path, cluster: cluster_utils.Cluster, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.train", "--manifest", "m.yaml", *words],
        cwd=place, env=environment() | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # Whoever runs in the background passes on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip


def finish(driver: subprocess.Popen[str]) -> tuple[int, str]:
    told = driver.communicate(timeout=400)[0]
    return driver.returncode, told


def wait_for(what: Callable[[], object], seconds: float = 300.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def training_processes() -> list[int]:
    """Process ids of the workers of Ray Train that are ours: those that were started by this test's cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if path.joinpath("cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                parent = path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]
                grandparent = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1]
                if int(grandparent) == os.getpid():
                    found.append(int(path.name))
    return found


def log(run: Path) -> list[dict[str, float]]:
    """Its lines without what clocks say."""
    clocks = ("images_per_s", "data_share", "memory_mib")
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def same(run: Path, other: Path) -> None:
    assert run_dir.latest_checkpoint(run).read_bytes() == run_dir.latest_checkpoint(other).read_bytes()
    assert log(run) == log(other)
    assert len(log(run)) == STEPS
    assert (run / "seen.txt").read_text() == (other / "seen.txt").read_text()


@pytest.fixture(scope="module")
def undisturbed(cluster: cluster_utils.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("undisturbed")
    written(place)
    code, told = finish(start(place, cluster, "--workers", "2", "--out", "run"))
    assert code == 0, told
    assert told.count(f"{STEPS} steps learned; the network is {place}/run/step-{STEPS:08}.pt") == 1
    assert f"toy/train/human instance 100.00 %{4 * STEPS:>12}" in told, "what both workers saw"
    about = json.loads((place / "run/run.json").read_text())
    assert [one["processes"] for one in about["starts"]] == [2], told
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []
    return place / "run"


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(cluster, tmp_path, undisturbed):
    written(tmp_path)
    run = tmp_path / "run"
    driver = start(tmp_path, cluster, "--workers", "2", "--out", "run")
    assert wait_for(lambda: run_dir.latest_checkpoint(run) or driver.poll() is not None)
    first = training_processes()
    assert len(first) == 2, driver.poll() is not None and driver.communicate()[0]
    os.kill(first[1], signal.SIGKILL)
    code, told = finish(driver)
    assert code == 0, told
    assert told.count("a worker died (") == 1
    assert "; the training goes on from " in told
    assert "Traceback" not in told
    same(run, undisturbed)
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(cluster, tmp_path, undisturbed):
    written(tmp_path)
    run = tmp_path / "run"
    driver = start(tmp_path, cluster, "--workers", "2", "--out", "run")
    assert wait_for(lambda: run_dir.latest_checkpoint(run) or driver.poll() is not None)
    driver.send_signal(signal.SIGINT)
    code, told = finish(driver)
    assert code == 130, told
    assert told.strip() == "stopped; what is committed stays, and the same command continues"
    assert wait_for(lambda: not training_processes(), 60)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(log(run)) < STEPS
    code, told = finish(start(tmp_path, cluster, "--workers", "2", "--out", "run"))
    assert code == 0, told
    same(run, undisturbed)


@pytest.mark.slow
def test_a_workers_mistake_is_one_sentence(cluster, tmp_path):
    path = written(tmp_path)
    path.write_text(TEXT.replace("toy/train/human", "toy/train/humans"))
    code, told = finish(start(tmp_path, cluster, "--workers", "2"))
    assert code == 2, told
    assert "no layer toy/train/humans in" in told
    assert told.count("humans") <= 3 and "Traceback" not in told and "died" not in told
    assert not (tmp_path / "runs/toy").exists()


@pytest.mark.slow
def test_ray_job_submit_of_a_folder_with_its_manifest(cluster, tmp_path):
    """Manifest and shards go along; the run may not lie with them, as Ray deletes the folder."""
    place = tmp_path / "project"
    place.mkdir()
    written(place).write_text(TEXT.replace(f"steps: {STEPS}", "steps: 2"))
    for out, code in (("runs/toy", 2), (str(tmp_path / "run"), 0)):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."),
                *("--address", f"http://{cluster.webui_url}", "--"),
                *(sys.executable, "-m", "pipelines.train", "--manifest", "m.yaml", "--out", out, "--workers", "2"),
            ],
            cwd=place, env=environment(), capture_output=True, text=True, timeout=400,
        )  # fmt: skip
        said = done.stdout + done.stderr
        if code:
            assert "lies in the job's working directory, which Ray deletes; give a folder that all nodes" in said, said
        else:
            assert done.returncode == 0, said
            assert f"2 steps learned; the network is {out}/step-00000002.pt" in said


# --- without a cluster ------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of three CPUs that is not there."""
    monkeypatch.setattr(trainer.connection, "connect", lambda **_: None)
    monkeypatch.setattr(trainer, "worker_slots_by_node", lambda need: {"a": 1, "b": 2} if len(need) == 1 else {})
    monkeypatch.setattr(trainer.ray, "cluster_resources", lambda: {"CPU": 3.0})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "cuda:1"}, "--device cuda:1 is for Ray to choose on a cluster; say cuda, cpu or auto"),
        ({"gpus_per_worker": 0.5}, r"--gpus-per-worker 0\.5 should be 0 or 1"),
        ({"gpus_per_worker": 1, "device": "cpu"}, "--device cpu and --gpus-per-worker 1 contradict each other"),
        ({"device": "cuda"}, "--device cuda and --gpus-per-worker 0 contradict each other"),
        (
            {"out": Path("/x/runtime_resources/working_dir_files/_ray_pkg_0/runs/toy")},
            "the run's folder .* which Ray deletes; give a folder that all nodes share, by --out",
        ),
    ],
)
def test_options_that_cannot_be(tmp_path, elsewhere, options, sentence):
    with pytest.raises(SynthgenError, match=sentence):
        trainer.train_on_cluster(written(tmp_path), **options)


def test_a_mistaken_manifest_needs_no_cluster(tmp_path):
    path = written(tmp_path)
    path.write_text(TEXT.replace("task: instance", "task: instances"))
    with pytest.raises(SynthgenError, match="no task named 'instances'"):
        trainer.train_on_cluster(path)


@pytest.mark.parametrize(
    ("asked", "more", "workers"), [(None, "", 2), (1, "", 1), (7, "", 7), (None, ", accumulation_steps: 4", 1)]
)
def test_how_many_workers(tmp_path, elsewhere, monkeypatch, caplog, asked, more, workers):
    """Of three CPUs two: a step's four images cannot be dealt to three."""
    path = written(tmp_path)
    path.write_text(TEXT.replace("batch_size: 4", f"batch_size: 4{more}"))
    started = []
    monkeypatch.setattr(trainer, "_run_workers", lambda *given: started.append(given[:3]))
    trainer.train_on_cluster(path, out=tmp_path / "run", workers=asked)
    ((config, count, resources),) = started
    assert count == workers and resources == {"CPU": 1.0}
    assert config["store"] == tmp_path / "store"
    assert ("there is room for 3; waiting for nodes" in caplog.text) == (workers == 7)


class Died(Exception):
    """As Ray tells it."""

    def __init__(self, **failures: BaseException) -> None:
        super().__init__("a worker failed:\nTraceback ...")
        self.worker_failures = failures


def deadly(monkeypatch: pytest.MonkeyPatch, run: Path, *outcomes: BaseException | str) -> list[int]:
    """Starts that die, or reach a checkpoint and die; or come to an end."""
    left, starts = list(outcomes), [0]

    def start(config, count, resources, bar):
        starts[0] += 1
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome == "done":
            return outcome
        run.mkdir(exist_ok=True)
        (run / outcome).write_text("")
        raise Died(one=trainer.RayError("it ran out of memory\nand died"))

    monkeypatch.setattr(trainer, "TrainingFailedError", Died)
    monkeypatch.setattr(trainer, "_run_workers", start)
    return starts


def test_deaths_in_a_row_end_a_training(tmp_path, elsewhere, monkeypatch, caplog):
    path, run = written(tmp_path), tmp_path / "run"
    death = Died(one=RuntimeError("lost the other"), two=trainer.RayError("it ran out of memory\nand died"))
    starts = deadly(monkeypatch, run, death, death, "step-00000004.pt", death, death, "done")
    with pytest.raises(SynthgenError, match=r"3 times in a row a worker died before the next .* \(RayError: it"):
        trainer.train_on_cluster(path, out=run)
    assert starts == [5]
    assert "begins anew, as there is no checkpoint yet" in caplog.text
    assert f"goes on from {run}/step-00000004.pt" in caplog.text
    starts = deadly(monkeypatch, run, *[f"step-{n:08}.pt" for n in range(5, 15)], death, death, "done")
    with pytest.raises(SynthgenError, match="3 times in a row"):
        trainer.train_on_cluster(path, out=run)
    assert starts == [12], "each of ten deaths came after a new checkpoint, the last of which was one of three"


def test_our_own_mistake_keeps_its_traceback(tmp_path, elsewhere, monkeypatch):
    path = written(tmp_path)
    mistake = Died(one=TypeError("one and one are not fish"))
    deadly(monkeypatch, tmp_path / "run", mistake, mistake, mistake)
    with pytest.raises(Died):
        trainer.train_on_cluster(path, out=tmp_path / "run")


@pytest.mark.parametrize("flag", ["--out", "--store", "--manifest"])
def test_a_node_says_what_it_does_not_see(tmp_path, monkeypatch, flag):
    told = []

    class Mailbox:
        class put:
            @staticmethod
            def remote(*message):
                told.append(message)

    monkeypatch.setattr(trainer.ray, "get", lambda call: call)
    monkeypatch.setattr(trainer.ray.train, "get_context", type("C", (), {"get_world_rank": lambda _: 1}))
    places = {"--out": tmp_path, "--store": tmp_path, "--manifest": written(tmp_path)} | {flag: tmp_path / "elsewhere"}
    config = {
        "path": places["--manifest"], "store": places["--store"], "shared": str(places["--out"]),
        "out": tmp_path / "elsewhere", "mailbox": Mailbox, "gpus": 0.0, "loader_workers": None,
    }  # fmt: skip
    with pytest.raises(
        SynthgenError, match=f"does not see {tmp_path / 'elsewhere'}; all nodes must reach the same {flag}"
    ):
        trainer._train_on_worker(config)
    ((kind, why),) = told
    assert kind == "error" and str(why).startswith("node ")
