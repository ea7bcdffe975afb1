"""Leakage: what is measured on is not learned from, whatever the dataset calls the photograph; on real excerpts too."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import layer_kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.cli.main import app
from synthgen.dataloading.leakage import image_keys
from synthgen.dataloading.leakage.same_files import ImagePaths
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.errors import SynthgenError
from synthgen.records.box_table import BoxColumns
from synthgen.storage.shard_store import Shard, ShardStore

KEYS = st.from_regex(r"[a-z][a-z0-9_.-]{0,9}/[a-z0-9/._ ]{0,9}[a-z0-9]", fullmatch=True)


# --- lists -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.sets(KEYS, min_size=1, max_size=30))
def test_a_list_holds_the_keys_of_its_layers(tmp_path_factory: pytest.TempPathFactory, keys: set[str]) -> None:
    folder = tmp_path_factory.mktemp("list")
    store = ShardStore(folder / "shards")
    layer_kinds.write_layer(store, "a/b/c", sorted(keys, reverse=True), layer_kinds.boxed, shards=min(3, len(keys)))
    assert image_keys.write_exclude_list(store, ["a/b/c"], folder / "sub" / "x.txt") == len(keys)
    assert image_keys.read_exclude_list(folder / "sub" / "x.txt") == keys
    lines = (folder / "sub" / "x.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == sorted(keys)


def test_a_list_says_where_it_is_from_and_is_the_same_each_time(tmp_path: Path) -> None:
    store = ShardStore(layer_kinds.write_store(tmp_path))
    names = ["vg/train/regions", "coco/val2017/human"]
    assert image_keys.write_exclude_list(store, names, tmp_path / "a.txt") == 10  # two of COCO's are in both
    assert image_keys.write_exclude_list(store, [*reversed(names), names[0]], tmp_path / "b.txt") == 10
    text = (tmp_path / "a.txt").read_text()
    assert text == (tmp_path / "b.txt").read_text()
    assert "#   synthgen exclude coco/val2017/human: 4 images, fingerprint print of coco/val2017/human\n" in text
    assert "#   synthgen exclude vg/train/regions: 8 images" in text
    assert str(tmp_path) not in text
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_a_list_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ShardStore(layer_kinds.write_store(tmp_path))
    out = tmp_path / "x.txt"
    image_keys.write_exclude_list(store, ["coco/val2017/human"], out)
    before = out.read_text()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        image_keys.write_exclude_list(store, ["vg/train/regions"], out)
    assert out.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "shards", "x.txt"]


WRONG_LAYERS = [
    ("coco/val2017/humans", "did you mean 'coco/val2017/human'"),
    ("coco/val2017", r"name one as DATASET/SPLIT/LAYER"),
    ("../../x", "cannot name a dataset"),
    ("", "name one as DATASET/SPLIT/LAYER"),
    ("coco/train2017/part", "has 1 of 3 shards; let its job end, then list it"),
]


@pytest.mark.parametrize(("name", "sentence"), WRONG_LAYERS)
def test_only_a_whole_layer_is_listed(tmp_path: Path, name: str, sentence: str) -> None:
    store = ShardStore(layer_kinds.write_store(tmp_path))
    with pytest.raises(SynthgenError, match=sentence):
        image_keys.write_exclude_list(store, ["coco/val2017/human", name], tmp_path / "x.txt")
    assert not (tmp_path / "x.txt").exists()


@pytest.mark.parametrize("key", ["a/b\nc", "a/b ", "a/\x1b[2J", "#a/b", "ab", "a/" + "b" * 5_000])
def test_a_key_that_no_line_can_hold_is_refused(tmp_path: Path, key: str) -> None:
    store = ShardStore(tmp_path / "shards")
    layer_kinds.write_layer(store, "a/b/c", [key], layer_kinds.boxed)
    with pytest.raises(SynthgenError, match="cannot stand in a list; rename the image") as why:
        image_keys.write_exclude_list(store, ["a/b/c"], tmp_path / "x.txt")
    assert "\n" not in str(why.value)
    assert not (tmp_path / "x.txt").exists()


def test_lists_by_hand_are_read_with_their_blanks(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbf# words\r\n\r\n  coco/000000000001\t\r\n   # words\nmine/a b.jpg")
    assert image_keys.read_exclude_list(path) == {"coco/000000000001", "mine/a b.jpg"}
    path.write_text("")
    assert image_keys.read_exclude_list(path) == frozenset()


HOSTILE = [
    b"\x00" * 100_000,
    b"\xff\xfe\x00a",
    b"x" * 1_000_000,
    b"root:x:0:0:root:/root:/bin/bash\n" * 5_000,
    b"\x1b[2J/x\n",
    "\u202ea/b\n".encode(),
    b"coco/\xff\n",
]


@pytest.mark.parametrize("content", HOSTILE, ids=[str(row[:8]) for row in HOSTILE])
def test_a_hostile_list_is_one_short_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(SynthgenError, match=r"line 1 .* is no image key.*`synthgen exclude LAYER") as why:
        image_keys.read_exclude_list(tmp_path / "x.txt")
    assert len(str(why.value)) < 500


# --- the look at all keys --------------------------------------------------------------------------------------------

FEW = st.lists(st.sampled_from([f"d/{i}" for i in range(12)]), max_size=20)


@given(keys=FEW, lists=st.lists(FEW, max_size=3), evaluated=st.lists(FEW, max_size=3))
def test_a_scan_counts_as_sets_do(keys: list[str], lists: list[list[str]], evaluated: list[list[str]]) -> None:
    """Against a definition that holds everything at once; keys may repeat, and lists may overlap."""
    names = {("exclude", i): frozenset(one) for i, one in enumerate(lists)}
    measured = {f"e{i}": frozenset(one) for i, one in enumerate(evaluated)}
    found = image_keys.scan_source_keys(_Memory(keys), [_SHARD], exclude_lists=names, eval_keys=measured)
    out = frozenset().union(*names.values())
    assert (found.num_images, found.num_excluded) == (len(keys), sum(key in out for key in keys))
    for at, one in names.items():
        assert bool(found.num_excluded_by_list[at]) == bool(one & set(keys))
    for name, one in measured.items():
        shared = (set(keys) - out) & one
        assert bool(found.num_shared[name]) == bool(shared)
        assert found.shared_examples.get(name) == min(shared, default=None)
        if len(set(keys)) == len(keys):
            assert found.num_shared[name] == len(shared)


_SHARD = Shard("d", "s", "l", 0, 1)


class _Batch:
    def __init__(self, keys: list[str]) -> None:
        self.keys = keys

    def column(self, name: str) -> _Batch:
        assert name == "image_key"
        return self

    def to_pylist(self) -> list[str]:
        return self.keys


class _Memory:
    """What `scan` asks of a store: a column in batches."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys

    def read_columns(self, shard: Shard, names: list[str]) -> list[_Batch]:
        return [_Batch(self.keys[i : i + 5]) for i in range(0, len(self.keys), 5)]


def manifest(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


def test_a_list_that_excludes_nothing_is_a_note(tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    (tmp_path / "x.txt").write_text("coco/999999999999\ncoco/999999999998\n")
    found = check_manifest(
        manifest(tmp_path, "name: x\nmixture: [{shards: coco/train2017/human, task: instance}]\nexclude: [x.txt]"),
        store=tmp_path / "shards",
    )
    assert found.warnings == ("exclude.0: none of its 2 keys is in a source; is it the right list?",)


def test_the_remedy_is_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that the sentence names, typed as they stand there, mend it."""
    layer_kinds.write_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (
        "name: x\nmixture: [{shards: vg/train/regions, task: referring}]\n"
        "eval: [{shards: coco/val2017/human, task: instance}]\n"
    )
    path = manifest(Path(), text)
    with pytest.raises(SynthgenError, match=r"2 images of vg/train/regions are also in eval.0") as why:
        check_manifest(path)
    told = str(why.value)
    assert told.count("\n") == 1
    command = told.split("`")[1].split()
    assert command[0] == "synthgen"
    app(command[1:], standalone_mode=False)
    added = told.rsplit("and add ", 1)[1].removesuffix(" to exclude:")
    manifest(Path(), f"{text}exclude: [{added}]")
    assert [row.num_excluded for row in check_manifest(path).sources] == [2, 0]


def test_a_missing_list_does_not_tell_everything_twice(tmp_path: Path) -> None:
    """What its list would take out is not told as leakage beside the list."""
    layer_kinds.write_store(tmp_path)
    text = (
        "name: x\nmixture: [{shards: vg/train/regions, task: referring}]\nexclude: [coco_val2017.txt]\n"
        "eval: [{shards: coco/val2017/human, task: instance}]\n"
    )
    with pytest.raises(SynthgenError) as why:
        check_manifest(manifest(tmp_path, text), store=tmp_path / "shards")
    (line,) = str(why.value).splitlines()[1:]
    assert "exclude.0: no file" in line
    assert f"`synthgen exclude coco/val2017/human --out {tmp_path}/coco_val2017.txt --store {tmp_path}/shards`" in line


def test_an_evaluated_layer_with_a_hole_may_hide_anything(tmp_path: Path) -> None:
    store = ShardStore(tmp_path / "shards")
    layer_kinds.write_layer(
        store, "a/train/human", layer_kinds.coco_keys(*range(10)), layer_kinds.human, images=tmp_path / "images"
    )
    layer_kinds.write_layer(
        store,
        "a/val/human",
        layer_kinds.coco_keys(*range(20, 30)),
        layer_kinds.human,
        shards=5,
        images=tmp_path / "images",
    )
    text = (
        "name: x\nmixture: [{shards: a/train/human, task: instance}]\neval: [{shards: a/val/human, task: instance}]\n"
    )
    check_manifest(manifest(tmp_path, text), store=tmp_path / "shards")
    (tmp_path / "shards" / Shard("a", "val", "human", 3, 5).relative_path).unlink()
    with pytest.raises(
        SynthgenError, match=r"eval.0.shards: 1 of 5 shards of a/val/human are missing, .* its job go on"
    ):
        check_manifest(manifest(tmp_path, text), store=tmp_path / "shards")


def test_only_the_share_that_is_taken_counts(tmp_path: Path) -> None:
    store = ShardStore(tmp_path / "shards")
    images = tmp_path / "images"
    layer_kinds.write_layer(
        store, "a/train/human", layer_kinds.coco_keys(*range(10)), layer_kinds.human, shards=5, images=images
    )
    layer_kinds.write_layer(store, "a/val/human", layer_kinds.coco_keys(8, 9, 20), layer_kinds.human, images=images)
    text = (
        "name: x\nmixture: [{{shards: a/train/human, task: instance, share: {}}}]\n"
        "eval: [{{shards: a/val/human, task: instance}}]\n"
    )
    assert (
        check_manifest(manifest(tmp_path, text.format(0.8)), store=tmp_path / "shards").sources[0].stats.count("images")
        == 8
    )
    with pytest.raises(SynthgenError, match=r"mixture.0: 2 images of a/train/human are also in eval.0 a/val/human"):
        check_manifest(manifest(tmp_path, text.format(1)), store=tmp_path / "shards")


def test_real_excerpts_that_overlap_are_refused(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """LVIS's val has three of the photographs that COCO's val2017 excerpt has, under the same keys."""
    tiny, lvis = shared("data/coco_tiny"), shared("data/lvis_excerpt")
    store = ["--store", str(tmp_path / "shards")]
    file, photos = str(tiny / "annotations/instances_val2017.json"), ["--images", str(tiny / "val2017")]
    own = ["--split", "val2017", "--layer", "human"]
    app(["ingest", "--dataset", "coco", "--annotations", file, *photos, *own, *store], standalone_mode=False)
    file = str(lvis / "lvis_val_100.json")
    own = ["--split", "val", "--layer", "human", "--images", str(tiny)]
    app(["ingest", "--dataset", "lvis", "--annotations", file, *own, *store], standalone_mode=False)
    text = (
        "name: real\nmixture: [{shards: lvis/val/human, task: instance}]\n"
        "eval: [{shards: coco/val2017/human, task: instance}]\n"
    )
    with pytest.raises(SynthgenError) as why:
        check_manifest(manifest(tmp_path, text), store=tmp_path / "shards")
    (line,) = str(why.value).splitlines()[1:]
    assert "mixture.0: 3 images of lvis/val/human are also in eval.0 coco/val2017/human" in line
    assert "e.g. coco/000000223747" in line

    app(["exclude", "coco/val2017/human", "--out", str(tmp_path / "exclude/val.txt"), *store], standalone_mode=False)
    found = check_manifest(manifest(tmp_path, f"{text}exclude: [exclude/val.txt]"), store=tmp_path / "shards")
    assert [row.num_excluded for row in found.sources] == [3, 0]
    assert {"coco/000000223747", "coco/000000346638", "coco/000000359937"} < found.excluded_keys


def test_memory_is_that_of_the_evaluated_layers(tmp_path: Path) -> None:
    """A layer of 200,000 keys is held against 1,000 in the memory of a row group of keys, and eight bytes a key."""
    store = ShardStore(tmp_path)
    count, size = 20, 10_000
    for index in range(count):
        _boxes(store, index, count, size)
    shards = store.list_shards("many", "train", "annotations")
    measured = {"few": frozenset(f"many/{i:012d}" for i in range(0, 200_000, 200))}
    list(image_keys.iter_image_keys(store, shards[:1]))  # what Arrow holds on to is not of this test
    tracemalloc.start()
    found = image_keys.scan_source_keys(store, shards, exclude_lists={}, eval_keys=measured)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.num_images, found.num_shared["few"]) == (200_000, 1_000)
    assert peak < 5 * 2**20, "all keys are 13 MiB"


def test_so_it_is_where_files_are_compared(tmp_path: Path) -> None:
    """And the 1,000 are found by their places, though no key is shared."""
    store = ShardStore(tmp_path)
    for index in range(20):
        _boxes(store, index, 20, 10_000)
    shards = store.list_shards("many", "train", "annotations")
    theirs = {f"{tmp_path.resolve()}/many/{i:012d}": f"few/{i:012d}" for i in range(0, 200_000, 200)}
    list(image_keys.iter_image_rows(store, shards[:1]))
    tracemalloc.start()
    found = image_keys.scan_source_keys(
        store,
        shards,
        exclude_lists={},
        eval_keys={"few": frozenset(theirs.values())},
        same_file_index=image_keys.SameFileIndex(ImagePaths(tmp_path), {"few": theirs}),
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.num_images, found.num_shared["few"], found.shared_examples) == (200_000, 1_000, {})
    assert found.same_file_examples == {"few": ("many/000000000000", "few/000000000000")}
    assert peak < 5 * 2**20, "all keys and names are 26 MiB"


def _boxes(store: ShardStore, index: int, count: int, size: int) -> None:
    ids = np.arange(index * size, (index + 1) * size)
    keys = [f"many/{i:012d}" for i in ids]
    nothing = np.zeros(0, np.int64)
    columns = BoxColumns(
        image_id=ids,
        image_key=keys,
        file_name=keys,
        height=np.full(size, 8, np.int32),
        width=np.full(size, 8, np.int32),
        error=[None] * size,
        offsets=np.zeros(size + 1, np.int32),
        id=nothing,
        bbox=np.zeros((0, 4)),
        category=nothing.astype(np.int32),
        categories=["dog"],
        iscrowd=nothing.astype(bool),
        isthing=nothing.astype(bool),
        flags={},
    )
    store.commit(Shard("many", "train", "annotations", index, count), columns, {"fingerprint": "f"})
