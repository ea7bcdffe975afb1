"""Recognising the format of a dataset by its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats import recognition
from synthgen.formats.recognition import find_splits, recognize_as, recognize_dataset

EMPTY = {"images": [], "annotations": [], "categories": []}


def write(path: Path, content: object = EMPTY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_file_is_recognised_with_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "boxes.json")
    found = recognize_dataset(path)
    assert (found.plugin, found.title, found.splits) == ("coco_json", "COCO JSON", ("train",))
    assert (found.root, found.annotations) == (tmp_path, path)


def test_a_release_precedes_the_format_that_it_is_written_in(tmp_path: Path) -> None:
    write(tmp_path / "annotations/instances_val2017.json")
    assert recognize_as("coco_json", tmp_path) is not None
    found = recognize_dataset(tmp_path)
    assert (found.plugin, found.splits, found.is_release) == ("coco", ("val2017",), True)


def test_several_releases_in_one_folder_are_named(tmp_path: Path) -> None:
    write(tmp_path / "annotations/instances_val2017.json")
    write(tmp_path / "annotations/lvis_v1_val.json")
    with pytest.raises(SynthgenError, match=r"COCO \(--dataset coco\), LVIS \(--dataset lvis\); choose one"):
        recognize_dataset(tmp_path)


def test_an_unknown_layout_gets_a_list_of_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(SynthgenError) as caught:
            recognize_dataset(path)
        heading, *lines = str(caught.value).splitlines()
        assert heading.startswith(f"{path} is not recognised as a dataset")
        assert "  Objects365: zhiyuan_objv2_train.json or zhiyuan_objv2_val.json" in lines
        assert any(line.startswith("  COCO JSON: a JSON file with 'images'") for line in lines)


def test_a_folder_of_datasets_names_them(tmp_path: Path) -> None:
    write(tmp_path / "a/zhiyuan_objv2_val.json")
    write(tmp_path / "b/annotations/lvis_v1_val.json")
    (tmp_path / "c").mkdir()
    with pytest.raises(SynthgenError) as caught:
        recognize_dataset(tmp_path)
    inside = f"{tmp_path / 'a'} (Objects365), {tmp_path / 'b'} (LVIS)"
    assert str(caught.value) == f"{tmp_path} is no dataset itself; name the folder of one that it holds: {inside}"


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match=r"no file or folder .*nothing"):
        recognize_dataset(tmp_path / "nothing")


def test_the_splits_of_a_known_reader_are_those_with_files(tmp_path: Path) -> None:
    write(tmp_path / "zhiyuan_objv2_val.json")
    assert find_splits("objects365", tmp_path, None) == ("val",)
    assert find_splits("objects365", tmp_path, tmp_path / "zhiyuan_objv2_val.json") == ("train",)  # a file of one's own
    with pytest.raises(SynthgenError, match=r"no instances_train2017\.json"):
        find_splits("coco", tmp_path, None)


def test_a_reader_that_recognises_nothing_is_asked_for_by_name_only(tmp_path: Path) -> None:
    assert recognize_as("foreground", tmp_path) is None


def test_option_names() -> None:
    assert recognition.option_name("coco_json") == "coco-json"
    assert recognition.option_name("my.own_reader") == "my.own_reader"


@pytest.mark.parametrize(
    ("folder", "plugin", "splits"),
    [
        ("cases/w1-roboflow/export", "coco_json", ("train", "valid", "test")),
        ("data/formats/roboflow-coco__rbc", "coco_json", ("valid", "test")),
        ("data/formats/coco-segments__geti-blocks", "coco_json", ("NONE",)),
        ("data/coco_tiny", "coco", ("train2017", "val2017")),
        ("data/visual_genome_excerpt", "visual_genome", ("train",)),
    ],
)
def test_real_folders_are_recognised(
    shared: Callable[[str], Path], folder: str, plugin: str, splits: tuple[str, ...]
) -> None:
    found = recognize_dataset(shared(folder))
    assert (found.plugin, found.splits) == (plugin, splits)


def test_recognition_reads_no_large_file(tmp_path: Path) -> None:
    """A sparse file of 64 GB beside the annotations."""
    write(tmp_path / "boxes.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(64 * 2**30)
    assert recognize_dataset(tmp_path).plugin == "coco_json"
    shutil.rmtree(tmp_path)
