"""`synthgen export`: from masks to a trainer's folder, what it says, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset
from fakes.command_result import CommandResult

Command = Callable[..., CommandResult]


@pytest.fixture
def synthgen(typed: Callable[..., tuple[int, str, str]]) -> Command:
    return lambda *words: CommandResult(*typed(*words))


@pytest.fixture
def masks(synthgen: Command, tmp_path: Path) -> str:
    """A layer of masks of eight images with 24 boxes."""
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    told = synthgen("masks", "boxes.json", "--images", "photos", "--segmenter", "box_fill")
    assert told.code == 0, told.text
    return "boxes/train/masks"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_next_command_of_masks_exports_them(synthgen: Command, masks: str, tmp_path: Path) -> None:
    told = synthgen("masks", "boxes.json", "--images", "photos", "--segmenter", "box_fill")
    words = told.out.splitlines()[-1].removeprefix("next: synthgen ").split()
    assert words[:2] == ["export", masks]
    told = synthgen(*words)
    assert told.code == 0, told.text
    assert told.out.splitlines()[0] == "boxes-coco: coco, split train: 8 images, 24 annotations"
    assert "masks: 24 machine (box_fill); 3 categories" in told.out
    content = read(tmp_path / "boxes-coco/annotations/instances_train.json")
    assert all((tmp_path / "boxes-coco/images/train" / image["file_name"]).is_file() for image in content["images"])


def test_a_map_of_categories_comes_from_flags_and_a_file(synthgen: Command, masks: str, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("ball: round\nplate: round\n")
    told = synthgen("export", masks, "--to", "coco", "--out", "out", "--map-file", "map.yaml", "--map", "coin=")
    assert told.code == 0, told.text
    content = read(tmp_path / "out/annotations/instances_train.json")
    assert content["categories"] == [{"id": 1, "name": "round"}]
    assert "a category that the map leaves out" in told.out
    (tmp_path / "map.yaml").write_text("ball: [a, b]\n")
    told = synthgen("export", masks, "--to", "coco", "--out", "two", "--map-file", "map.yaml")
    assert told.code == 2 and "the new name of 'ball' is not a text" in told.err
    told = synthgen("export", masks, "--to", "coco", "--out", "two", "--map", "coin")
    assert told.code == 2 and "--map coin should be OLD=NEW" in told.err
    told = synthgen("export", masks, "--to", "coco", "--out", "two", "--map", "con=x")
    assert told.code == 2 and "did you mean 'coin'?" in told.err


def test_scores_and_categories_choose_annotations(synthgen: Command, masks: str, tmp_path: Path) -> None:
    told = synthgen("export", masks, "--to", "coco", "--out", "out", "--category", "ball", "--min-box-iou", "0.5")
    assert told.code == 0, told.text
    content = read(tmp_path / "out/annotations/instances_train.json")
    assert {a["category_id"] for a in content["annotations"]} == {1}
    assert "a score or category that was not asked for" in told.out
    told = synthgen("export", masks, "--to", "coco", "--out", "none", "--min-stability-score", "1")
    assert told.code == 1, "nothing is left"


def test_wrong_input_ends_with_2_and_leaves_nothing(synthgen: Command, masks: str, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    for words, sentence in (
        ((masks, "--to", "coc"), "did you mean 'coco'?"),
        (("boxes/train/nothing", "--to", "coco"), "no layer 'boxes/train/nothing'"),
        ((masks, "--to", "coco", "--val", "0.6", "--test", "0.6"), "leave nothing for training"),
        ((masks, "--to", "coco", "--image-mode", "embed"), "does not suit coco"),
        ((masks, "--to", "coco", "-O", "size=3"), "size"),
        ((masks, "--to", "coco", "--images", "nowhere"), "no folder nowhere"),
        ((masks, "--to", "coco", "--map-file", "missing.yaml"), "missing.yaml"),
    ):
        told = synthgen("export", *words, "--out", "out")
        assert told.code == 2 and sentence in told.err, told.text
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    told = synthgen("export", masks, "--to", "coco", "--out", "full", "--overwrite")
    assert told.code == 2 and "not an export of synthgen" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "full"])


def test_missing_images_are_counted_and_end_with_1(synthgen: Command, masks: str, tmp_path: Path) -> None:
    next((tmp_path / "photos").iterdir()).unlink()
    told = synthgen("export", masks, "--to", "coco", "--out", "out")
    assert told.code == 1 and "left out: 1 image: no image file of this name; check --images" in told.out
    assert len(read(tmp_path / "out/annotations/instances_train.json")["images"]) == 7


def test_a_layer_that_is_not_finished_is_refused_or_partial(synthgen: Command, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=20)
    assert synthgen("ingest", "boxes.json", "--images", "photos", "--shard-size", "8").code == 0
    told = synthgen("masks", "boxes.json", "--images", "photos", "--segmenter", "box_fill", "--limit", "1")
    assert told.code == 0, told.text
    told = synthgen("export", "boxes/train/masks", "--to", "coco", "--out", "out")
    assert told.code == 2 and "lacks 2 of its shards" in told.err
    told = synthgen("export", "boxes/train/masks", "--to", "coco", "--out", "out", "--partial")
    assert told.code == 0 and "8 images" in told.out, told.text
