"""`verify`: every page of a layer is read, every shard gets a verdict, nothing is written."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from fakes import older_shards, shard_writer

from synthgen.errors import SynthgenError
from synthgen.review import verify
from synthgen.review.verify import ShardState, ShardVerdict
from synthgen.storage.shard_store import Shard, ShardStore

LAYER = "d/train/masks"


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    """Four shards of five, and a layer that was made from them."""
    store = ShardStore(tmp_path)
    for index in range(4):
        shard = Shard("d", "train", "masks", index, 5)
        store.commit(shard, shard_writer.samples(index), {"fingerprint": "f"})
        parent = {"layer": "masks", "fingerprint": "f", "content_sha256": store.read_content_digest(shard)}
        store.commit(shard.in_layer("captions"), shard_writer.samples(index), {"fingerprint": "g", "parent": parent})
    return store


def states(store: ShardStore, layer: str = LAYER) -> dict[str, ShardState]:
    return {verdict.name.split("-")[0]: verdict.state for verdict in verify.verify_layer(store, layer)}


def path_of(store: ShardStore, index: int, layer: str = "masks") -> Path:
    return store.root / Shard("d", "train", layer, index, 5).relative_path


def everything(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(root.rglob("*"))}


def test_what_is_whole_is_ok_and_what_lacks_is_missing(store: ShardStore) -> None:
    done: list[int] = []
    verdicts = list(verify.verify_layer(store, f"/{LAYER}/", done.append))
    assert [verdict.state for verdict in verdicts] == [ShardState.OK] * 4 + [ShardState.MISSING]
    assert verdicts[0] == ShardVerdict("00000-of-00005.parquet", ShardState.OK)
    assert verdicts[-1].name == "00004-of-00005.parquet"
    assert done == [1] * 4
    assert list(verify.format_verdicts(LAYER, verdicts)) == [
        *(f"ok          0000{index}-of-00005.parquet" for index in range(4)),
        "missing     00004-of-00005.parquet: run the job that writes it",
        "d/train/masks: 4 ok, 1 missing",
    ]


@pytest.mark.timeout(60)
def test_every_state_is_told_apart_and_nothing_is_written(store: ShardStore) -> None:
    path = path_of(store, 0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    shutil.copyfile(path_of(store, 3), path_of(store, 1))
    older_shards.make_older(store, [Shard("d", "train", "masks", 2, 5)])
    os.mkfifo(path_of(store, 4))
    shutil.copyfile(path_of(store, 3), path_of(store, 99))
    before = everything(store.root)
    found = states(store)
    assert found == {
        "00000": ShardState.DAMAGED,
        "00001": ShardState.FOREIGN,
        "00002": ShardState.UNVERIFIED,
        "00003": ShardState.OK,
        "00004": ShardState.FOREIGN,
        "00099": ShardState.FOREIGN,
    }
    assert everything(store.root) == before
    lines = list(verify.format_verdicts(LAYER, list(verify.verify_layer(store, LAYER))))
    assert lines[-2:] == [
        "d/train/masks: 1 ok, 1 unverified, 1 damaged, 3 foreign",
        "  `synthgen migrate d/train/masks` gives an identity to shards of older releases",
    ]
    assert "foreign     00004-of-00005.parquet: it is a FIFO; move it out of the store" in lines


def test_a_flipped_bit_of_the_data_is_found_if_a_reader_could_see_it(store: ShardStore) -> None:
    """Wherever it is, the verdict is "damaged", or the rows are still those that were written."""
    path, rng = path_of(store, 0), random.Random(0)
    whole = path.read_bytes()
    damaged = 0
    for _ in range(60):
        content = bytearray(whole)
        content[rng.randrange(4, len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        if states(store)["00000"] == ShardState.DAMAGED:
            damaged += 1
        else:
            assert list(store.read_samples(Shard("d", "train", "masks", 0, 5))) == shard_writer.samples(0)
    assert damaged > 50


def test_rows_that_are_not_those_of_the_digest_are_damaged(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checksum says so: the file was written with a wrong digest, or by a program with another."""
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.storage.shard_store.content_digest", lambda _: "0" * 64)
        store.commit(Shard("d", "train", "masks", 0, 5), shard_writer.samples(0), {"fingerprint": "f"})
    verdict = next(verify.verify_layer(store, LAYER))
    assert verdict.state == ShardState.DAMAGED
    assert verdict.reason == "its rows are not those that were written; delete it and run the job again"


def test_a_layer_above_one_that_changed_is_stale(store: ShardStore) -> None:
    assert states(store, "d/train/captions")["00001"] == ShardState.OK
    store.commit(Shard("d", "train", "masks", 1, 5), shard_writer.samples(7), {"fingerprint": "f"})
    path_of(store, 2).unlink()
    path_of(store, 3).write_bytes(b"no Parquet")  # what it holds is unknown
    assert list(states(store, "d/train/captions").values()) == [
        *(ShardState.OK, ShardState.STALE, ShardState.OK, ShardState.OK, ShardState.MISSING)
    ]
    assert next(v.reason for v in verify.verify_layer(store, "d/train/captions") if v.state == ShardState.STALE) == (
        "d/train/masks/00001-of-00005 has other rows now; run the job again"
    )


def test_shards_of_two_plans_are_all_read(store: ShardStore) -> None:
    store.commit(Shard("d", "train", "masks", 0, 7), [], {})
    verdicts = list(verify.verify_layer(store, LAYER))
    assert [verdict.state for verdict in verdicts] == [ShardState.OK] * 5 + [ShardState.FOREIGN]
    assert "two plans (of 5 and of 7)" in verdicts[-1].reason


def test_very_many_missing_shards_are_counted(store: ShardStore) -> None:
    store.commit(Shard("d", "train", "few", 0, 999_999_999), [], {})
    _, verdict = verify.verify_layer(store, "d/train/few")
    assert verdict == ShardVerdict("999,999,998 shards", ShardState.MISSING, "run the job that writes them")


def test_a_layer_of_foreign_files_alone(store: ShardStore) -> None:
    folder = store.layer_folder("d", "train", "odd")
    folder.mkdir()
    os.mkfifo(folder / "00000-of-00001.parquet")
    assert states(store, "d/train/odd") == {"00000": ShardState.FOREIGN}


@pytest.mark.parametrize("layer", ["d/train/none", "d/train", "d", "", "a/b/c/d"])
def test_no_such_layer(layer: str, store: ShardStore) -> None:
    with pytest.raises(SynthgenError, match=r"no layer '.*name one as DATASET/SPLIT/LAYER \(have: d/train/captions, d"):
        list(verify.verify_layer(store, layer))
