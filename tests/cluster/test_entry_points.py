"""`--engine ray` and the entry points in `pipelines/`: the same commands and bytes as `--engine local`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import coco_dataset

ROOT = Path(__file__).parents[2]
OWN = ["--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos"]
COMMANDS = ("masks", "captions", "train")


def start(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_"))}
    own |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=own, text=True, capture_output=True, timeout=300
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_an_entry_point_is_the_command_with_another_default(tmp_path, command):
    told = []
    for words in (("synthgen", command, "--engine", "ray"), (f"pipelines.{command}",)):
        done = start(tmp_path, *words, "--help")
        assert done.returncode == 0, done.stderr
        told.append(" ".join(done.stdout.split()))
    usage = f"Usage: python -m pipelines.{command} [OPTIONS]"
    assert told[1].startswith(usage)
    assert told[1].count("[default: ray]") == 1
    ours = told[1].removeprefix(usage).replace("[default: ray]", "[default: local]")
    assert told[0].endswith(ours)
    assert "With --engine ray: --workers" in ours


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_offers_options_of_ray_only_where_ray_is_used(synthgen, command):
    assert "--workers" not in synthgen(command, "--help")[1]
    assert "--workers" in synthgen(command, "--engine", "ray", "--help")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_engine_is_one_of_two(synthgen, command):
    needed = ["--manifest", "m.yaml"] if command == "train" else OWN
    code, told = synthgen(command, *needed, "--engine", "dask")
    assert code == 2
    assert "'dask' is not one of 'local', 'ray'" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_without_ray_nothing_is_begun(synthgen, monkeypatch, tmp_path, command):
    for name in [name for name in sys.modules if name.startswith("synthgen.cluster.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("ray", "ray.train", "ray.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    coco_dataset.write_coco_dataset(tmp_path, images=4)
    needed = ["--manifest", "m.yaml"] if command == "train" else OWN
    code, told = synthgen(command, *needed, "--engine", "ray")
    assert code == 2
    assert told.strip().endswith("needs the package ray; install it: pip install 'synthgen-masks[ray]'")
    assert not (tmp_path / "shards").exists()
    assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--engine", "local")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["masks", "captions"])
def test_engine_ray_writes_the_bytes_of_engine_local(tmp_path, command):
    """A cluster of this machine alone, which the command starts; the entry point finds that nothing is left to do."""
    pytest.importorskip("ray")
    coco_dataset.write_coco_dataset(tmp_path, images=12)
    done = start(tmp_path, "synthgen", "ingest", *OWN, "--shard-size", "4")
    assert done.returncode == 0, done.stderr
    layer, made = tmp_path / "shards/boxes/train" / command, []
    for engine in ("local", "ray"):
        more = ["--workers", "2"] if engine == "ray" else []
        shutil.rmtree(layer, ignore_errors=True)
        done = start(tmp_path, "synthgen", command, *OWN, "--engine", engine, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "on 12 images in 3 shards" in done.stdout
        made.append({path.name: path.read_bytes() for path in layer.glob("*.parquet")})
    here, there = made
    assert len(here) == 3
    assert here == there
    done = start(tmp_path, f"pipelines.{command}", *OWN)
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("flag", ["--workers", "--gpus-per-worker"])
def test_a_training_without_ray_refuses_the_options_of_a_cluster(synthgen, flag):
    code, told = synthgen("train", "--manifest", "m.yaml", flag, "1")
    assert code == 2
    assert f"{flag} needs Ray; add `--engine ray`, or without it start as many processes as there are GPUs" in told


def test_a_training_gets_what_was_typed(synthgen, monkeypatch):
    """`test_trainer` has the rest."""
    trainer = pytest.importorskip("synthgen.cluster.trainer")
    given = []

    def called(manifest, **options):
        given.append((manifest, options))
        return SimpleNamespace(is_rank0=True, format_lines=lambda: ["2 steps learned"])

    monkeypatch.setattr(trainer, "train_on_cluster", called)
    words = (
        "--manifest",
        "m.yaml",
        "--workers",
        "3",
        "--gpus-per-worker",
        "0",
        "--loader-workers",
        "1",
        "--out",
        "run",
    )
    code, told = synthgen("train", *words, "--engine", "ray")
    assert (code, told) == (0, "2 steps learned\n")
    ((manifest, options),) = given
    assert manifest == Path("m.yaml")
    del options["progress"]
    assert options == {
        "out": Path("run"), "store": None, "device": "auto", "loader_workers": 1, "workers": 3, "gpus_per_worker": 0.0,
    }  # fmt: skip


@pytest.mark.slow
def test_sigterm_ends_a_driver_as_any_command(tmp_path):
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    began = tmp_path / "began"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/waiting.py").write_text(
        "import pathlib, time\nfrom synthgen.generate.segmenters import box_fill\n"
        f"def build(*, seconds: float = 60.0):\n    pathlib.Path({str(began)!r}).touch()\n"
        "    time.sleep(seconds)\n    return box_fill.build()\n"
    )
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SYNTHGEN_", "RAY_"))}
    own |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "synthgen", "masks", *OWN, "--segmenter", "theirs.waiting", "--engine", "ray"],
        cwd=tmp_path, env=own, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as driver:  # fmt: skip
        end = time.monotonic() + 120
        while not began.exists():
            assert driver.poll() is None, driver.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.1)
        driver.send_signal(signal.SIGTERM)
        _, told = driver.communicate(timeout=60)
    assert driver.returncode == 143, told
    assert "stopped (SIGTERM); what is committed stays" in told and "Traceback" not in told
