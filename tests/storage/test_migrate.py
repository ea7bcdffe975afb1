"""Migration: older shards get what new ones have; rows and recipes stay; wherever it ends, every shard can be read."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import older_shards, shard_writer

from synthgen.errors import SynthgenError
from synthgen.records.content_digest import content_digest
from synthgen.records.sample import Sample
from synthgen.storage import migrate
from synthgen.storage.migrate import MigrationReport, migrate_shards
from synthgen.storage.parquet_file import write_parquet
from synthgen.storage.shard_store import Shard, ShardStore

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "shard_v1.parquet"
FOOTER = {"fingerprint": "f", "recipe": {"stage": "masks"}, "parent": {"layer": "a", "fingerprint": "e"}, "failed": []}


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    """A layer of three shards."""
    store = ShardStore(tmp_path)
    for index in range(3):
        store.commit(Shard("d", "train", "masks", index, 3), shard_writer.samples(index) * 4, FOOTER)
    return store


def layer_of(store: ShardStore, layer: str = "masks") -> list[Shard]:
    return store.list_shards("d", "train", layer)


def content(store: ShardStore, layer: str = "masks") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.layer_folder("d", "train", layer).iterdir())}


def make_older(store: ShardStore) -> dict[str, bytes]:
    older_shards.make_older(store, layer_of(store))
    return content(store)


def test_migrated_shards_are_those_of_a_new_commit(store: ShardStore) -> None:
    new = content(store)
    assert make_older(store) != new
    done: list[int] = []
    assert migrate_shards(store, layer_of(store), on_shard=done.append) == MigrationReport(3, 0, ())
    assert content(store) == new
    assert done == [1, 1, 1]


def test_a_second_migration_changes_nothing(store: ShardStore) -> None:
    make_older(store)
    migrate_shards(store, layer_of(store))
    states = [migrate._file_state(store.root / shard.relative_path) for shard in layer_of(store)]
    assert migrate_shards(store, layer_of(store)) == MigrationReport(0, 3, ())
    assert [migrate._file_state(store.root / shard.relative_path) for shard in layer_of(store)] == states


def test_a_shard_of_the_first_release_keeps_rows_columns_and_footer(tmp_path: Path) -> None:
    store, shard = ShardStore(tmp_path), Shard("d", "train", "masks", 0, 1)
    (tmp_path / shard.relative_path).parent.mkdir(parents=True)
    shutil.copyfile(GOLDEN, tmp_path / shard.relative_path)
    rows, footer = list(store.read_samples(shard)), store.read_footer(shard)
    assert migrate_shards(store, [shard]) == MigrationReport(1, 0, ())
    assert list(store.read_samples(shard)) == rows
    digest = content_digest(pq.read_table(GOLDEN))
    identity = {**dataclasses.asdict(shard), "num_rows": 4, "content_sha256": digest}
    assert store.read_footer(shard) == {**(footer or {}), "identity": identity}
    before, after = pq.ParquetFile(GOLDEN).schema, pq.ParquetFile(tmp_path / shard.relative_path).schema
    assert [after.column(i).path for i in range(len(after))] == [before.column(i).path for i in range(len(before))]


def test_row_groups_and_columns_of_a_later_release_stay(store: ShardStore) -> None:
    make_older(store)
    shard = layer_of(store)[0]
    path = store.root / shard.relative_path
    table = pq.read_table(path)
    pq.write_table(table.append_column("licence", pa.array(["CC0"] * len(table))), path, row_group_size=50)
    assert migrate_shards(store, [shard]).num_migrated == 1
    assert pq.read_table(path, columns=["licence"])["licence"].to_pylist() == ["CC0"] * len(table)
    assert store.read_row_group_sizes(shard)[1] == [50, 50, 50, 10]


def test_an_empty_shard_is_migrated(tmp_path: Path) -> None:
    store, shard = ShardStore(tmp_path), Shard("d", "train", "masks", 0, 1)
    store.commit(shard, [], {"fingerprint": "f"})
    new = content(store)
    make_older(store)
    assert migrate_shards(store, [shard]).num_migrated == 1
    assert content(store) == new


# --- what must not be migrated ---------------------------------------------------------------------------------------


def test_damaged_and_foreign_shards_are_left_as_they_are(store: ShardStore) -> None:
    shards = layer_of(store)
    shutil.copyfile(store.root / shards[0].relative_path, store.root / shards[1].relative_path)
    older_shards.make_older(store, shards[:1])
    path = store.root / shards[0].relative_path
    data = bytearray(path.read_bytes())
    data[100:300] = b"\xff" * 200
    path.write_bytes(data)
    older_shards.make_older(store, shards[2:])
    before = content(store)
    found = migrate_shards(store, shards)
    assert (found.num_migrated, found.num_unchanged, len(found.refused)) == (1, 0, 2)
    assert f"{path} is damaged" in found.refused[0]
    assert "is the shard d/train/masks/00000-of-00003; move it there" in found.refused[1]
    after = content(store)
    assert [name for name in after if after[name] != before[name]] == ["00002-of-00003.parquet"]
    assert list(migrate.format_migration("d/train/masks", found)) == [
        "d/train/masks: 1 shards migrated, 0 up to date, 2 left as they are",
        *(f"  {sentence}" for sentence in found.refused),
    ]


def test_a_shard_that_a_job_writes_meanwhile_stays(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make_older(store)
    shards = layer_of(store)
    real = migrate.write_parquet

    def write(path: Path, *arguments: Any, **options: Any) -> None:
        real(path, *arguments, **options)
        if "00001-of" in path.name:
            store.commit(shards[1], [Sample(1, "k", "f", 1, 1)], FOOTER)

    monkeypatch.setattr(migrate, "write_parquet", write)
    found = migrate_shards(store, shards)
    assert found.num_migrated == 2
    assert found.refused == (f"{store.root / shards[1].relative_path} was written by a job meanwhile; "
                             "run the same command again",)  # fmt: skip
    assert list(store.read_samples(shards[1])) == [Sample(1, "k", "f", 1, 1)]


def test_what_the_disk_holds_is_compared_before_the_rename(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_older(store)

    def write(path: Path, table: pa.Table, *arguments: Any, **options: Any) -> None:
        write_parquet(path, table.slice(1), *arguments, **options)

    monkeypatch.setattr(migrate, "write_parquet", write)
    found = migrate_shards(store, layer_of(store))
    assert all("cannot be written as it was read" in sentence for sentence in found.refused)
    assert len(found.refused) == 3
    assert content(store) == before


@pytest.mark.parametrize("step", ["pyarrow.parquet.write_table", "os.fsync", "os.replace"])
def test_an_interruption_leaves_shards_that_can_be_read(
    step: str, store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = content(store)
    before = make_older(store)
    calls = 0
    module, _, name = step.rpartition(".")
    real = getattr({"os": os, "pyarrow.parquet": pq}[module], name)

    def interrupt(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 + (step == "os.fsync"):  # of a file and of its folder
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        migrate_shards(store, layer_of(store))
    monkeypatch.undo()
    names = sorted(new)
    assert content(store) == {names[0]: new[names[0]], names[1]: before[names[1]], names[2]: before[names[2]]}
    assert migrate_shards(store, layer_of(store)) == MigrationReport(2, 1, ())
    assert content(store) == new


# --- renamed folders -------------------------------------------------------------------------------------------------


def renamed(store: ShardStore, layer: str = "masks_2024") -> list[Shard]:
    store.layer_folder("d", "train", "masks").rename(store.layer_folder("d", "train", layer))
    return layer_of(store, layer)


def test_a_folder_renamed_on_purpose_is_adopted_on_request(store: ShardStore) -> None:
    rows = {shard.index: list(store.read_samples(shard)) for shard in layer_of(store)}
    shards = renamed(store)
    found = migrate_shards(store, shards)
    assert (found.num_migrated, len(found.refused)) == (0, 3)
    assert "`synthgen migrate d/train/masks_2024 --rename`" in found.refused[0]
    assert migrate_shards(store, shards, is_renamed=True) == MigrationReport(3, 0, ())
    assert {shard.index: list(store.read_samples(shard)) for shard in shards} == rows
    for shard in shards:
        footer = store.read_footer(shard) or {}
        assert footer["identity"]["layer"] == "masks_2024"
        assert {key: footer[key] for key in FOOTER} == FOOTER
    assert migrate_shards(store, shards, is_renamed=True) == MigrationReport(0, 3, ())


def test_a_renamed_layer_of_an_older_release_gets_its_new_name(store: ShardStore) -> None:
    make_older(store)
    shards = renamed(store)
    assert migrate_shards(store, shards).num_migrated == 3
    assert (store.read_footer(shards[0]) or {})["identity"]["layer"] == "masks_2024"


def test_the_index_of_a_shard_is_never_changed(store: ShardStore) -> None:
    shards = renamed(store)
    shutil.copyfile(store.root / shards[0].relative_path, store.root / shards[1].relative_path)
    before = content(store, "masks_2024")["00001-of-00003.parquet"]
    found = migrate_shards(store, shards, is_renamed=True)
    assert (found.num_migrated, len(found.refused)) == (2, 1)
    assert content(store, "masks_2024")["00001-of-00003.parquet"] == before


@pytest.mark.parametrize(
    ("layer", "fingerprint", "what"),
    [("other", "f", r"layers \(d/train/masks, d/train/other\)"), ("masks_2024", "g", "recipes")],
)
def test_shards_of_several_layers_are_not_made_one(layer: str, fingerprint: str, what: str, store: ShardStore) -> None:
    """A shard that was copied here by mistake is no reason to bless it, whatever name it comes with."""
    shards = renamed(store)
    path = store.commit(
        Shard("d", "train", layer, 1, 3), shard_writer.samples(1), {**FOOTER, "fingerprint": fingerprint}
    )
    if path != store.root / shards[1].relative_path:
        shutil.copyfile(path, store.root / shards[1].relative_path)
    before = content(store, "masks_2024")
    with pytest.raises(SynthgenError, match=f"d/train/masks_2024 holds shards of several {what}; `synthgen verify"):
        migrate_shards(store, shards, is_renamed=True)
    assert content(store, "masks_2024") == before


def test_a_renamed_shard_with_other_rows_is_damaged(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.storage.shard_store.content_digest", lambda _: "0" * 64)
        store.commit(layer_of(store)[1], shard_writer.samples(1), FOOTER)
    shards = renamed(store)
    found = migrate_shards(store, shards, is_renamed=True)
    assert (found.num_migrated, len(found.refused)) == (2, 1)
    assert "is damaged (its rows are not those that were written)" in found.refused[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from synthgen.storage.migrate import migrate_shards
from synthgen.storage.shard_store import ShardStore
root, change, seen = sys.argv[1], int(sys.argv[2]), 0

def hook(event, args):
    global seen
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event in ("os.rename", "os.remove")) and str(args[0]).startswith(root):
        seen += 1
        if seen == change:
            os.kill(os.getpid(), signal.SIGKILL)

store = ShardStore(root)
sys.addaudithook(hook)
migrate_shards(store, store.list_shards("d", "train", "masks"))
"""


@pytest.mark.slow
def test_killed_at_every_change_of_the_folder(store: ShardStore, tmp_path: Path) -> None:
    rows = {shard.index: list(store.read_samples(shard)) for shard in layer_of(store)}
    new = content(store)
    make_older(store)
    kills = 0
    for change in range(1, 100):
        root = tmp_path / f"round-{change}"
        shutil.copytree(store.layer_folder("d", "train", "masks"), root / "d/train/masks")
        done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(change)], cwd=ROOT, check=False)
        again = ShardStore(root)
        assert {shard.index: list(again.read_samples(shard)) for shard in layer_of(again)} == rows
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        kills += 1
        again.remove_stale_files("d", "train", "masks")
        migrate_shards(again, layer_of(again))
        assert content(again) == new
    assert kills >= 6  # each of three shards is opened to be sealed, and renamed
