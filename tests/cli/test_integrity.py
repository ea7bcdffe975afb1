"""`verify`, `migrate` and `status` on a store in which something is wrong: exit codes and sentences."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import coco_dataset, older_shards

from synthgen.storage.shard_store import ShardStore

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
MASKS = "boxes/train/masks"


@pytest.fixture
def masks(synthgen: Callable[..., tuple[int, str]], tmp_path: Path) -> Path:
    """The folder of a layer of four shards, made by the commands."""
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    assert synthgen("ingest", *OWN, "--shard-size", "2")[0] == 0
    code, told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert code == 0, told
    return tmp_path / "shards" / MASKS


def make_older(tmp_path: Path, layer: str) -> None:
    store = ShardStore(tmp_path / "shards")
    older_shards.make_older(store, store.list_shards("boxes", "train", layer))


def test_a_whole_layer_is_verified(synthgen, masks: Path) -> None:
    code, told = synthgen("verify", MASKS)
    assert code == 0
    assert "ok          00003-of-00004.parquet" in told
    assert f"{MASKS}: 4 ok" in told
    assert synthgen("verify", "boxes/train/annotations", "--store", "shards")[0] == 0


def test_a_damaged_layer_ends_with_one(synthgen, masks: Path) -> None:
    path = masks / "00001-of-00004.parquet"
    content = bytearray(path.read_bytes())
    content[100:300] = b"\xff" * 200
    path.write_bytes(content)
    assert synthgen("status")[0] == 0  # the footers are whole
    code, told = synthgen("verify", MASKS)
    assert code == 1
    assert "damaged     00001-of-00004.parquet: " in told
    assert f"{MASKS}: 3 ok, 1 damaged" in told
    path.write_bytes(content[:-20])
    code, told = synthgen("status")
    assert code == 1
    assert "damaged" in told and "3 of 4 (75%)" in told and "boxes/train/annotations" in told


@pytest.mark.timeout(60)
def test_another_shard_and_a_fifo_are_refused_in_words(synthgen, masks: Path) -> None:
    """A copy of shard 3 under the name of shard 2 was "4 of 4 (complete)"; the FIFO stopped every command."""
    os.mkfifo(masks / "00099-of-00004.parquet")
    assert synthgen("status")[0] == 0
    assert "nothing to do" in synthgen("masks", *OWN, "--segmenter", "box_fill")[1]
    shutil.copyfile(masks / "00003-of-00004.parquet", masks / "00002-of-00004.parquet")
    code, told = synthgen("status")
    assert code == 1 and "00002-of-00004.parquet is the shard boxes/train/masks/00003-of-00004; move it" in told
    assert "00099-of-00004.parquet is none of 4 shards, which count from 0; it is ignored" in told
    code, told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert code == 2 and "is the shard boxes/train/masks/00003-of-00004" in told
    code, told = synthgen("verify", MASKS)
    assert code == 1 and f"{MASKS}: 3 ok, 2 foreign" in told


def test_a_repaired_image_reaches_the_captions(synthgen, masks: Path, tmp_path: Path) -> None:
    share = ("--max-error-share", "0.5", "--segmenter", "box_fill")
    photographs = [tmp_path / "photos" / f"{number:04d}.png" for number in (2, 7)]
    for path in photographs:
        path.rename(path.with_suffix(".away"))
    shutil.rmtree(masks)
    code, told = synthgen("masks", *OWN, *share)
    assert code == 0, told
    assert synthgen("captions", *OWN)[0] == 0
    for path in photographs:
        path.with_suffix(".away").rename(path)
    assert synthgen("masks", *OWN, *share, "--retry-failed")[0] == 0
    code, told = synthgen("status")
    assert code == 0 and "stale    2 shards: the layers that they were made from have changed; run the same" in told
    code, told = synthgen("verify", "boxes/train/captions")
    assert code == 1 and "2 ok, 2 stale" in told
    code, told = synthgen("captions", *OWN)
    assert code == 0 and "2 shards again: the layer masks has changed since" in told
    assert "stale" not in synthgen("status")[1]
    assert "nothing to do" in synthgen("captions", *OWN)[1]
    store = ShardStore(tmp_path / "shards")
    rows = [s for shard in store.list_shards("boxes", "train", "captions") for s in store.read_samples(shard)]
    assert len(rows) == 8 and all(s.error is None and all(a.captions for a in s.annotations) for s in rows)


def test_a_layer_of_an_older_release_is_migrated(synthgen, masks: Path, tmp_path: Path) -> None:
    make_older(tmp_path, "masks")
    code, told = synthgen("verify", MASKS)
    assert code == 0 and f"{MASKS}: 4 unverified" in told and f"`synthgen migrate {MASKS}`" in told
    assert "identity 4 shards are unverified" in synthgen("status")[1]
    code, told = synthgen("migrate", MASKS)
    assert code == 0 and f"{MASKS}: 4 shards migrated, 0 up to date" in told
    assert synthgen("migrate", MASKS)[1].endswith(f"{MASKS}: 0 shards migrated, 4 up to date\n")
    assert f"{MASKS}: 4 ok" in synthgen("verify", MASKS)[1]
    assert "nothing to do" in synthgen("masks", *OWN, "--segmenter", "box_fill")[1]
    assert "unverified" not in synthgen("status")[1]


def test_a_renamed_layer_is_adopted(synthgen, masks: Path) -> None:
    masks.rename(masks.with_name("first"))
    code, told = synthgen("show", "boxes/train/first", "--images", "photos")
    assert code == 2 and "`synthgen migrate boxes/train/first --rename`" in told
    code, told = synthgen("migrate", "boxes/train/first")
    assert code == 1 and "0 shards migrated, 0 up to date, 4 left as they are" in told
    assert synthgen("migrate", "boxes/train/first", "--rename")[0] == 0
    assert synthgen("verify", "boxes/train/first")[0] == 0


@pytest.mark.parametrize("command", ["verify", "migrate"])
def test_no_such_layer_is_wrong_input(command: str, synthgen, masks: Path) -> None:
    code, told = synthgen(command, "boxes/train/none")
    assert code == 2
    assert (
        "no layer 'boxes/train/none' in shards; name one as DATASET/SPLIT/LAYER (have: boxes/train/annotations" in told
    )


def test_a_layer_is_deleted_only_where_nothing_else_needs_it(synthgen, masks: Path, tmp_path: Path) -> None:
    boxes = masks.parent / "annotations"
    code, told = synthgen("rm", "boxes/train/annotations", "--yes")
    assert code == 2 and "boxes/train/masks cannot be renewed without boxes/train/annotations" in told
    code, told = synthgen("rm", MASKS)
    assert code == 2 and f"nobody can be asked whether to delete {MASKS}; add --yes" in told
    code, told = synthgen("rm", MASKS, "--dry-run")
    assert code == 0 and f"{MASKS}: would delete 4 shards" in told
    assert len(list(masks.glob("*.parquet"))) == len(list(boxes.glob("*.parquet"))) == 4
    (masks / "notes.txt").write_text("mine")
    code, told = synthgen("rm", MASKS, "--yes")
    assert code == 0 and f"{MASKS}: deleted 4 shards" in told and "notes.txt" in told
    assert [path.name for path in masks.iterdir()] == ["notes.txt"]
    (masks / "notes.txt").unlink()
    assert synthgen("rm", MASKS, "--yes")[0] == 0 and not masks.exists()
    assert synthgen("rm", "boxes/train/annotations", "--yes")[0] == 0
    assert list((tmp_path / "shards").iterdir()) == []
    code, told = synthgen("rm", MASKS, "--yes")
    assert code == 2 and "no layer boxes/train/masks" in told


def test_a_layer_in_the_middle_of_an_update_is_reported(synthgen, masks: Path, tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(path.read_text().replace('"bbox": [', '"bbox": [1', 1))
    assert synthgen("ingest", *OWN, "--update")[0] == 0
    assert synthgen("verify", "boxes/train/annotations")[0] == synthgen("status")[0] == 0
    record = masks.parent / "annotations" / "_update.json"
    whole = record.read_text()
    content = json.loads(whole)
    record.write_text(json.dumps({**content, "digests": None}))
    for words in (("verify", "boxes/train/annotations"), ("status",)):
        code, told = synthgen(*words)
        assert code == 1 and "has not finished" in told and "with --update" in told
    for words in (("masks", *OWN, "--segmenter", "box_fill"), ("show", "boxes/train/annotations")):
        code, told = synthgen(*words)
        assert code == 2 and "has not finished" in told
    record.write_text(json.dumps({**content, "digests": ["0" * 64, *content["digests"][1:]]}))
    code, told = synthgen("verify", "boxes/train/annotations")
    assert code == 1 and "stale       00000-of-00004.parquet: its rows are not those of the last update" in told
    code, told = synthgen("status")
    assert code == 1 and "00000-of-00004 is not of its last update" in told
    assert synthgen("ingest", *OWN, "--update")[0] == 0
    assert record.read_text() == whole
    # The masks of the changed image are stale until they are drawn again.
    code, told = synthgen("verify", MASKS)
    assert code == 1 and "1 stale" in told
    assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--update")[0] == 0
    assert synthgen("verify", MASKS)[0] == 0
    # A rename on purpose is possible after an update, too.
    masks.parent.rename(masks.parent.with_name("valid"))
    for layer in ("annotations", "masks"):
        assert synthgen("migrate", f"boxes/valid/{layer}", "--rename")[0] == 0
        assert synthgen("verify", f"boxes/valid/{layer}")[0] == 0
