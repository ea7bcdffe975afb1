"""Lists of image keys: written by `exclude`, read back, hostile files, scans of all keys."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from fakes import layer_kinds
from fakes.large_layers import commit_empty_images
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.dataloading.leakage import image_keys
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import Shard, ShardStore

KEYS = st.from_regex(r"[a-z][a-z0-9_.-]{0,9}/[a-z0-9/._ ]{0,9}[a-z0-9]", fullmatch=True)


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


def test_memory_is_that_of_the_evaluated_layers(tmp_path: Path) -> None:
    """A layer of 200,000 keys is held against 1,000 in the memory of a row group of keys, and eight bytes a key."""
    store = ShardStore(tmp_path)
    count, size = 20, 10_000
    for index in range(count):
        commit_empty_images(store, index, count, size)
    shards = store.list_shards("many", "train", "annotations")
    measured = {"few": frozenset(f"many/{i:012d}" for i in range(0, 200_000, 200))}
    list(image_keys.iter_image_keys(store, shards[:1]))  # what Arrow holds on to is not of this test
    tracemalloc.start()
    found = image_keys.scan_source_keys(store, shards, exclude_lists={}, eval_keys=measured)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.num_images, found.num_shared["few"]) == (200_000, 1_000)
    assert peak < 5 * 2**20, "all keys are 13 MiB"
