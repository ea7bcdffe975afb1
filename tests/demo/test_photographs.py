"""The demo's boxes fit its photographs, and have the two kinds of errors that `doctor` shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from synthgen.dataloading.manifest import load_manifest
from synthgen.demo import photographs
from synthgen.errors import SynthgenError


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    laid = photographs.write_demo_files(tmp_path_factory.mktemp("demo") / "new" / "folder")
    return json.loads(laid.annotations.read_text()), laid.images


def test_every_image_is_there_and_of_the_stated_size(laid_out):
    coco, images = laid_out
    assert 5 <= len(coco["images"]) <= 7
    assert sorted(p.name for p in images.iterdir()) == sorted(image["file_name"] for image in coco["images"])
    for image in coco["images"]:
        with Image.open(images / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"]), image["file_name"]


def test_ids_hang_together(laid_out):
    coco, _ = laid_out
    ids = [a["id"] for a in coco["annotations"]]
    assert len(set(ids)) == len(ids) == 25
    assert {a["image_id"] for a in coco["annotations"]} == {image["id"] for image in coco["images"]}
    assert {a["category_id"] for a in coco["annotations"]} == {c["id"] for c in coco["categories"]}


def test_exactly_one_crowd_and_one_box_over_the_border(laid_out):
    coco, _ = laid_out
    size = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}

    def reaches_over(annotation: dict) -> bool:
        x, y, w, h = annotation["bbox"]
        width, height = size[annotation["image_id"]]
        assert w > 0 and h > 0 and x < width and y < height
        return x < 0 or y < 0 or x + w > width or y + h > height

    assert [a["id"] for a in coco["annotations"] if a["iscrowd"]] == [18]
    assert [a["id"] for a in coco["annotations"] if reaches_over(a)] == [3]


def test_twice_is_once(tmp_path):
    first = photographs.write_demo_files(tmp_path)
    assert photographs.write_demo_files(tmp_path) == first


def test_a_manifest_that_somebody_has_changed_stays(tmp_path):
    manifest = photographs.write_demo_files(tmp_path).preview_manifest
    assert manifest.read_bytes() == photographs.PREVIEW_MANIFEST.read_bytes()
    manifest.write_text("name: mine\n")
    photographs.write_demo_files(tmp_path)
    assert manifest.read_text() == "name: mine\n"


def test_the_manifest_is_sound_and_speaks_of_what_the_demo_makes(tmp_path):
    laid = photographs.write_demo_files(tmp_path)
    manifest = load_manifest(laid.preview_manifest)
    assert manifest.store == tmp_path / "shards"
    assert {source.parts[:2] for source in manifest.mixture} == {("demo", "train")}
    assert {source.task for source in manifest.mixture} == {"instance", "referring", "detection", "foreground"}
    learned, measured = load_manifest(laid.train_manifest), load_manifest(laid.eval_manifest)
    assert learned.store == measured.store == manifest.store and learned.eval_size == measured.eval_size
    assert [source.parts for source in learned.mixture] == [source.parts for source in measured.eval]


@pytest.mark.parametrize(("found", "encoder"), [(None, "tiny"), (object(), "minilm")])
def test_its_training_takes_the_words_that_are_installed(tmp_path, monkeypatch, found, encoder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    assert load_manifest(photographs.write_demo_files(tmp_path).train_manifest).model.text_encoder == encoder


def test_every_photograph_that_ships_has_boxes_and_a_licence(laid_out):
    coco, _ = laid_out
    shipped = {path.name for path in photographs.IMAGES_FOLDER.iterdir()} - {"LICENSES.md"}
    assert shipped == {image["file_name"] for image in coco["images"]}
    parts = (photographs.IMAGES_FOLDER / "LICENSES.md").read_text(encoding="utf-8").split("\n## ")[1:]
    entries = dict(part.split("\n", 1) for part in parts)
    assert set(entries) == shipped
    for name, entry in entries.items():
        for said in ("- Shows:", "- Origin:", "- Licence:", "- Changed:"):
            assert said in entry, name
        assert "public domain" in entry or "CC0" in entry, name


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SynthgenError, match="choose another folder"):
        photographs.write_demo_files(tmp_path / "file" / "below")
