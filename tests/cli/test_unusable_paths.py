"""Unreadable, unwritable and too long paths: one error message, exit code 2 (1 once the job runs), no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import coco_dataset

WITHOUT_CAPABILITIES = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "without_capabilities.py"))
OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
FILLED = ("--segmenter", "box_fill")


def run(folder: Path, *words: str | bytes, powerless: bool = False, **how: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SYNTHGEN")}
    done = subprocess.run(  # type: ignore[call-overload]
        [*(WITHOUT_CAPABILITIES if powerless else ()), sys.executable, "-m", "synthgen", *words],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 60, **how},
    )
    if powerless and done.returncode == 77:
        pytest.skip("this machine does not let root give up its power over file permissions")
    return done


def is_a_sentence(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    told = [line for line in done.stderr.splitlines() if not line.startswith("failed: ")]  # as shards fail
    assert len(told) == 1, done.stderr
    assert told[0].startswith("synthgen: ")
    for part in parts:
        assert part in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("closed", "words", "parts"),
    [
        ("boxes.json", ("ingest", *OWN), ("cannot read boxes.json", "permissions")),
        ("closed", ("ingest", *OWN[:3], "closed/boxes.json"), ("closed/boxes.json", "permissions")),
        ("photos", ("masks", *OWN, *FILLED), ("cannot be reached (Permission denied)", "--images photos")),
        ("closed", ("masks", *OWN[:5], "closed/photos"), ("closed/photos", "permissions")),
        ("closed", ("ingest", *OWN, "--store", "closed"), ("closed", "Permission denied")),
        ("closed", ("status", "--store", "closed"), ("cannot use closed (Permission denied)", "permissions")),
        ("closed", ("show", "a/b/c", "--store", "closed"), ("cannot read closed", "permissions")),
    ],
)
def test_what_may_not_be_read_or_written(
    tmp_path: Path, closed: str, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    (tmp_path / "closed").mkdir()
    (tmp_path / closed).chmod(0)
    try:
        # Where images cannot be read, the job runs, and fails.
        is_a_sentence(run(tmp_path, *words, powerless=True), *parts, code=1 if closed == "photos" else 2)
    finally:
        (tmp_path / closed).chmod(0o700)


def test_a_dataset_in_a_store_that_may_not_be_read_is_not_passed_over(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    assert run(tmp_path, "ingest", *OWN).returncode == 0
    hidden = tmp_path / "shards" / "boxes" / "train"
    hidden.chmod(0)
    try:
        is_a_sentence(run(tmp_path, "status", powerless=True), "shards/boxes/train", "permissions")
    finally:
        hidden.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [("status",), ("masks", *OWN), ("show", "boxes/train/annotations", "--images", "photos")],
)
def test_an_output_that_takes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    assert run(tmp_path, "ingest", *OWN).returncode == 0
    with Path("/dev/full").open("w") as full:
        done = run(tmp_path, *words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "synthgen: cannot write to standard output (No space left on device); send it elsewhere\n"


def test_a_reader_that_leaves_stops_nothing(tmp_path: Path) -> None:
    """As `synthgen status | head -1` does; the job of `masks` goes on to its end."""
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    assert run(tmp_path, "ingest", *OWN).returncode == 0
    for words in (("status",), ("masks", *OWN, *FILLED)):
        reading, writing = os.pipe()
        os.close(reading)
        done = run(tmp_path, *words, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.glob("shards/boxes/train/masks/*.parquet"))) == 1


def test_a_store_where_no_folder_can_be_made(tmp_path: Path) -> None:
    if not Path("/proc/1").is_dir():
        pytest.skip("this system has no /proc")
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    is_a_sentence(run(tmp_path, "ingest", *OWN, "--store", "/proc/1"), "cannot write /proc/1/boxes", "--store")


def test_a_file_where_the_diary_should_be(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    assert run(tmp_path, "ingest", *OWN).returncode == 0
    layer = tmp_path / "shards" / "boxes" / "train" / "masks"
    layer.mkdir()
    (layer / "_log").write_text("")
    is_a_sentence(run(tmp_path, "masks", *OWN), "masks/_log", "a file lies where a folder should be")
    assert run(tmp_path, "status", "--failures").returncode == 0


def test_paths_that_are_not_utf_8(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    odd = (tmp_path / "photos").rename(tmp_path / os.fsdecode(b"odd\xff"))
    own = (*OWN[:4], "--images", str(odd), *FILLED)
    assert run(tmp_path, "masks", *own).returncode == 0
    assert run(tmp_path, "show", "boxes/train/masks").returncode == 0  # the diary says where the images are
    (odd / "0001.png").unlink()
    is_a_sentence(run(tmp_path, "masks", *own, "--layer", "again"), "1 of 2 images failed", "--images", code=1)
    (line,) = (tmp_path / "shards/boxes/train/again/_log/failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert "odd\udcff" in json.loads(line)["error"]
    assert "odd" in run(tmp_path, "status", "--failures").stdout
    done = run(tmp_path, "ingest", *OWN[:4], "--store", b"st\xff")
    is_a_sentence(done, "is not in UTF-8", "choose another --store")


@pytest.mark.parametrize(
    ("number", "code", "how"),
    [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, " (SIGTERM)"), (signal.SIGHUP, 129, " (SIGHUP)")],
)
def test_an_interrupted_ingest_says_so(tmp_path: Path, number: int, code: int, how: str) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 9, "width": 9} for i in range(400_000)]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": []}))
    process = subprocess.Popen(
        [sys.executable, "-m", "synthgen", "ingest", *OWN[:4]], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not list(tmp_path.glob("shards/boxes/train/annotations/.*.tmp")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert told == f"stopped{how}; what is committed stays, and the same command continues\n"
    assert not list(tmp_path.rglob("*.tmp"))
