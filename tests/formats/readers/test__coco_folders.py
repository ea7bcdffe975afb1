"""Folders of COCO JSON files, as exporters lay them out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from synthgen.formats.readers import _coco_folders, coco_json
from synthgen.formats.readers._coco_folders import find_coco_splits, looks_like_coco, split_of_file

EMPTY = json.dumps({"info": {}, "images": [], "annotations": [], "categories": []})


def lay_out(folder: Path, *names: str) -> None:
    """Empty COCO files, and folders for names that end with a slash."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text(EMPTY)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (
            ("test/_annotations.coco.json", "train/_annotations.coco.json", "valid/_annotations.coco.json"),
            {"train": "train", "valid": "valid", "test": "test"},
        ),
        (("_annotations.coco.json",), {"export": ""}),
        (("annotations/instances_default.json", "images/"), {"default": "images"}),
        (
            ("annotations/instances_b.json", "annotations/instances_val.json", "images/b/", "images/val/"),
            {"val": "images/val", "b": "images/b"},
        ),
        (("annotations/instances_train.json", "train/"), {"train": "train"}),
        (("instances_NONE.json",), {"NONE": ""}),
        (("labels.json", "data/"), {"train": "data"}),
        (("boxes.json", "photos/"), {"train": "photos"}),
        (("boxes.json",), {"train": ""}),
        (("annotations/boxes.json", "images/"), {"train": "images"}),
        (("train/labels.json", "train/data/", "test/labels.json"), {"train": "train/data", "test": "test"}),
        (
            ("annotations/train.json", "annotations/val.json", "images/train/", "images/val/"),
            {"train": "images/train", "val": "images/val"},
        ),
        (
            ("pets_test_v2.json", "pets_train2017.json", "train2017/", "images/"),
            {"test": "images", "train2017": "train2017"},
        ),
    ],
)
def test_each_layout_gives_its_splits_and_image_folders(
    tmp_path: Path, names: tuple[str, ...], splits: dict[str, str]
) -> None:
    folder = tmp_path / "export"
    lay_out(folder, *names)
    found = find_coco_splits(folder)
    assert {name: split.image_folder for name, split in found.items()} == {
        name: folder / images for name, images in splits.items()
    }
    assert list(found) == list(splits)  # train first
    assert all(split.annotations.is_file() for split in found.values())
    assert coco_json.recognize(folder) == tuple(splits)
    for split in splits:
        files = coco_json.files(folder, split, None)
        assert files.sources == {"instances": found[split].annotations}
        assert files.image_folder == found[split].image_folder


def test_two_files_without_a_split_in_their_names_are_ambiguous(tmp_path: Path) -> None:
    lay_out(tmp_path, "one.json", "two.json")
    assert find_coco_splits(tmp_path) == {}
    assert coco_json.recognize(tmp_path) is None


@pytest.mark.parametrize(
    "names", [("all.json", "train.json", "val.json"), ("a_train.json", "b_train.json"), ("trainings.json", "vals.json")]
)
def test_files_of_no_split_or_of_the_same_split_are_ambiguous(tmp_path: Path, names: tuple[str, ...]) -> None:
    lay_out(tmp_path, *names)
    assert find_coco_splits(tmp_path) == {}


def test_a_folder_name_that_cannot_name_a_split_is_left_out(tmp_path: Path) -> None:
    lay_out(tmp_path, "train/_annotations.coco.json", "my split!/_annotations.coco.json")
    assert list(find_coco_splits(tmp_path)) == ["train"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"info": {}, "images": []}', True),
        ('\ufeff {"categories" : []}', True),
        ('{"version": "5.0", "flags": {}, "shapes": [], "imagePath": "a.jpg"}', False),
        ('{"info": {}, "categories": {}, "items": []}', False),  # Datumaro
        ('{"images": [], "annotations": [{"segments_info": []}]}', False),  # COCO panoptic
        ('[{"image_id": 1, "bbox": [0, 0, 1, 1]}]', False),
        ("", False),
        ("images: []", False),
    ],
)
def test_the_start_of_a_file_tells_its_format(tmp_path: Path, text: str, expected: bool) -> None:
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    assert looks_like_coco(path) == expected
    assert (coco_json.recognize(path) is not None) == expected


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("valid/_annotations.coco.json", "valid"),
        ("annotations/instances_val2017.json", "val2017"),
        ("boxes.json", "train"),
    ],
)
def test_the_split_of_one_file(name: str, split: str) -> None:
    assert split_of_file(Path("/data/export") / name) == split


def test_a_pipe_among_the_files_blocks_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path, "boxes.json")
    for name in ("pipe.json", "pipe.json.gz", "instances_train.json"):
        os.mkfifo(tmp_path / name)
    assert list(find_coco_splits(tmp_path)) == ["train"]


def test_a_folder_of_too_many_json_files_is_another_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_coco_folders, "MAX_NAMES", 2)
    lay_out(tmp_path, "instances_a.json", "instances_b.json", "instances_c.json")
    assert find_coco_splits(tmp_path) == {}
