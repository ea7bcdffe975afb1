"""The removal of a layer: what synthgen wrote is gone, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import shard_writer

from synthgen.errors import SynthgenError
from synthgen.storage import layer_removal
from synthgen.storage.layer_removal import format_removal, plan_removal, remove_layer
from synthgen.storage.locks import use_folder
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.storage.update_record import RECORD_NAME

LAYER = "d/train/masks"


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    """Three shards with logs and a record, and a layer that was made from them."""
    store = ShardStore(tmp_path / "store")
    for index in range(3):
        shard = Shard("d", "train", "masks", index, 3)
        store.commit(shard, shard_writer.samples(index)[:2], {"fingerprint": "f"})
        parent = {"layer": "masks", "fingerprint": "f"}
        store.commit(shard.in_layer("captions"), shard_writer.samples(index)[:2], {"parent": parent})
    store.create_layer("d", "train", "masks")
    folder = store.root / LAYER
    (folder / RECORD_NAME).write_text("{}")
    (folder / "_log" / "show").mkdir()
    (folder / "_log" / "show" / "sheet.png").write_bytes(b"x")
    (folder / ".00000-of-00003.parquet.0123456789abcdef.tmp").write_bytes(b"left by a killed run")
    return store


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_a_layer_goes_and_the_others_stay(store: ShardStore) -> None:
    others = {name for name in files(store.root) if not name.startswith(LAYER)}
    size = sum(path.stat().st_size for path in (store.root / LAYER).glob("*.parquet"))
    done = remove_layer(store, f"/{LAYER}/", force=True)
    assert (done.layer, done.shards, done.size_bytes, done.foreign) == (LAYER, 3, size, ())
    assert files(store.root) == others
    remove_layer(store, "d/train/captions")
    assert files(store.root) == set() and store.root.is_dir()
    with pytest.raises(SynthgenError, match=r"no layer d/train/captions in .*; `synthgen status` lists"):
        remove_layer(store, "d/train/captions")


def test_a_layer_that_others_were_made_from_stays(store: ShardStore) -> None:
    before = files(store.root)
    with pytest.raises(SynthgenError, match=r"d/train/captions cannot be renewed without d/train/masks; .* --force"):
        remove_layer(store, LAYER)
    assert files(store.root) == before
    assert plan_removal(store, LAYER).dependents == ("d/train/captions",)
    assert files(store.root) == before


def test_files_of_others_and_links_stay(store: ShardStore, tmp_path: Path) -> None:
    folder, outside = store.root / LAYER, tmp_path / "outside"
    outside.mkdir()
    (outside / "dear.parquet").write_bytes(b"dear")
    (folder / "notes.txt").write_bytes(b"mine")
    (folder / "own").mkdir()
    target = folder / "00001-of-00003.parquet"
    target.rename(outside / target.name)
    target.symlink_to(outside / target.name)
    (folder / "00007-of-00003.parquet").write_bytes(b"no shard")
    (folder / "_log" / "show" / "link").symlink_to(outside)
    done = remove_layer(store, LAYER, force=True)
    assert done.foreign == ("00001-of-00003.parquet", "00007-of-00003.parquet", "notes.txt", "own")
    assert {path.name for path in folder.iterdir()} == set(done.foreign)
    assert {path.name for path in outside.iterdir()} == {"dear.parquet", target.name}
    assert list(format_removal(done, is_done=True))[2] == (
        f"  stayed, as synthgen did not write it: {', '.join(done.foreign)}"
    )


@pytest.mark.parametrize("level", ["d", "d/train", LAYER])
def test_a_link_in_the_path_is_not_followed(store: ShardStore, tmp_path: Path, level: str) -> None:
    (store.root / level).rename(tmp_path / "elsewhere")
    (store.root / level).symlink_to(tmp_path / "elsewhere")
    before = files(tmp_path)
    with pytest.raises(SynthgenError, match="is a link, which is not followed"):
        remove_layer(store, LAYER, force=True)
    assert files(tmp_path) == before


def test_a_log_folder_that_is_a_link_stays(store: ShardStore, tmp_path: Path) -> None:
    log = store.root / LAYER / "_log"
    log.rename(tmp_path / "logs")
    log.symlink_to(tmp_path / "logs")
    assert remove_layer(store, LAYER, force=True).foreign == ("_log",)
    assert files(tmp_path / "logs") == {"show", "show/sheet.png"}


@pytest.mark.parametrize("layer", ["", "d", "d/train", "d/train/masks/more", "../d/train", "d/../masks", "d/train/.."])
def test_only_a_layer_can_be_named(store: ShardStore, layer: str) -> None:
    before = files(store.root)
    with pytest.raises(SynthgenError):
        remove_layer(store, layer, force=True)
    assert files(store.root) == before


def test_a_layer_in_use_stays(store: ShardStore) -> None:
    before = files(store.root)
    with (
        use_folder(store.root / LAYER),
        use_folder(store.root / LAYER),
        pytest.raises(SynthgenError, match="a job uses d/train/masks; wait until it has ended"),
    ):
        remove_layer(store, LAYER, force=True)
    assert files(store.root) == before
    remove_layer(store, LAYER, force=True)


SCRIPT = """
import os, signal, sys
from synthgen.storage.layer_removal import remove_layer
from synthgen.storage.shard_store import ShardStore
seen = 0
def hook(event, args):
    global seen
    if event in ("os.remove", "os.rmdir"):
        seen += 1
        if seen > int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
remove_layer(ShardStore(sys.argv[1]), "d/train/masks", force=True)
"""


@pytest.mark.parametrize("after", [0, 2, 4, 7])
def test_a_removal_that_was_killed_is_finished_by_the_same_call(store: ShardStore, after: int) -> None:
    program = [sys.executable, "-c", SCRIPT, str(store.root), str(after)]
    assert subprocess.run(program, capture_output=True).returncode == -signal.SIGKILL
    assert (store.root / LAYER).is_dir()
    remove_layer(store, LAYER, force=True)
    assert not (store.root / LAYER).exists() and len(store.list_shards("d", "train", "captions")) == 3


def test_a_layer_without_shards_can_be_removed(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.create_layer("d", "train", "masks")
    assert remove_layer(store, LAYER).shards == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> Iterator[None]:
        raise PermissionError(13, os.strerror(13))

    store.remove_stale_files("d", "train", "masks")
    monkeypatch.setattr(layer_removal.os, "unlink", refuse)
    with pytest.raises(SynthgenError, match=f"{LAYER} .*; check its permissions"):
        remove_layer(store, LAYER, force=True)
