"""`status`: layers summed over their footers, failures, running jobs, damaged log files."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from fakes import older_shards
from fakes.reviewed_store import write_store_with_failures

from synthgen.records.sample import Sample
from synthgen.review import status
from synthgen.storage.shard_store import Shard, ShardStore


def test_a_layer_is_added_up_over_its_footers(tmp_path: Path) -> None:
    write_store_with_failures(tmp_path)
    text = "\n".join(status.format_status(tmp_path))
    assert "shards   2 of 3 (67%)" in text
    assert "made by  toy level=3" in text
    assert "images   8, 1 with an error" in text
    assert "boxes    8, 6 masks" in text
    assert "clipped 2" in text
    assert "2 images; --failures" in text


def test_failures_are_listed_by_object_image_and_shard(tmp_path: Path) -> None:
    log = write_store_with_failures(tmp_path)
    log.mkdir()
    lines = [
        {"shard": "w/train/masks/00002-of-00003", "error": "first try"},
        {"shard": "w/train/masks/00001-of-00003", "error": "long mended"},
        {"shard": "w/train/masks/00002-of-00003", "error": "last word"},
    ]
    (log / "failures.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{torn")
    text = "\n".join(status.format_status(tmp_path, failures=True))
    assert "failed   00000 image 2 0002.png: no such file" in text
    assert "no mask  00000 image 3 0003.png, annotation 3 ball: toy failed (RuntimeError: poisoned)" in text
    assert "last word" in text
    assert "first try" not in text
    assert "long mended" not in text  # that shard is there


def test_the_last_word_on_a_shard_is_the_latest_whatever_its_file(tmp_path: Path) -> None:
    log = write_store_with_failures(tmp_path)
    log.mkdir()
    shard = "w/train/masks/00002-of-00003"
    for name, when, word in (
        ("failures", 2.0, "second"),
        ("failures-0-of-5", 3.0, "third"),
        ("failures-9", 1.0, "1st"),
    ):
        (log / f"{name}.jsonl").write_text(json.dumps({"shard": shard, "error": word, "time": when}))
    assert [entry["error"] for entry in status.list_failed_shards(tmp_path, "w/train/masks")] == ["third"]


def test_a_layer_in_which_every_shard_failed_is_reported(tmp_path: Path) -> None:
    log = write_store_with_failures(tmp_path).parents[1] / "wrong" / "_log"
    log.mkdir(parents=True)
    for i in range(2):
        line = {"shard": f"w/train/wrong/0000{i}-of-00002", "error": f"{i}: check --images", "time": 1.0}
        with (log / "failures.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    text = "\n".join(status.format_status(tmp_path))
    assert "w/train/wrong\n  shards   none committed\n  failed   2 shards; --failures lists them" in text
    text = "\n".join(status.format_status(tmp_path, failures=True))
    assert "failed   0: check --images" in text and "failed   1: check --images" in text
    (log / "failures.jsonl").write_text("")
    assert "wrong" not in "\n".join(status.format_status(tmp_path))


def test_a_running_job_is_shown_and_a_dead_one_is_not(tmp_path: Path) -> None:
    log = write_store_with_failures(tmp_path)
    log.mkdir()
    said = {"shards": 3, "committed": 2, "failed": 0, "images_per_second": 2.5, "eta_seconds": 120}
    (log / "status.json").write_text(json.dumps({**said, "updated": time.time()}))
    assert "running  2.5 images/s, 1 shards left, about 2 minutes" in "\n".join(status.format_status(tmp_path))
    (log / "status.json").write_text(json.dumps({**said, "updated": time.time() - 3600}))
    assert "running" not in "\n".join(status.format_status(tmp_path))


@pytest.mark.parametrize(
    "entry",
    [
        {"shard": "w/train/masks/\0", "error": "x"},
        {"shard": "../../etc/passwd", "error": "x"},
        {"shard": "w/train/masks/" + "0" * 400 + "-of-00003", "error": "x"},
        {"shard": 7, "error": "x"},
        {"shard": "w/train/masks/00002-of-00003"},
        {"shard": "w/train/masks/00002-of-00003", "error": "x", "time": 10**400},
    ],
)
def test_a_tampered_diary_stops_nothing(tmp_path: Path, entry: dict[str, object]) -> None:
    log = write_store_with_failures(tmp_path)
    log.mkdir()
    (log / "failures.jsonl").write_text(f"{json.dumps(entry)}\n" * 2)
    assert "shards   2 of 3" in "\n".join(status.format_status(tmp_path, failures=True))


@pytest.mark.parametrize(
    "rubbish",
    ["", "[]", "null", '{"shards": "many"}', '{"updated": null, "shards": 9}', "\x00", "[" * 100_000]
    + [
        json.dumps({"shards": 10**9, "committed": 0, "failed": 0, "updated": 1e12, "images_per_second": 1, **huge})
        for huge in ({"updated": 10**400}, {"eta_seconds": 10**400}, {"eta_seconds": 1, "images_per_second": 10**400})
    ],
)
def test_a_damaged_diary_stops_nothing(tmp_path: Path, rubbish: str) -> None:
    log = write_store_with_failures(tmp_path)
    log.mkdir()
    for name in ("status.json", "failures.jsonl"):
        (log / name).write_text(rubbish)
    assert "shards   2 of 3" in "\n".join(status.format_status(tmp_path, failures=True))


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    assert "synthgen demo" in next(status.format_status(tmp_path / "nowhere"))


# --- shards that are not as they should be ---------------------------------------------------------------------------


def damage_footer(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-40] + b"\xff" * 8 + content[-32:])


@pytest.mark.timeout(60)
def test_damaged_and_foreign_shards_hide_no_other(tmp_path: Path) -> None:
    """Of eight shards one is damaged, one is a copy of another, one a FIFO; another layer is of two plans."""
    write_store_with_failures(tmp_path, shards=8, committed=6)
    folder = tmp_path / "w/train/masks"
    damage_footer(folder / "00001-of-00008.parquet")
    shutil.copyfile(folder / "00003-of-00008.parquet", folder / "00002-of-00008.parquet")
    os.mkfifo(folder / "00007-of-00008.parquet")
    shutil.copyfile(folder / "00003-of-00008.parquet", folder / "00099-of-00008.parquet")
    store = ShardStore(tmp_path)
    for layer, count in (("a", 1), ("two", 1), ("two", 2)):
        store.commit(Shard("w", "train", layer, 0, count), [], {})
    (tmp_path / "w/train/z").mkdir()
    os.mkfifo(tmp_path / "w/train/z/00000-of-00001.parquet")
    layers = {layer.name: layer for layer in status.summarize_layers(tmp_path)}
    assert list(layers) == [f"w/train/{name}" for name in ("a", "masks", "two", "z")]
    assert [len(layer.damaged) for layer in layers.values()] == [0, 2, 1, 0]
    text = "\n".join(status.format_status(tmp_path, failures=True))
    assert (
        f"  damaged  {folder}/00001-of-00008.parquet is damaged (its footer is not what was written); delete it" in text
    )
    assert (
        f"  damaged  {folder}/00002-of-00008.parquet is the shard w/train/masks/00003-of-00008; move it there" in text
    )
    assert "  foreign  00007-of-00008.parquet is a FIFO; it is ignored" in text
    assert "  foreign  00099-of-00008.parquet is none of 8 shards, which count from 0; it is ignored" in text
    assert "shards   4 of 8 (50%)" in text
    assert "holds shards of two plans (of 1 and of 2)" in text
    assert "w/train/z\n  shards   none committed\n  foreign  00000-of-00001.parquet is a FIFO" in text
    assert "w/train/a\n  shards   1 of 1 (complete)" in text


def test_a_damaged_page_is_found_where_failures_are_listed(tmp_path: Path) -> None:
    write_store_with_failures(tmp_path, shards=2)
    path = tmp_path / "w/train/masks/00000-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    layers = status.summarize_layers(tmp_path)
    assert not layers[0].damaged
    text = "\n".join(status.format_status(tmp_path, failures=True, layers=layers))
    assert f"  damaged  {path} is damaged" in text
    assert layers[0].damaged


def test_stale_shards_are_counted(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    parents = [Shard("w", "train", "masks", index, 3) for index in range(3)]
    for shard in parents:
        store.commit(shard, [Sample(shard.index, "k", "f", 1, 1)], {"fingerprint": "f"})
        parent = {"layer": "masks", "fingerprint": "f", "content_sha256": store.read_content_digest(shard)}
        store.commit(shard.in_layer("captions"), [], {"parent": parent})
        store.commit(shard.in_layer("old"), [], {"parent": {"layer": "masks", "fingerprint": "f"}})
        store.commit(shard.in_layer("odd"), [], {"parent": {"layer": "../masks", "content_sha256": 3}})
        store.commit(shard.in_layer("orphan"), [], {"parent": {**parent, "layer": "gone"}})
    assert "stale" not in "\n".join(status.format_status(tmp_path))
    for shard in parents[:2]:
        store.commit(shard, [Sample(9, "k", "f", 1, 1)], {"fingerprint": "f"})
    assert {layer.name: layer.num_stale for layer in status.summarize_layers(tmp_path) if layer.num_stale} == {
        "w/train/captions": 2
    }
    what = "stale    2 shards: the layers that they were made from have changed; run the same command again"
    assert what in "\n".join(status.format_status(tmp_path))


def test_shards_of_an_older_release_are_counted(tmp_path: Path) -> None:
    write_store_with_failures(tmp_path)
    assert "identity" not in "\n".join(status.format_status(tmp_path))
    store = ShardStore(tmp_path)
    older_shards.make_older(store, store.list_shards("w", "train", "masks"))
    text = "\n".join(status.format_status(tmp_path))
    assert "identity 2 shards are unverified, of an older release; `synthgen migrate w/train/masks` adds it" in text
    assert "shards   2 of 3 (67%)" in text
    assert "images   8, 1 with an error" in text
