"""What `status` and `show` say of a store, damaged diaries and all."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import coco_dataset

from synthgen.errors import SynthgenError
from synthgen.records.sample import Annotation, Sample
from synthgen.review import status
from synthgen.review.show import draw_layer
from synthgen.storage.shard_store import Shard, ShardStore


def make(store: Path, *, shards: int = 3, committed: int = 2) -> Path:
    house = ShardStore(store)
    for index in range(committed):
        samples = [
            Sample(n, f"w/{n}", f"{n:04d}.png", 72, 96, (Annotation(n, (1.0, 1.0, 9.0, 9.0), "ball"),))
            for n in range(index * 4 + 1, index * 4 + 5)
        ]
        if index == 0:
            sick = replace(samples[2].annotations[0], flags=("segmenter_failed",))
            samples[1] = replace(samples[1], error="no such file")
            samples[2] = replace(samples[2], annotations=(sick,))
        failed = [
            {"row": 1, "image_id": 2, "file_name": "0002.png", "error": "no such file"},
            {"row": 2, "image_id": 3, "file_name": "0003.png", "error": "toy failed (RuntimeError: poisoned)"},
        ] * (index == 0)
        footer = {
            "recipe": {"stage": "masks", "plugin": "toy", "options": {"level": 3}},
            "fingerprint": "f",
            "counts": {"images": 4, "annotations": 4, "masks": 3, "errors": int(index == 0), "flags": {"clipped": 1}},
            "failed": failed,
        }
        house.commit(Shard("w", "train", "masks", index, shards), samples, footer)
    return house.layer_folder("w", "train", "masks") / "_log"


def test_a_layer_is_added_up_over_its_footers(tmp_path: Path) -> None:
    make(tmp_path)
    text = "\n".join(status.format_status(tmp_path))
    assert "shards   2 of 3 (67%)" in text
    assert "made by  toy level=3" in text
    assert "images   8, 1 with an error" in text
    assert "boxes    8, 6 masks" in text
    assert "clipped 2" in text
    assert "2 images; --failures" in text


def test_failures_are_listed_by_object_image_and_shard(tmp_path: Path) -> None:
    log = make(tmp_path)
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
    log = make(tmp_path)
    log.mkdir()
    shard = "w/train/masks/00002-of-00003"
    for name, when, word in (
        ("failures", 2.0, "second"),
        ("failures-0-of-5", 3.0, "third"),
        ("failures-9", 1.0, "1st"),
    ):
        (log / f"{name}.jsonl").write_text(json.dumps({"shard": shard, "error": word, "time": when}))
    assert [entry["error"] for entry in status.list_failed_shards(tmp_path, "w/train/masks")] == ["third"]


def test_a_layer_in_which_every_shard_failed_is_told(tmp_path: Path) -> None:
    log = make(tmp_path).parents[1] / "wrong" / "_log"
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
    log = make(tmp_path)
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
    log = make(tmp_path)
    log.mkdir()
    (log / "failures.jsonl").write_text(f"{json.dumps(entry)}\n" * 2)
    assert "shards   2 of 3" in "\n".join(status.format_status(tmp_path, failures=True))


@pytest.mark.parametrize("rubbish", ["", "[]", "null", '{"shards": "many"}', '{"updated": null, "shards": 9}', "\x00"])
def test_a_damaged_diary_stops_nothing(tmp_path: Path, rubbish: str) -> None:
    log = make(tmp_path)
    log.mkdir()
    for name in ("status.json", "failures.jsonl"):
        (log / name).write_text(rubbish)
    assert "shards   2 of 3" in "\n".join(status.format_status(tmp_path, failures=True))


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    assert "synthgen demo" in next(status.format_status(tmp_path / "nowhere"))


def test_show_draws_the_same_images_for_the_same_seed(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    make(tmp_path / "store")
    images = tmp_path / "photos"
    first = draw_layer("w/train/masks", tmp_path / "store", images=images, out=tmp_path / "a", num_images=3)[1]
    again = draw_layer("w/train/masks", tmp_path / "store", images=images, out=tmp_path / "b", num_images=3)[1]
    assert [p.name for p in first] == [p.name for p in again]
    assert len(first) == 3
    every = draw_layer("w/train/masks", tmp_path / "store", images=images, out=tmp_path / "c", num_images=99)[1]
    assert [p.name for p in every] == [f"{n}-{n:04d}.png" for n in range(1, 9)]


def test_show_finds_images_by_name_or_id(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    make(tmp_path / "store")
    only = ("0003.png", "6")
    _, found = draw_layer(
        "w/train/masks", tmp_path / "store", images=tmp_path / "photos", out=tmp_path / "a", only_images=only
    )
    assert [p.name for p in found] == ["3-0003.png", "6-0006.png"]
    with pytest.raises(SynthgenError, match=r"no image 0099\.png"):
        draw_layer(
            "w/train/masks",
            tmp_path / "store",
            images=tmp_path / "photos",
            out=tmp_path / "b",
            only_images=["0099.png"],
        )


def test_show_asks_where_the_images_are(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(SynthgenError, match="--images FOLDER"):
        draw_layer("w/train/masks", tmp_path, out=tmp_path / "a")


def test_a_file_name_cannot_climb_out_of_the_folder_of_pictures(tmp_path: Path) -> None:
    evil = Sample(1, "w/1", "../../../evil.png", 72, 96, ())
    footer = {"fingerprint": "f", "recipe": {}, "counts": {}}
    ShardStore(tmp_path).commit(Shard("w", "train", "masks", 0, 1), [evil], footer)
    (tmp_path / "photos").mkdir()
    _, found = draw_layer("w/train/masks", tmp_path, images=tmp_path / "photos", out=tmp_path / "out")
    assert [p.parent for p in found] == [tmp_path / "out"]
    assert found[0].exists()
