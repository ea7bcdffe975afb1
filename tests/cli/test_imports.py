"""`synthgen import-masks`: what it prints, its exit codes, what hostile files can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import foreign_masks
from fakes.command_result import CommandResult
from fakes.foreign_masks import layer_files

Command = Callable[..., CommandResult]


@pytest.fixture
def synthgen(typed: Callable[..., tuple[int, str, str]]) -> Command:
    return lambda *words: CommandResult(*typed(*words))


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    world = foreign_masks.write_world(tmp_path)
    (tmp_path / "masks.json").write_text(json.dumps(foreign_masks.with_masks(world)))
    return world


def test_a_layer_and_single_masks(synthgen: Command, tmp_path: Path, world: dict[str, Any]) -> None:
    done = synthgen("import-masks", "masks.json", "--dataset", "boxes", "--model", "sam2")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "boxes/train/imported: 24 masks for 24 boxes on 8 images; 3 of 3 shards written",
        "next: synthgen show boxes/train/imported",
    ]
    again = synthgen("import-masks", "masks.json", "--dataset", "boxes", "--model", "sam2")
    assert again.code == 0 and "every shard was there" in again.out
    assert "made by  import match=auto min_box_iou=0.5 model=sam2" in synthgen("status").out
    drawn = synthgen("captions", "boxes.json", "--images", "photos", "--reads", "imported", "--captioner", "attributes")
    assert drawn.code == 0, drawn.err
    content = foreign_masks.with_masks(world)
    content["annotations"][3]["segmentation"] = foreign_masks.coco_rle(
        [*world["annotations"][3]["bbox"][:2], *(side - 3 for side in world["annotations"][3]["bbox"][2:])]
    )
    (tmp_path / "new.json").write_text(json.dumps(content))
    done = synthgen("import-masks", "new.json", "--into", "boxes/train/imported")
    assert done.code == 0, done.err
    assert "boxes/train/imported: 1 mask replaced, 23 as they were; 1 of 3 shards written" in done.out
    told = synthgen("status").out
    assert told.count("stale    1 shards") == 1
    assert "1 shard again" in synthgen("captions", "boxes.json", "--images", "photos", "--reads", "imported").out
    assert "stale" not in synthgen("status").out


def test_unused_masks_are_printed_with_reasons(synthgen: Command, tmp_path: Path, world: dict[str, Any]) -> None:
    content = foreign_masks.with_masks(world)
    content["annotations"][0] |= {"id": 900, "segmentation": foreign_masks.coco_rle([1, 1, 3, 3])}
    content["images"][7]["file_name"] = "\x1b[31mother.png"
    (tmp_path / "masks.json").write_text(json.dumps(content))
    done = synthgen("import-masks", "masks.json", "--dataset", "boxes/train", "--layer", "two")
    assert done.code == 0, done.err
    assert "4  no_imported_mask: boxes that the file has no fitting mask for" in done.out
    assert "  4 masks of the file not used:" in done.out
    assert "3  no_image: the dataset has no image of this id or name (e.g. annotation 22 of image 8)" in done.out
    assert "1  no_box: " in done.out and "mask 900 of 0001.png" in done.out
    assert "\x1b" not in done.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one of the two"),
        (("--dataset", "boxes", "--into", "boxes/train/masks"), "one of the two"),
        (("--dataset", "other"), "no layer other/annotations in shards"),
        (("--into", "boxes"), "is not DATASET/SPLIT/LAYER"),
        (("--into", "boxes/train/annotations"), "made from the dataset's own files"),
        (("--into", "boxes/train/masks", "--layer", "foo"), "layer names a new layer"),
        (("--dataset", "boxes", "--model", "a\nb"), "cannot name a model"),
        (("--dataset", "boxes", "--layer", "human"), "choose another --layer"),
        (("--dataset", "boxes", "--layer", "../../x"), "cannot name a dataset, split or layer"),
    ],
)
def test_wrong_input_writes_nothing(
    synthgen: Command, tmp_path: Path, world: dict[str, Any], words: tuple[str, ...], message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = synthgen("import-masks", "masks.json", *words)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_no_mask_for_any_box(synthgen: Command, tmp_path: Path, world: dict[str, Any]) -> None:
    one = {**foreign_masks.results(world)[0], "segmentation": foreign_masks.coco_rle([1, 1, 3, 3])}
    (tmp_path / "masks.json").write_text(json.dumps([one]))
    done = synthgen("import-masks", "masks.json", "--dataset", "boxes")
    assert done.code == 1 and "0 masks for 24 boxes" in done.out and "next:" not in done.out


def test_links_and_names_in_a_folder_leave_it_nowhere(synthgen: Command, tmp_path: Path, world: dict[str, Any]) -> None:
    foreign_masks.write_binary_masks(tmp_path / "maps", world)
    (tmp_path / "maps" / "%2e%2e%2f1.png").write_bytes(b"x")
    (tmp_path / "maps" / "<img src=x onerror=alert(1)>.png").write_bytes(b"x")
    (tmp_path / "maps" / "loop").symlink_to(tmp_path / "maps")
    done = synthgen("import-masks", "maps", "--dataset", "boxes")
    assert done.code == 0, done.err
    assert "24 masks for 24 boxes" in done.out and "2  no_image" in done.out
    assert len(layer_files(tmp_path / "shards", "imported")) == 3
