"""The shard store: commits are atomic, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import hypothesis_strategies, shard_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthgen.errors import FailedRunError, SynthgenError
from synthgen.records.content_digest import content_digest
from synthgen.records.parquet_schema import table_from_samples
from synthgen.records.sample import Annotation, Sample
from synthgen.storage import atomic
from synthgen.storage.parquet_file import DamagedShardError
from synthgen.storage.shard_store import ROW_GROUP_SIZE, Shard, ShardStore, check_name

SHARD = Shard("d", "train", "masks", 3, 12)


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "store")


def identity(made: list[Sample], shard: Shard = SHARD) -> dict[str, object]:
    """The member "identity" of a footer."""
    digest = content_digest(table_from_samples(made))
    return {**dataclasses.asdict(shard), "num_rows": len(made), "content_sha256": digest}


def everything(root: Path) -> list[str]:
    """All files and folders below the root but the three levels of folders that name a layer."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if len(p.relative_to(root).parts) > 3)


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_shard_is_a_name():
    assert SHARD.relative_path == "d/train/masks/00003-of-00012.parquet"
    assert SHARD.in_layer("captions").relative_path == "d/train/captions/00003-of-00012.parquet"
    assert sorted([Shard("d", "t", "m", i, 12) for i in (10, 9, 2)])[0].index == 2


@pytest.mark.parametrize(
    "word", ["..", ".", "", "a/b", "/etc", "-x", ".hidden", "a b", "a\n", "ü", "a\\b", "a\0", "_log"]
)
def test_names_that_are_no_folder_of_a_store_are_refused(word, store):
    for use in (
        lambda: check_name(word),
        lambda: Shard(word, "train", "masks", 0, 1),
        lambda: Shard("d", word, "masks", 0, 1),
        lambda: SHARD.in_layer(word),
        lambda: store.layer_folder("d", "train", word),
        lambda: store.list_shards(word, "train", "masks"),
    ):
        with pytest.raises(SynthgenError, match="cannot name a dataset, split or layer"):
            use()


@pytest.mark.parametrize("word", ["coco", "visual_genome", "sam-vit.h", "0", "x" * 60])
def test_other_names_are_fine(word):
    assert check_name(word) == word


# --- commit and read -------------------------------------------------------------------------------------------------


def test_what_is_committed_is_read(store):
    made = shard_writer.samples(0)
    path = store.commit(SHARD, made, {"recipe": {"b": 1, "a": "ü"}})
    assert path == store.root / SHARD.relative_path
    assert list(store.read_samples(SHARD)) == made
    footer = {"recipe": {"b": 1, "a": "ü"}, "schema_version": 1, "identity": identity(made)}
    assert store.read_footer(SHARD) == footer
    assert everything(store.root) == [SHARD.relative_path]


def test_an_empty_shard_is_a_shard(store):
    store.commit(SHARD, [], {})
    assert list(store.read_samples(SHARD)) == []
    assert store.read_footer(SHARD) == {"schema_version": 1, "identity": identity([])}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(hypothesis_strategies.samples, max_size=5))
def test_any_samples_come_back_from_disk(made, store):
    store.commit(SHARD, made, {})
    assert list(store.read_samples(SHARD)) == made


def test_a_shard_is_read_a_row_group_at_a_time(store):
    made = [Sample(i, f"k/{i}", f"{i}.jpg", 1, 1) for i in range(2 * ROW_GROUP_SIZE + 1)]
    path = store.commit(SHARD, made, {})
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [len(batch) for batch in store.read_columns(SHARD, ["image_id"])] == [ROW_GROUP_SIZE, ROW_GROUP_SIZE, 1]
    assert list(store.read_samples(SHARD)) == made


def test_committing_again_replaces(store):
    store.commit(SHARD, shard_writer.samples(0), {"n": 1})
    store.commit(SHARD, shard_writer.samples(1), {"n": 2})
    assert list(store.read_samples(SHARD)) == shard_writer.samples(1)
    footer = {"n": 2, "schema_version": 1, "identity": identity(shard_writer.samples(1))}
    assert store.read_footer(SHARD) == footer
    assert everything(store.root) == [SHARD.relative_path]


def test_columns_reads_only_what_is_asked(store):
    store.commit(SHARD, shard_writer.samples(0), {})
    (batch,) = store.read_columns(SHARD, ["image_key", "annotations.list.element.category"])
    assert batch.schema.names == ["image_key", "annotations"]
    assert [f.name for f in batch.schema.field("annotations").type.value_type] == ["category"]
    assert batch.column("image_key").to_pylist() == [s.image_key for s in shard_writer.samples(0)]


def test_columns_that_are_not_asked_for_are_not_touched(store):
    """The masks of this shard are destroyed, its keys are not."""
    path = store.commit(SHARD, shard_writer.samples(0), {})
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    counts = columns["annotations.list.element.segmentation.counts"]
    content = bytearray(path.read_bytes())
    start = counts.data_page_offset
    content[start : start + counts.total_compressed_size] = b"\xff" * counts.total_compressed_size
    path.write_bytes(content)
    assert sum(len(b) for b in store.read_columns(SHARD, ["image_key"])) == shard_writer.IMAGES
    with pytest.raises(SynthgenError, match="is damaged"):
        list(store.read_samples(SHARD))


def test_a_column_that_does_not_exist_is_not_passed_over(store):
    store.commit(SHARD, shard_writer.samples(0), {})
    for name in ("image_kye", "annotations.category", "annotations.list.element.bbox.item", "image"):
        with pytest.raises(ValueError, match=f"no column {name}"):
            list(store.read_columns(SHARD, ["image_key", name]))


def test_same_samples_same_bytes_in_two_processes(tmp_path):
    """With hashes of texts seeded differently, which would show where an order came from a set."""
    code = (
        "import sys; from fakes import shard_writer; from synthgen.storage.shard_store import *\n"
        "footer = {'b': {'y': 1, 'x': 2}, 'a': 3}\n"
        "ShardStore(sys.argv[1]).commit(Shard('d', 't', 'm', 0, 1), shard_writer.samples(0), footer)\n"
    )
    digests = set()
    for seed in ("1", "2"):
        root = tmp_path / seed
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(shard_writer.__file__).parents[1])}
        subprocess.run([sys.executable, "-c", code, str(root)], check=True, env=env)
        digests.add(hashlib.sha256((root / "d/t/m/00000-of-00001.parquet").read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"image_id": 2**63}, "too large"),
        ({"height": 2**31}, "too large"),
        ({"image_key": "half a pair: \ud800"}, "no Unicode"),
        ({"annotations": (Annotation(-(2**70), (0, 0, 1, 1), "c"),)}, "too large"),
        ({"annotations": (Annotation(1, (0, 0, 1, 1), "\udfff"),)}, "no Unicode"),
    ],
)
def test_a_value_that_no_column_can_hold_is_a_sentence(change, what, store):
    made = dataclasses.replace(Sample(1, "k", "f", 1, 1), **change)
    with pytest.raises(SynthgenError, match=f"d/train/masks/00003-of-00012 cannot be written: .*{what}"):
        store.commit(SHARD, [made], {})
    assert not store.root.exists()


# --- layers ----------------------------------------------------------------------------------------------------------


def test_a_layer_is_its_committed_shards(store):
    assert store.list_shards("d", "train", "masks") == []
    assert store.list_layers() == []
    assert store.read_footer(SHARD) is None
    for index in (10, 2):
        store.commit(dataclasses.replace(SHARD, index=index), [], {})
    folder = store.layer_folder("d", "train", "masks")
    for name in (
        ".00003-of-00012.parquet.host.1.00000000.tmp",
        "notes.txt",
        "3-of-12.parquet",
        "_log",
        "00003-of-00012",
    ):
        (folder / name).touch()
    assert [shard.index for shard in store.list_shards("d", "train", "masks")] == [2, 10]
    assert store.list_layers() == [("d", "train", "masks")]


def test_two_plans_in_one_layer_are_refused(store):
    store.commit(SHARD, [], {})
    store.commit(Shard("d", "train", "masks", 0, 7), [], {})
    with pytest.raises(SynthgenError, match=r"shards of two plans \(of 7 and of 12\); move one of them away or"):
        store.list_shards("d", "train", "masks")


def test_folders_that_are_no_layers_are_passed_over(store):
    store.commit(SHARD, [], {})
    for folder in ("my data/train/masks", ".cache/x/y", "d/train"):
        (store.root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.root / SHARD.relative_path, store.root / folder / "00000-of-00001.parquet")
    assert store.list_layers() == [("d", "train", "masks")]


def test_only_files_with_names_of_the_plan_are_shards(store):
    """Nothing else is opened; what is named as if it were one is told apart from notes."""
    store.commit(SHARD, [], {})
    folder = store.layer_folder("d", "train", "masks")
    (folder / "linked").write_bytes((folder / "00003-of-00012.parquet").read_bytes())
    (folder / "00004-of-00012.parquet").symlink_to("linked")
    (folder / "00005-of-00012.parquet").symlink_to("nothing")
    os.mkfifo(folder / "00006-of-00012.parquet")
    (folder / "00007-of-00012.parquet").mkdir()
    for name in (
        "00099-of-00012",
        "00012-of-00012",
        "000003-of-00012",
        "00003-of-00012 (copy)",
        "\u0660" * 5 + "-of-00012",
    ):
        (folder / f"{name}.parquet").touch()
    (folder / "notes.txt").touch()
    found = store.scan_layer("d", "train", "masks")
    assert [shard.index for shard in found.shards] == [3, 4]
    assert found.foreign == {
        "00005-of-00012.parquet": "is a link to nothing",
        "00006-of-00012.parquet": "is a FIFO",
        "00007-of-00012.parquet": "is a folder",
        **{f"000{i}-of-00012.parquet": "is none of 12 shards, which count from 0" for i in (12, 99)},
        **{
            f"{name}.parquet": "is not named as a shard"
            for name in ("000003-of-00012", "00003-of-00012 (copy)", "\u0660" * 5 + "-of-00012")
        },
    }
    assert store.list_shards("d", "train", "masks") == found.shards


def test_a_layer_of_foreign_files_alone_is_listed_if_asked_for(store):
    folder = store.layer_folder("d", "train", "masks")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "00000-of-00001.parquet")
    assert store.list_layers() == []
    assert store.list_layers(with_foreign=True) == [("d", "train", "masks")]


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "remedy"),
    [
        (dataclasses.replace(SHARD, index=2), "move it there or out of the store$"),
        (dataclasses.replace(SHARD, num_shards=13), "move it there or out of the store$"),
        (SHARD.in_layer("captions"), "`synthgen migrate d/train/captions --rename`$"),
        (dataclasses.replace(SHARD, split="val"), "`synthgen migrate d/val/masks --rename`$"),
    ],
)
def test_a_shard_in_the_place_of_another_is_refused_by_every_reader(other, remedy, store):
    path = store.commit(SHARD, shard_writer.samples(0), {"fingerprint": "f"})
    (store.root / other.relative_path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, store.root / other.relative_path)
    for reader in (
        lambda: list(store.read_samples(other)),
        lambda: list(store.read_samples(other, [0])),
        lambda: list(store.read_columns(other, ["image_id"])),
        lambda: store.read_footer(other),
        lambda: store.read_row_group_sizes(other),
        lambda: store.read_column_stats(other, ["image_id"]),
        lambda: store.read_content_digest(other),
        lambda: store.compute_content_digest(other),
    ):
        with pytest.raises(SynthgenError, match=rf"{other.relative_path} is the shard {SHARD}; .*{remedy}"):
            reader()
    assert list(store.read_samples(SHARD)) == shard_writer.samples(0)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(hypothesis_strategies.samples, max_size=5))
def test_the_digest_of_the_pages_is_that_of_the_footer(made, store):
    store.commit(SHARD, made, {})
    assert store.compute_content_digest(SHARD) == store.read_content_digest(SHARD) == identity(made)["content_sha256"]


def test_a_shard_of_an_older_release_has_the_digest_of_its_pages(store):
    older = Path(__file__).parents[1] / "golden" / "shard_v1.parquet"
    put(store, older.read_bytes())
    assert "identity" not in (store.read_footer(SHARD) or {})
    assert store.read_content_digest(SHARD) == identity(list(store.read_samples(SHARD)))["content_sha256"]


# --- files that are not as they should be ----------------------------------------------------------------------------


@pytest.fixture
def readers(store: ShardStore) -> list[Callable[[], object]]:
    return [
        lambda: list(store.read_samples(SHARD)),
        lambda: list(store.read_columns(SHARD, ["image_id"])),
        lambda: store.read_footer(SHARD),
    ]


def refuses(readers: list[Callable[[], object]], match: str) -> None:
    for reader in readers:
        with pytest.raises(SynthgenError, match=match) as why:
            reader()
        assert "\n" not in str(why.value)


def put(store: ShardStore, content: bytes) -> None:
    path = store.root / SHARD.relative_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_shard_that_is_not_there(store, readers):
    refuses(readers[:2], r"no shard d/train/masks/00003-of-00012 in .*; `synthgen status` lists")


def test_a_parquet_file_of_someone_else(store, readers):
    (store.root / SHARD.relative_path).parent.mkdir(parents=True)
    pq.write_table(pa.table({"image_id": [1, 2]}), store.root / SHARD.relative_path)
    refuses(readers, "is Parquet but no synthgen shard; move it out of the store")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 4, b"no Parquet at all", b"\0" * 5000])
def test_a_file_that_is_no_parquet(content, store, readers):
    put(store, content)
    refuses(readers, "is damaged .*; delete it and run the job again")


@pytest.mark.parametrize(
    "footer", [b"no json", b"[]", b"{}", b'{"schema_version": "1"}', b'{"schema_version": null}', b"\xff"]
)
def test_a_footer_that_is_none(footer, store, readers):
    (store.root / SHARD.relative_path).parent.mkdir(parents=True)
    table = pa.table({"image_id": [1]}).replace_schema_metadata({b"synthgen": footer})
    pq.write_table(table, store.root / SHARD.relative_path)
    refuses(readers, "is damaged .its synthgen footer")


def test_a_folder_in_the_place_of_a_shard(store, readers):
    (store.root / SHARD.relative_path).mkdir(parents=True)
    refuses(readers, "is a folder, not a shard; move it out of the store")
    with pytest.raises(SynthgenError, match=r"cannot write .* \(Is a directory\)"):
        store.commit(SHARD, [], {})


@pytest.mark.timeout(20)
def test_a_fifo_in_the_place_of_a_shard(store, readers):
    """Opened as a file is, it would wait for a writer forever."""
    (store.root / SHARD.relative_path).parent.mkdir(parents=True)
    os.mkfifo(store.root / SHARD.relative_path)
    refuses(readers, "is a FIFO, not a shard; move it out of the store")
    for use in (lambda: store.commit(SHARD, [], {}), lambda: store.check_place(SHARD)):
        with pytest.raises(SynthgenError, match=r"cannot write .*parquet: it is a FIFO; move it out of the store"):
            use()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard as it should be."""
    return ShardStore(tmp_path_factory.mktemp("whole")).commit(SHARD, shard_writer.samples(0), {"fingerprint": "f"})


def answer(store: ShardStore, content: bytes) -> list[Sample] | None:
    """What a damaged file is read as; None = it was refused in a sentence. Anything else fails the test."""
    put(store, content)
    try:
        return list(store.read_samples(SHARD))
    except SynthgenError as why:
        assert "\n" not in str(why)
        return None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_shard_is_refused(data, store, whole):
    content = whole.read_bytes()
    assert answer(store, content[: data.draw(st.integers(0, len(content) - 1))]) is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_in_the_data_is_found(data, store, whole):
    """By the checksums of the pages, or by the count of rows where a page's own header is hit."""
    content = bytearray(whole.read_bytes())
    metadata = int.from_bytes(content[-8:-4], "little") + 8
    place, bit = data.draw(st.integers(4, len(content) - metadata - 1)), data.draw(st.integers(0, 7))
    content[place] ^= 1 << bit
    read = answer(store, bytes(content))
    assert read is None or read == shard_writer.samples(0)


# --- commits that fail -----------------------------------------------------------------------------------------------


def _fails(code: int) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


STEPS = {"write": ("pyarrow.parquet.write_table", None), "fsync": ("os.fsync", None), "rename": ("os.replace", None)}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_commit_that_fails_leaves_nothing_behind(step, before, code, store, monkeypatch):
    """Nothing but what was there before; and the next commit works."""
    if before:
        store.commit(SHARD, shard_writer.samples(0), {})
    monkeypatch.setattr(STEPS[step][0], _fails(code))
    with pytest.raises(OSError if code == errno.EIO else SynthgenError) as why:
        store.commit(SHARD, shard_writer.samples(1), {})
    monkeypatch.undo()
    if code == errno.ENOSPC:
        assert "no space left to write" in str(why.value)
        assert "run the same command again" in str(why.value)
    assert everything(store.root) == ([SHARD.relative_path] if before else [])
    if before:
        assert list(store.read_samples(SHARD)) == shard_writer.samples(0)
    store.commit(SHARD, shard_writer.samples(1), {})
    assert list(store.read_samples(SHARD)) == shard_writer.samples(1)


def test_an_interrupted_commit_leaves_nothing_behind(store, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.commit(SHARD, [], {})
    assert everything(store.root) == []


def test_the_order_is_write_sync_rename_sync(store, monkeypatch):
    """A rename that reaches the disk before the content would make an empty shard of a power cut."""
    told = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        "os.fsync", lambda handle: (told.append(str(Path(f"/proc/self/fd/{handle}").readlink())), real_sync(handle))
    )
    monkeypatch.setattr("os.replace", lambda a, b: (told.append("rename"), real_replace(a, b)))
    path = store.commit(SHARD, [], {})
    folders = [path.parents[4], path.parents[3], path.parents[2], path.parents[1]]
    assert told[:4] == [str(folder) for folder in folders], "a new name in each of them"
    again = [f".{path.name}", "rename", path.parent.name]
    assert [Path(t).name.rsplit(".", 2)[0] for t in told[4:]] == again
    told.clear()
    store.commit(SHARD, [], {})
    assert [Path(t).name.rsplit(".", 2)[0] for t in told] == again


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / ("x" * 300)):
        with pytest.raises(SynthgenError, match=r"cannot write .*; (move it away, or )?choose another --store"):
            ShardStore(root).commit(SHARD, [], {})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, where that may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    ) if shutil.which("mount") else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip(f"cannot mount a small disk here: {made.stderr.strip() if made else 'no mount command'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def large(index: int) -> list[Sample]:
    """Samples that zstd cannot make small: 300 kB."""
    noise = random.Random(index)
    return [Sample(i, noise.randbytes(300).hex(), noise.randbytes(300).hex(), 1, 1) for i in range(500)]


def test_a_full_disk_is_a_sentence_and_harms_nothing(small_disk):
    store = ShardStore(small_disk / "store")
    committed = []
    with pytest.raises(SynthgenError, match=r"no space left to write .*00\d\d\d-of-00012\.parquet; make room and run"):
        for index in range(12):
            store.commit(dataclasses.replace(SHARD, index=index), large(index), {})
            committed.append(index)
    assert 1 <= len(committed) < 12
    assert [shard.index for shard in store.list_shards("d", "train", "masks")] == committed
    for shard in store.list_shards("d", "train", "masks"):
        assert list(store.read_samples(shard)) == large(shard.index)
    assert len(everything(store.root)) == len(committed)
    (store.root / SHARD.in_layer("masks").relative_path).unlink(missing_ok=True)
    (store.root / dataclasses.replace(SHARD, index=0).relative_path).unlink()
    store.commit(dataclasses.replace(SHARD, index=len(committed)), large(len(committed)), {})


def test_a_read_only_disk_is_a_sentence(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SynthgenError, match=r"cannot write .* \(Read-only file system\); choose another --store"):
        ShardStore(small_disk / "store").commit(SHARD, [], {})


# --- a store that vanishes -------------------------------------------------------------------------------------------


@pytest.fixture
def share(small_disk: Path) -> Iterator[Path]:
    """A mount point that the test may unmount; it is mounted again at the end."""
    yield small_disk
    if not small_disk.is_mount():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small_disk)], check=True)


def unmount(share: Path) -> None:
    subprocess.run(["umount", str(share)], check=True)


@pytest.mark.parametrize("root", ["", "store"])
def test_an_unmounted_store_is_not_created_again_below_its_mount_point(share, root):
    store = ShardStore(share / root)
    store.create_root()
    store.create_layer("d", "train", "masks")
    store.commit(SHARD, [], {})
    unmount(share)
    for _ in range(2):
        with pytest.raises(FailedRunError, match=r"has gone during the run .*; if its disk was unmounted, mount it ag"):
            store.commit(SHARD, [], {})
        with pytest.raises(FailedRunError, match="has gone during the run"):
            ShardStore(share / "store").create_layer("d", "train", "captions")
    assert list(share.iterdir()) == []


def test_an_older_store_below_the_mount_point_is_not_written_either(share):
    """An earlier version may have left one there."""
    store = ShardStore(share)
    unmount(share)
    below = store.layer_folder("d", "train", "masks")
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(share)], check=True)
    store.create_layer("d", "train", "masks")
    store.commit(SHARD, [], {})
    unmount(share)
    with pytest.raises(FailedRunError, match=f"{below} has gone during the run .another disk is in its place.; if its"):
        store.commit(SHARD, [], {})
    assert list(below.iterdir()) == []


def test_a_store_that_was_deleted_during_a_run_stays_deleted(store):
    store.create_root()
    store.create_layer("d", "train", "masks")
    shutil.rmtree(store.root)
    with pytest.raises(FailedRunError, match="has gone during the run"):
        store.commit(SHARD, [], {})
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("why", "raised", "words"),
    [
        (pa.ArrowMemoryError("malloc of size 64 failed"), SynthgenError, "cannot be read for lack of memory"),
        (OSError(errno.EMFILE, "Too many"), OSError, "Too many"),
    ],
)
def test_a_machine_at_its_limits_does_not_make_a_shard_damaged(store, monkeypatch, why, raised, words):
    """Else the message would tell the user to delete it."""
    store.commit(SHARD, [], {})

    def fail(*args: object, **kwargs: object) -> None:
        raise why

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", fail)
    with pytest.raises(raised, match=words) as caught:
        store.read_footer(SHARD)
    assert not isinstance(caught.value, DamagedShardError)


# --- small files and scratch -----------------------------------------------------------------------------------------


def test_small_files_are_put_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "status.json"
    path.parent.mkdir()
    atomic.write_text_atomic(path, "äöü")
    monkeypatch.setattr("os.replace", _fails(errno.ENOSPC))
    with pytest.raises(SynthgenError, match="no space left"):
        atomic.write_text_atomic(path, "other")
    assert path.read_text(encoding="utf-8") == "äöü"
    assert list(path.parent.iterdir()) == [path]


def test_lines_are_added(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    path.parent.mkdir()
    atomic.append_line(path, "ä")
    atomic.append_line(path, "b")
    assert path.read_text(encoding="utf-8") == "ä\nb\n"


def test_scratch_is_gone_afterwards_and_tells_only_of_its_own_disk(store, tmp_path):
    store.create_root()
    store.create_layer("d", "train", "masks")
    (store.layer_folder("d", "train", "masks") / "_log").rmdir()
    with store.layer_scratch_folder("d", "train", "masks") as folder:
        (folder / "part").write_bytes(b"x")
    assert not folder.exists()
    with pytest.raises(FileNotFoundError), store.layer_scratch_folder("d", "train", "masks"):
        (tmp_path / "the user's own file.json").read_bytes()
    with pytest.raises(SynthgenError, match="no space left"), store.layer_scratch_folder("d", "train", "masks"):
        _fails(errno.ENOSPC)()
    assert everything(store.root) == []


# --- killed writers --------------------------------------------------------------------------------------------------


def test_leftovers_of_dead_writers_are_removed_and_no_others(store):
    """Under the names of this version, which are locked, and of earlier ones, by their age."""
    store.commit(SHARD, [], {})
    folder = store.layer_folder("d", "train", "masks")
    name = ".00001-of-00012.parquet"
    files = [f"{name}.0123456789abcdef.tmp", f"{name}.host.4711.01234567.tmp", f"{name}.another-host.1.01234567.tmp"]
    folders = [".scratch.0123456789abcdef.tmp", ".scratch.0123456789abcdee.tmp", ".scratch.host.1.89abcdef.tmp"]
    for gone in files:
        (folder / gone).touch()
    for gone in folders:
        (folder / gone).mkdir()
        (folder / gone / "part").touch()
    (folder / folders[0] / ".lock").touch()
    long_ago = time.time() - atomic.STALE_SECONDS - 60
    for path in (folder / files[1], folder / files[2], folder / folders[2] / "part", folder / folders[2]):
        os.utime(path, (long_ago, long_ago))
    kept = [
        f"{name}.host.{os.getpid()}.01234567.tmp",  # of an earlier version, and young
        f"{name}.host.4711.tmp",  # not of our making
        f"{name}.host.pid.01234567.tmp",
        f"{name}.host.{10**30}.01234567.tmp",
        f"{name}.0123456789abcde.tmp",
        ".tmp",
    ]
    for other in kept:
        (folder / other).touch()
        if other != kept[0]:
            os.utime(folder / other, (long_ago, long_ago))
    young = folder / ".scratch.host.2.89abcdef.tmp"  # an old folder with a young file is in use
    young.mkdir()
    (young / "part").touch()
    os.utime(young, (long_ago, long_ago))
    assert store.remove_stale_files("d", "train", "masks") == len(files) + len(folders)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*kept, young.name, Path(SHARD.relative_path).name])
    assert store.remove_stale_files("d", "train", "none") == 0


def start(root: Path, shards: int) -> subprocess.Popen[str]:
    tests = Path(shard_writer.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    return subprocess.Popen(
        [sys.executable, shard_writer.__file__, str(root), str(shards)], stdout=subprocess.PIPE, text=True, env=env
    )


@pytest.mark.slow
def test_two_writers_killed_at_random_moments_ten_times(tmp_path):
    """Both commit the same shards; after each kill every file is whole, and at the end nothing is lost or doubled."""
    shards, moments = 6, random.Random(0)
    store = ShardStore(tmp_path)
    expected = [shard_writer.samples(index) for index in range(shards)]
    left = 0
    for attempt in range(10):
        writers = [start(tmp_path, shards) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            time.sleep(moments.uniform(0, 0.03))
            writer.kill()
        for writer in writers:
            writer.communicate()
            assert writer.returncode == -9
        for shard in store.list_shards("d", "train", "masks"):
            assert list(store.read_samples(shard)) == expected[shard.index]
            footer = {"fingerprint": "f", "schema_version": 1, "identity": identity(expected[shard.index], shard)}
            assert store.read_footer(shard) == footer
        left += store.remove_stale_files("d", "train", "masks")
        assert [n for n in everything(tmp_path) if not n.endswith(".parquet")] == []
        if attempt % 2:  # so that some are killed over new names and some over old ones
            shutil.rmtree(store.layer_folder("d", "train", "masks"))
    assert left, "no writer was killed in the middle of a commit; this test has tested nothing"
    for index in range(shards):
        store.commit(Shard("d", "train", "masks", index, shards), expected[index], {"fingerprint": "f"})
    numbers = [s.image_id for shard in store.list_shards("d", "train", "masks") for s in store.read_samples(shard)]
    assert numbers == list(range(shards * shard_writer.IMAGES))
