"""Exit codes: 0 done, 1 the job ran and something failed or was unusable, 2 wrong input and nothing was started."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import coco_dataset

from synthgen.generate import worker
from synthgen.storage.shard_store import ShardStore

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
FILLED = ("--segmenter", "box_fill")
TESTS = Path(__file__).parents[1]


def write_boxes(folder: Path, boxes: list[tuple[list[float], int]]) -> None:
    """One image with boxes (bbox, iscrowd)."""
    coco_dataset.write_coco_dataset(folder, images=1, objects=1)
    content = json.loads((folder / "boxes.json").read_text())
    content["annotations"] = [
        {**content["annotations"][0], "id": i, "bbox": bbox, "iscrowd": crowd} for i, (bbox, crowd) in enumerate(boxes)
    ]
    (folder / "boxes.json").write_text(json.dumps(content))


GOOD, EMPTY, OUTSIDE = [8.0, 8.0, 30.0, 30.0], [8.0, 8.0, 0.0, 5.0], [500.0, 500.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("boxes", "code"),
    [
        ([], 1),
        ([(EMPTY, 0), (OUTSIDE, 0)], 1),
        ([(GOOD, 1)], 1),
        ([(EMPTY, 1), (OUTSIDE, 1)], 1),
        ([(EMPTY, 1), (GOOD, 0)], 0),  # as many flags as boxes, and one box without any
        ([(EMPTY, 0), (GOOD, 0)], 0),
        ([(GOOD, 0)], 0),
    ],
)
@pytest.mark.parametrize("command", [("ingest",), ("masks", *FILLED), ("captions",), ("doctor",)])
def test_a_dataset_without_a_usable_box(synthgen, tmp_path, command, boxes, code) -> None:
    write_boxes(tmp_path, boxes)
    for _ in range(2):  # also where every shard is there
        found, told = synthgen(command[0], *OWN, *command[1:])
        assert found == code, told
        said = {"ingest": "no box can be used", "doctor": "not ready: no box can be used"}.get(
            command[0], "no box got a "
        )
        assert (said in told) == bool(code)


def test_a_part_without_boxes_has_not_failed(synthgen, tmp_path) -> None:
    """One shard of several may have none."""
    coco_dataset.write_coco_dataset(tmp_path, images=20)
    content = json.loads((tmp_path / "boxes.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] > 10]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    assert synthgen("ingest", *OWN, "--shard-size", "5")[0] == 0
    for part in range(4):
        assert synthgen("masks", *OWN, *FILLED, "--part", f"{part}/4")[0] == 0


@pytest.mark.parametrize("words", [("--part", "3/3"), ("--workers", "2"), ("--gpus-per-worker", "1")])
def test_wrong_input_starts_nothing(synthgen, tmp_path, words) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    assert synthgen("masks", *OWN, *words)[0] == 2
    assert not (tmp_path / "shards").exists()


def fail_with(why: BaseException) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise why

    return fail


@pytest.mark.parametrize("command", ["ingest", "masks"])
def test_a_disk_that_fills_up_is_no_wrong_input(synthgen, tmp_path, monkeypatch, command) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=4)
    if command == "masks":
        assert synthgen("ingest", *OWN)[0] == 0
    monkeypatch.setattr("pyarrow.parquet.write_table", fail_with(OSError(errno.ENOSPC, "No space left on device")))
    code, told = synthgen(command, *OWN)
    assert code == 1
    assert told.count("synthgen: no space left to write ") == 1
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        (MemoryError(), "the memory is used up"),
        (RuntimeError("can't start new thread"), "starts no more threads"),
        (OSError(errno.EMFILE, "Too many open files", "x.png"), "too many files are open"),
        (OSError(errno.ENFILE, "Too many open files in system", "x.png"), "too many files are open"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is used up"),
    ],
)
def test_a_machine_at_its_limits_is_one_sentence(synthgen, tmp_path, monkeypatch, why, sentence) -> None:
    """Where it hits the command itself, and where it hits a shard."""
    coco_dataset.write_coco_dataset(tmp_path, images=4)
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.ingest.layer_source.split_into_shards", fail_with(why))
        code, told = synthgen("ingest", *OWN)
        assert (code, len(told.splitlines())) == (1, 1), told
        assert told.startswith("synthgen: ") and sentence in told
    with monkeypatch.context() as patch:
        patch.setattr(worker.Worker, "_process_samples", fail_with(why))
        code, told = synthgen("masks", *OWN, *FILLED)
        assert code == 1 and "failed: boxes/train/masks/00000-of-00001: " in told and sentence in told
        assert "Traceback" not in told
    assert synthgen("masks", *OWN, *FILLED)[0] == 0


def test_too_many_open_files_are_not_the_fault_of_an_image(synthgen, tmp_path, monkeypatch) -> None:
    """Its row would hold an error, and training would lose it."""
    coco_dataset.write_coco_dataset(tmp_path, images=40)
    assert synthgen("ingest", *OWN)[0] == 0
    from PIL import Image

    real, calls = Image.open, []

    def sometimes(path: Path, **how: object) -> object:
        calls.append(path)
        if Path(path).name == "0007.png":
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return real(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", sometimes)
        code, told = synthgen("masks", *OWN, *FILLED)
    assert calls and code == 1 and "too many files are open" in told
    assert synthgen("masks", *OWN, *FILLED)[0] == 0
    store = ShardStore(tmp_path / "shards")
    rows = [row for shard in store.list_shards("boxes", "train", "masks") for row in store.read_samples(shard)]
    assert [row.error for row in rows] == [None] * 40


# --- limits of the operating system ----------------------------------------------------------------------------------


def run_limited(folder: Path, words: tuple[str, ...], limit: int, value: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "synthgen", *words], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
    )  # fmt: skip


def is_one_sentence(done: subprocess.CompletedProcess[str], start: str) -> None:
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"synthgen: {start}"), done.stderr


def test_few_open_files(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    is_one_sentence(run_limited(tmp_path, ("ingest", *OWN), resource.RLIMIT_NOFILE, 5), "too many files are open; ")
    done = run_limited(tmp_path, ("ingest", *OWN), resource.RLIMIT_NOFILE, 64)
    assert done.returncode == 0, done.stderr


#: Limits its memory when everything is imported, as libraries that cannot be loaded abort.
LITTLE_MEMORY = """
import re, resource, sys
import numpy as np
from synthgen.cli.main import main
from synthgen.generate import input_layer

def ingest_spec(*args, **kwargs):
    used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    held = [np.ones(2**20) for _ in range(1_000)]

input_layer.ingest_spec = ingest_spec
sys.argv = ["synthgen", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")
def test_little_memory(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, "ingest", *OWN], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    is_one_sentence(done, "the memory is used up; ")


# --- a store that vanishes -------------------------------------------------------------------------------------------


def test_a_store_that_vanishes_during_a_run(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=48)
    share = tmp_path / "share"
    words = ("masks", *OWN, "--store", "share/shards", "--segmenter", "fakes.slow_segmenter", "-O", "seconds=0.05")
    with subprocess.Popen(
        [sys.executable, "-m", "synthgen", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    ) as job:  # fmt: skip
        end = time.monotonic() + 60
        while not (share / "shards/boxes/train/masks/00000-of-00003.parquet").exists():
            assert job.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        share.rename(tmp_path / "unmounted")
        share.mkdir()  # the mount point
        _, told = job.communicate(timeout=60)
    (sentence,) = [line for line in told.splitlines() if not line.startswith("failed: ")]
    assert job.returncode == 1, told
    assert sentence.startswith("synthgen: share/shards/boxes/train/masks") and "has gone during the run" in sentence
    assert "mount it again, and run the same command again" in sentence
    assert list(share.iterdir()) == [], "nothing is written below the mount point"


def test_threads_are_not_needed_for_the_sentence(synthgen, tmp_path, monkeypatch) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    for name in ("_start_new_thread", "_start_joinable_thread"):
        if hasattr(threading, name):
            monkeypatch.setattr(threading, name, fail_with(RuntimeError("can't start new thread")))
    code, told = synthgen("ingest", *OWN)
    assert (code, told.count("starts no more threads")) == (1, 1)
