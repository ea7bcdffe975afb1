"""`synthgen check` and `synthgen exclude`: output and error messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import coco_dataset, layer_kinds

from synthgen.dataloading.leakage import image_keys


@pytest.fixture
def synthgen(typed):
    return typed


MANIFEST = """
name: mine
mixture:
  - {shards: coco/train2017/scored, task: instance, ratio: 3, min_predicted_iou: 0.7}
  - {shards: vg/train/regions, task: referring}
exclude: [exclude/val.txt]
eval:
  - {shards: coco/val2017/human, task: instance}
"""


def test_from_mistakes_to_ok(synthgen, tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    Path("m.yaml").write_text(MANIFEST.replace("instance, ratio", "instnce, ratio"))
    code, out, err = synthgen("check", "m.yaml")
    assert (code, out) == (2, "")
    assert err == (
        "synthgen: m.yaml has 2 mistakes\n"
        "  mixture.0.task: no task named 'instnce'; did you mean 'instance'?\n"
        "  exclude.0: no file exclude/val.txt; make it: `synthgen exclude LAYER... --out exclude/val.txt`\n"
    )
    Path("m.yaml").write_text(MANIFEST)
    code, out, err = synthgen("exclude", "coco/val2017/human", "--out", "exclude/val.txt")
    assert (code, out, err) == (0, "4 image keys in exclude/val.txt\n", "")
    code, out, err = synthgen("check", "m.yaml")
    assert (code, err) == (0, "")
    assert (
        out
        == """mine, shards in shards

  learned from           task       images  objects  masks  captions  ratio  draws  excluded           kept
  coco/train2017/scored  instance        8       16     16        16      3  75.0%         0  ~50% of masks
  vg/train/regions       referring       8       16      0        16      1  25.0%         2            all

  evaluated on        task      images  objects  masks  captions
  coco/val2017/human  instance       4        8      8         0

padding: batches have ~1.64 times the pixels of their views (~1.09 with group_by_size)

note: mixture.1.task: without masks in this layer, 'referring' learns where, not which pixels

ok: 2 sources of 13 images to learn from, 1 to evaluate on
"""
    )


def test_leakage_is_refused_with_a_remedy(synthgen, tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    Path("m.yaml").write_text(MANIFEST.replace("exclude: [exclude/val.txt]\n", ""))
    code, out, err = synthgen("check", "m.yaml")
    assert (code, out) == (2, "")
    assert err == (
        "synthgen: m.yaml has a mistake\n"
        "  mixture.1: 2 images of vg/train/regions are also in eval.0 coco/val2017/human, e.g. coco/000000000102; "
        "run `synthgen exclude coco/val2017/human --out exclude/coco_val2017.txt`, and add exclude/coco_val2017.txt to "
        "exclude:\n"
    )


def test_the_store_is_the_flags_else_the_manifests_else_the_environments(synthgen, tmp_path: Path, monkeypatch) -> None:
    layer_kinds.write_store(tmp_path / "there")
    Path("m.yaml").write_text("name: x\nmixture: [{shards: coco/train2017/human, task: instance}]\n")
    assert "no shards in shards" in synthgen("check", "m.yaml")[2]
    assert "ok: 1 source of 8 images to learn from\n" in synthgen("check", "m.yaml", "--store", "there/shards")[1]
    monkeypatch.setenv("SYNTHGEN_STORE", "there/shards")
    assert synthgen("check", "m.yaml")[0] == 0
    Path("m.yaml").write_text("name: x\nstore: no\nmixture: [{shards: coco/train2017/human, task: instance}]\n")
    assert "no shards in no;" in synthgen("check", "m.yaml")[2]
    assert synthgen("check", "m.yaml", "--store", "there/shards")[0] == 0
    assert synthgen("exclude", "vg/train/regions", "--out", "x.txt")[0] == 0


def test_hostile_names_do_not_steer_the_terminal(synthgen, tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    Path("m.yaml").write_text(
        'name: "x\\u202e\\n  mixture.9: forged"\nmixture: [{shards: "a/b\\u200b/c", task: "\\n"}]\n'
    )
    code, _, err = synthgen("check", "m.yaml")
    assert code == 2
    assert len(err.splitlines()) == 4
    assert "\u202e" not in err
    assert "\u200b" not in err


PLACES = [
    (("check", "nix.yaml"), "no manifest nix.yaml; check its name"),
    (("check", "shards"), "shards is a folder; name a manifest"),
    (("check", "x" * 5_000), "choose a shorter name"),
    (("exclude", "coco/val2017/humn", "--out", "x"), "did you mean 'coco/val2017/human'?"),
    (("exclude", "coco/val2017/human", "--out", "/proc/nix/x"), "choose another --out"),
    (("exclude", "coco/val2017/human", "--out", "shards"), "cannot write shards"),
    (("exclude", "coco/val2017/human", "--out", "x" * 5_000), "choose another --out"),
]


@pytest.mark.parametrize(("words", "sentence"), PLACES, ids=[str(i) for i in range(len(PLACES))])
def test_wrong_places_are_a_sentence(synthgen, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    layer_kinds.write_store(tmp_path)
    code, out, err = synthgen(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_ingest_says_where_the_images_are(synthgen, tmp_path: Path) -> None:
    """A layer of human boxes was made by no job, so only `ingest` can know."""
    coco_dataset.write_coco_dataset(tmp_path, images=3)
    own = ("--dataset", "coco-json", "--annotations", "boxes.json")
    assert synthgen("ingest", *own, "--images", "photos")[0] == 0
    Path("m.yaml").write_text("name: x\nmixture: [{shards: boxes/train/annotations, task: detection}]\n")
    assert synthgen("check", "m.yaml")[0] == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    assert "where are the images of boxes/train? Add images: FOLDER" in synthgen("check", "m.yaml")[2]
    assert synthgen("ingest", *own, "--images", "moved")[0] == 0  # the layer is there, and the word is new
    assert synthgen("check", "m.yaml")[0] == 0


def test_both_show_an_example(synthgen) -> None:
    for command in ("check", "exclude"):
        code, out, _ = synthgen(command, "--help")
        assert code == 0
        assert re.search(rf"Example:\n +synthgen {command} \S+", out)


def test_a_list_is_what_the_manifest_reads(synthgen, tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    synthgen("exclude", "vg/train/regions", "coco/val2017/human", "--out", "x.txt")
    assert len(image_keys.read_exclude_list(Path("x.txt"))) == 10
