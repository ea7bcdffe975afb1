"""An annotation file that changes: masks of new and changed images only, whatever kills the commands on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset

from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore
from synthgen.storage.update_record import RECORD_NAME, describe_unfinished

IMAGES = 300
DROPPED, CHANGED, ADDED = range(4, 300, 30), range(8, 300, 30), range(301, 311)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}

#: Runs the command line, and kills it just before its rename number `sys.argv[1]` below the folder `sys.argv[2]`.
KILLED = """
import os, signal, sys
count, folder = int(sys.argv[1]), sys.argv[2]
def hook(event, args):
    global count
    if event == "os.rename" and str(args[0]).startswith(folder):
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.argv[1:] = sys.argv[3:]
from synthgen.cli.main import main
main()
"""


def words(folder: Path, store: Path, command: str = "masks") -> list[str]:
    place = ("--dataset", "coco-json", "--name", "world", "--annotations", str(folder / "boxes.json"))
    segmenter = ("--segmenter", "box_fill") if command == "masks" else ()
    return [command, *place, "--images", str(folder / "photos"), "--store", str(store), *segmenter]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "synthgen", *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_killed(count: int, store: Path, *arguments: str) -> None:
    program = [sys.executable, "-c", KILLED, str(count), str(store), *arguments]
    done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def change_boxes(path: Path) -> None:
    """Ten images less, ten with a moved box, ten that are new."""
    content: dict[str, Any] = json.loads(path.read_text())
    content["images"] = [image for image in content["images"] if image["id"] not in DROPPED]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] not in DROPPED]
    for one in content["annotations"]:
        if one["image_id"] in CHANGED and one["id"] % 3 == 0:
            one["bbox"][2] -= 3
    for number in ADDED:
        content["images"].append({"id": number, "file_name": f"{number - 300:04d}.png", "width": 96, "height": 72})
        box = {"id": 10_000 + number, "image_id": number, "category_id": 1, "bbox": [3, 4, 30, 30]}
        content["annotations"].append({**box, "area": 900, "iscrowd": 0})
    path.write_text(json.dumps(content))


def files(store: Path) -> dict[str, bytes]:
    found = [*store.rglob("*.parquet"), *store.rglob(RECORD_NAME)]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def rows(store: Path, layer: str) -> dict[int, Sample]:
    shards = ShardStore(store)
    return {s.image_id: s for one in shards.list_shards("world", "train", layer) for s in shards.read_samples(one)}


@pytest.mark.slow
def test_thirty_changes_in_three_hundred_images_killed_five_times(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=IMAGES)
    store, calm = tmp_path / "store", tmp_path / "calm"
    run(*words(tmp_path, store))
    before, old = files(store), {layer: rows(store, layer) for layer in ("annotations", "masks")}
    assert len(before) == 2 * 19
    shutil.copytree(store, calm)
    change_boxes(tmp_path / "boxes.json")

    update = (*words(tmp_path, store), "--update")
    planned = run(*update, "--dry-run")
    assert "10 images added, 10 changed, 10 removed, 280 unchanged" in planned
    assert "20 images to process" in planned
    assert files(store) == before

    told = run(*words(tmp_path, calm), "--update")
    assert "10 images added, 10 changed, 10 removed, 280 unchanged" in told
    processed = [
        json.loads(line) for line in (calm / "world/train/masks/_log/metrics.jsonl").read_text().splitlines()[19:]
    ]
    assert sum(one["images"] - one["kept"] for one in processed) == 20

    folder = store / "world/train/annotations"
    for count in (0, 4, 6):  # before the record, and twice between shards of the boxes
        run_killed(count, store, *update)
        assert (describe_unfinished(folder) is not None) == (count > 0)
    refused = subprocess.run(
        [sys.executable, "-m", "synthgen", "verify", "world/train/annotations", "--store", str(store)],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 1 and "has not finished" in refused.stdout
    run(*words(tmp_path, store, "ingest"), "--update")
    for count in (3, 5):  # between shards of the masks, whose run log is renamed, too
        run_killed(count, store, *update)
    again = subprocess.run(
        [sys.executable, "-m", "synthgen", *words(tmp_path, store)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert again.returncode == 2 and "add --update to make them again" in again.stderr
    run(*update)

    after = files(store)
    assert after == files(calm)
    assert not list(store.rglob("*.tmp"))
    gone, new, changed = set(DROPPED), set(ADDED), set(CHANGED)
    for layer in ("annotations", "masks"):
        now = rows(store, layer)
        assert now.keys() == old[layer].keys() - gone | new
        assert all(now[number] == old[layer][number] for number in now.keys() - new - changed)
        assert all(now[number] != old[layer][number] for number in changed)
        touched = {name for name in after if name.startswith(f"world/train/{layer}/0") and after[name] != before[name]}
        assert 0 < len(touched) < 19
    for layer in ("annotations", "masks"):
        run("verify", f"world/train/{layer}", "--store", str(store))
    # The rows are those of a store that is made from the new file alone.
    run(*words(tmp_path, tmp_path / "fresh"))
    assert rows(store, "masks") == rows(tmp_path / "fresh", "masks")
