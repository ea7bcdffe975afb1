"""`synthgen show`: drawn samples, where they are saved, error messages."""

from __future__ import annotations

import json
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
from fakes import coco_dataset
from PIL import Image

from synthgen.storage.shard_store import ShardStore

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
TOY = """\
name: shapes
store: ../shards
mixture:
  - {shards: boxes/train/captions, task: instance, ratio: 2}
  - {shards: boxes/train/captions, task: referring}
augment: {size: 64}
"""


@pytest.fixture
def manifest(synthgen, tmp_path: Path) -> Path:
    """`manifests/shapes.yaml`, and the layers that it names."""
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    for words in (("masks", *OWN, "--segmenter", "box_fill"), ("captions", *OWN)):
        assert synthgen(*words)[0] == 0
    path = tmp_path / "manifests" / "shapes.yaml"
    path.parent.mkdir()
    path.write_text(TOY)
    return path


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_the_first_images_of_the_stream_lie_in_the_store_and_not_beside_the_manifest(synthgen, manifest, tmp_path):
    code, told = synthgen("show", "manifests/shapes.yaml", "--n", "6")
    assert code == 0, told
    drawn = pictures(tmp_path / "shards/_show/shapes")
    *single, sheet = drawn
    assert sheet == "sheet.png"
    assert [name[:4] for name in single] == ["000-", "001-", "002-", "003-", "004-", "005-"]
    assert [name.split("-")[1] for name in single].count("instance") == 4  # a ratio of two to one
    assert all(f"_show/shapes/{name}" in told for name in drawn)
    assert "boxes/train/captions referring" in told  # what the model saw
    assert [path.name for path in manifest.parent.iterdir()] == ["shapes.yaml"]
    assert [layer for _, _, layer in ShardStore(tmp_path / "shards").list_layers()] == [
        "annotations",
        "captions",
        "masks",
    ]


def test_a_seed_decides_and_is_the_manifests_unless_said(synthgen, manifest, tmp_path):
    for out, *words in (("a",), ("b",), ("c", "--seed", "7"), ("d", "--seed", "0")):
        assert synthgen("show", "manifests/shapes.yaml", "--n", "3", "--out", out, *words)[0] == 0
    manifest.write_text(TOY + "seed: 7\n")
    assert synthgen("show", "manifests/shapes.yaml", "--n", "3", "--out", "e")[0] == 0
    a, b, c, d, e = (pictures(tmp_path / name) for name in "abcde")
    assert same(a, b)
    assert same(a, d)
    assert not same(a, c)
    assert same(c, e)


def test_fewer_pictures_are_the_first_of_more(synthgen, manifest, tmp_path):
    for n in ("2", "5"):
        assert synthgen("show", "manifests/shapes.yaml", "--n", n, "--out", n)[0] == 0
    few, more = pictures(tmp_path / "2"), pictures(tmp_path / "5")
    assert all(np.array_equal(few[name], more[name]) for name in few if name != "sheet.png")


def test_pictures_of_an_earlier_call_are_taken_away_and_nothing_else(synthgen, manifest, tmp_path):
    out = tmp_path / "out"
    for name in ("mine.png", "2024-holiday-x.png", "001-instance-x.jpg", "01-instance-x.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (out / "007-referring-folder.png").mkdir()
    mine = set(out.iterdir())
    for n in (5, 2):
        assert synthgen("show", "manifests/shapes.yaml", "--n", str(n), "--out", "out")[0] == 0
        assert len(set(out.iterdir()) - mine) == n + 1 and mine < set(out.iterdir())


def test_pictures_are_not_kept_until_the_sheet(synthgen, manifest, monkeypatch):
    from synthgen.visualize import training_samples as module

    drawings, most = [], 0
    draw = module.draw_example

    class Drawn(np.ndarray):
        """An array that can be watched."""

    def watched(*given, **more):
        nonlocal most
        drawn = draw(*given, **more).view(Drawn)
        drawings.append(weakref.ref(drawn))
        most = max(most, sum(one() is not None for one in drawings))
        return drawn

    monkeypatch.setattr(module, "draw_example", watched)
    assert synthgen("show", "manifests/shapes.yaml", "--n", "8")[0] == 0
    assert most <= 2


def test_the_stream_is_that_of_the_trainers_only_reader(synthgen, manifest, tmp_path):
    from synthgen.dataloading.manifest import load_manifest
    from synthgen.dataloading.mixture import Mixture
    from synthgen.visualize.training_samples import draw_example

    assert synthgen("show", "manifests/shapes.yaml", "--n", "3", "--out", "a")[0] == 0
    given = load_manifest(manifest)
    drawn = [image for name, image in pictures(tmp_path / "a").items() if name != "sheet.png"]
    for (example, place, key), image in zip(Mixture(given, reader_id=0, num_readers=1), drawn, strict=False):
        source = given.mixture[place]
        assert np.array_equal(draw_example(example, task=source.task, source=source.shards, image_key=key), image)


def test_a_file_of_any_name_is_a_manifest(synthgen, manifest, tmp_path):
    (manifest.parent / "toy").write_text(TOY)
    assert synthgen("show", "manifests/toy", "--n", "1", "--out", "a")[0] == 0
    (manifest.parent / "toy.YML").write_text(TOY)
    assert synthgen("show", "manifests/toy.YML", "--n", "1", "--out", "a")[0] == 0


def test_the_store_is_the_command_lines_then_the_manifests_then_the_environments(synthgen, manifest, monkeypatch):
    (manifest.parents[1] / "shards").rename(manifest.parents[1] / "moved")
    show = ("show", "manifests/shapes.yaml", "--n", "1", "--out", "a")
    monkeypatch.setenv("SYNTHGEN_STORE", "moved")
    assert synthgen(*show)[0] == 2  # the manifest's own, where nothing lies now
    assert synthgen(*show, "--store", "moved")[0] == 0
    manifest.write_text(TOY.replace("store: ../shards\n", ""))
    assert synthgen(*show)[0] == 0
    monkeypatch.setenv("SYNTHGEN_STORE", "elsewhere")
    assert synthgen(*show)[0] == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("manifests/none.yaml",), r"manifests/none\.yaml"),
        (("manifests",), r"no layer 'manifests' in shards; .*DATASET/SPLIT/LAYER"),
        (("manifests/shapes",), r"no layer 'manifests/shapes' in shards; .*FILE\.yaml"),
        (("manifests/shapes.yaml", "--images", "photos"), r"--images and --image are for layers"),
        (("manifests/shapes.yaml", "--image", "0001.png"), r"--images and --image are for layers"),
        (("manifests/shapes.yaml", "--store", "nowhere"), r"boxes/train/captions.* nowhere"),
        (("manifests/shapes.yaml", "--out", "boxes.json"), r"cannot write boxes\.json/.* choose another --out"),
        (("boxes.json",), r"boxes\.json"),
    ],
)
def test_each_mistake_has_its_sentence(synthgen, manifest, tmp_path, words: tuple[str, ...], sentence: str) -> None:
    code, told = synthgen("show", *words)
    assert code == 2, told
    assert re.search(sentence, told), told
    assert "Traceback" not in told


def test_mistakes_in_the_manifest_are_reported_all_at_once(synthgen, manifest):
    manifest.write_text(TOY.replace("task: instance", "task: instnce").replace("ratio: 2", "ratio: -2"))
    code, told = synthgen("show", "manifests/shapes.yaml")
    assert code == 2
    assert re.search(r"mixture\.0\.task: .*did you mean 'instance'", told), told
    assert "mixture.0.ratio" in told


def test_images_that_are_gone_are_named(synthgen, manifest, tmp_path):
    (tmp_path / "photos/0003.png").unlink()
    code, told = synthgen("show", "manifests/shapes.yaml", "--n", "12", "--out", "a")
    assert code == 0, told
    assert "    0003.png: " in told
    assert len(pictures(tmp_path / "a")) == 13


def test_an_overlay_shows_its_mask(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=1, objects=1)
    synthgen("masks", *OWN, "--segmenter", "box_fill")
    synthgen("show", "boxes/train/masks", "--out", "with")
    synthgen("show", "boxes/train/annotations", "--out", "without")
    with_mask, without = (Image.open(next((tmp_path / name).glob("1-*.png"))) for name in ("with", "without"))
    box = json.loads((tmp_path / "boxes.json").read_text())["annotations"][0]["bbox"]
    scale = 1024 / 96
    middle = (round((box[0] + box[2] / 2) * scale), round((box[1] + box[3] / 2) * scale))
    corner = (round(box[0] * scale) // 2, round((box[1] + box[3] * 0.5) * scale))
    assert with_mask.getpixel(middle) != without.getpixel(middle)
    assert with_mask.getpixel(corner) == without.getpixel(corner)
