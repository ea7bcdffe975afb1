"""Leakage checks: excluded keys, layers with missing shards, real excerpts that overlap."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import layer_kinds
from fakes.large_layers import commit_empty_images

from synthgen.cli.main import app
from synthgen.dataloading.leakage import image_keys
from synthgen.dataloading.leakage.same_files import ImagePaths
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import Shard, ShardStore


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


def test_so_it_is_where_files_are_compared(tmp_path: Path) -> None:
    """And the 1,000 are found by their places, though no key is shared."""
    store = ShardStore(tmp_path)
    for index in range(20):
        commit_empty_images(store, index, 20, 10_000)
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
