"""Jobs killed at any moment: no partial files, nothing lost or doubled, the same bytes in the end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes import coco_dataset, crash_injection, foreign_masks

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
IMAGES = 48
SYNTHGEN = (sys.executable, "-m", "synthgen")


def command(folder: Path, store: Path, *more: str, seconds: float = 0.02) -> list[str]:
    return [
        *(sys.executable, "-m", "synthgen", "masks", "--dataset", "coco-json", "--name", "world"),
        *("--annotations", str(folder / "boxes.json"), "--images", str(folder / "photos"), "--store", str(store)),
        *("--segmenter", "fakes.slow_segmenter", "-O", f"seconds={seconds}", *more),
    ]


def layer_bytes(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.parquet"))}


@pytest.mark.slow
def test_two_competing_runs_killed_ten_times(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=IMAGES)
    calm = tmp_path / "calm"
    started = time.monotonic()
    subprocess.run(command(tmp_path, calm), env=ENVIRONMENT, check=True, capture_output=True)
    took = time.monotonic() - started
    reference = layer_bytes(calm)
    assert len(reference) == 6  # 48 images, 16 a shard, two layers

    rng = random.Random(1)
    store = tmp_path / "store"
    killed = 0
    for _ in range(10):
        both = [
            subprocess.Popen(
                command(tmp_path, store), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for _ in range(2)
        ]
        time.sleep(rng.uniform(0.2, 1.0) * took)  # two at once take longer than one
        for process in rng.sample(both, 2):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            time.sleep(rng.uniform(0, 0.1))
        for process in both:
            _, told = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), told.decode()
        for name, content in layer_bytes(store).items():
            assert content == reference[name], f"{name} is not what an undisturbed run writes"
        if len(layer_bytes(store)) == len(reference):  # nothing left to disturb: begin again
            shutil.rmtree(store)
    assert killed >= 5, "the test killed too few runs to mean anything"

    subprocess.run(command(tmp_path, store), env=ENVIRONMENT, check=True, capture_output=True)
    assert layer_bytes(store) == reference
    assert not [path for path in store.rglob("*") if path.suffix == ".tmp"], "temporary files of killed runs remain"
    ids = [
        annotation["id"]
        for path in sorted(store.glob("world/train/masks/*.parquet"))
        for row in pq.read_table(path, columns=["annotations"]).column("annotations").to_pylist()
        for annotation in row
    ]
    assert sorted(ids) == [a["id"] for a in json.loads((tmp_path / "boxes.json").read_text())["annotations"]]


@pytest.mark.slow
def test_a_run_killed_at_each_change_of_the_store_is_whole_after_the_next(tmp_path: Path) -> None:
    """Nothing half under a final name, and after one more run the same files as if nothing had happened, no others."""
    coco_dataset.write_coco_dataset(tmp_path, images=24)
    calm, store = tmp_path / "calm", tmp_path / "store"
    subprocess.run(command(tmp_path, calm, seconds=0), env=ENVIRONMENT, check=True, capture_output=True)
    arguments = command(tmp_path, store, seconds=0)[3:]  # without python -m synthgen
    told = subprocess.run(
        [sys.executable, crash_injection.__file__, str(store), str(calm), *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    *rounds, last = told.stdout.splitlines()
    assert told.returncode == 0, told.stdout + told.stderr
    assert last == f"undisturbed with code 0 after {len(rounds)} kills"
    renamed = [line for line in rounds if " os.rename " in line]
    for what in ("/annotations/.0000", "/annotations/_log/.images.json", "/masks/.0000", "/masks/_log/.status.json"):
        assert any(what in line for line in renamed), f"no run was killed as it put {what} in place"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--dataset boxes", "--into boxes/train/old"])
def test_an_import_killed_at_each_change_of_the_store_is_whole_after_the_next(tmp_path: Path, how: str) -> None:
    world = foreign_masks.write_world(tmp_path, images=6)
    file, start = tmp_path / "masks.json", tmp_path / "shards"
    file.write_text(json.dumps(foreign_masks.with_masks(world)))
    subprocess.run(
        [*SYNTHGEN, "import-masks", str(file), "--dataset", "boxes", "--layer", "old", "--store", str(start)],
        env=ENVIRONMENT, check=True, capture_output=True,
    )  # fmt: skip
    for one in world["annotations"]:
        one["bbox"] = [*one["bbox"][:2], one["bbox"][2] - 2, one["bbox"][3] - 1]
    file.write_text(json.dumps(foreign_masks.with_masks(world)))
    calm, store = tmp_path / "calm", tmp_path / "store"
    words = ["import-masks", str(file), *how.split(), "--store"]
    shutil.copytree(start, calm)
    subprocess.run([*SYNTHGEN, *words, str(calm)], env=ENVIRONMENT, check=True, capture_output=True)
    told = subprocess.run(
        [sys.executable, crash_injection.__file__, str(store), str(calm), *words, str(store)],
        env={**ENVIRONMENT, "CRASH_INJECTION_START": str(start)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    *rounds, last = told.stdout.splitlines()
    assert told.returncode == 0, told.stdout + told.stderr
    assert last == f"undisturbed with code 0 after {len(rounds)} kills"
    renamed = [line for line in rounds if " os.rename " in line and f"{layer_of(how)}/.0000" in line]
    assert len(renamed) == 2, "no run was killed as it put a shard in place"


def layer_of(how: str) -> str:
    """The layer that an import writes."""
    return "/old" if "--into" in how else "/imported"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_says_so_and_goes_on(tmp_path: Path, number: int, code: int) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=IMAGES)
    store = tmp_path / "store"
    process = subprocess.Popen(
        command(tmp_path, store), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = store / "world/train/masks/00000-of-00003.parquet"
    end = time.monotonic() + 60
    while not first.exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert not list(store.rglob("*.tmp"))
    assert "the same command continues" in told
    assert "Traceback" not in told
    assert first.exists()
    again = subprocess.run(command(tmp_path, store), env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(list(store.glob("world/train/masks/*.parquet"))) == 3


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_the_store_stays_whole(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        coco_dataset.write_coco_dataset(tmp_path, images=160, objects=12)
        ran = subprocess.run(command(tmp_path, small, seconds=0), env=ENVIRONMENT, capture_output=True, text=True)
        assert ran.returncode == 1, ran.stderr
        assert "no space left" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert not list(small.rglob("*.tmp"))
        whole = list(small.rglob("*.parquet"))
        for path in whole:
            pq.read_table(path)
        # With room, the same command goes on from there.
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        again = subprocess.run(command(tmp_path, small, seconds=0), env=ENVIRONMENT, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert len(list(small.glob("world/train/masks/*.parquet"))) == 10
    finally:
        subprocess.run(["umount", str(small)], check=True)
