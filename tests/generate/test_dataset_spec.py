"""What a command names becomes a dataset: its plugin, folder, split and name; mistakes are reported before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.generate.dataset_spec import DatasetSpec, resolve_dataset, resolve_datasets


def test_a_known_dataset_lies_below_the_data_folder(tmp_path):
    spec = resolve_dataset("coco", None, None, tmp_path, None, None)
    assert spec == DatasetSpec("coco", "coco", "train2017", tmp_path / "coco", None, None)
    assert spec.default_name == "coco"


@pytest.mark.parametrize("option", ["visual-genome", "visual_genome"])
@pytest.mark.parametrize("folder", ["visual-genome", "visual_genome"])
def test_its_folder_may_be_spelt_with_a_dash(option, folder, tmp_path):
    (tmp_path / folder).mkdir()
    spec = resolve_dataset(option, None, None, tmp_path, None, None)
    assert (spec.plugin, spec.name, spec.root) == ("visual_genome", "visual_genome", tmp_path / folder)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("boxes.json", "boxes"),
        ("boxes.json.gz", "boxes"),
        ("my boxes (2).json", "my-boxes-2"),
        ("äö.json", "dataset"),
        (f"{'y' * 250}.json", "y" * 200),
    ],
)
def test_an_annotation_file_gives_the_dataset_its_name(file, name, tmp_path):
    (tmp_path / file).touch()
    spec = resolve_dataset("coco-json", None, None, Path("data"), tmp_path / file, None)
    assert (spec.name, spec.default_name, spec.root) == (name, name, tmp_path)
    named = resolve_dataset("coco-json", "mine", "val", Path("data"), tmp_path / file, None)
    assert (named.name, named.default_name, named.split) == ("mine", name, "val")


def test_any_split_may_be_named_for_files_of_the_users_own(tmp_path):
    assert resolve_dataset("coco", "mine", "holdout", tmp_path, None, None).split == "holdout"
    with pytest.raises(SynthgenError, match=r"coco has no split 'holdout' \(have: train2017, val2017"):
        resolve_dataset("coco", None, "holdout", tmp_path, None, None)


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"dataset": "objcts365"}, r"no dataset named 'objcts365'; did you mean 'objects365'\?"),
        ({"dataset": "os.path"}, r"module 'os\.path' has no SPLITS and is no dataset"),
        ({"dataset": "coco-json"}, r"--dataset coco-json needs --annotations FILE"),
        ({"annotations": Path("nope.json")}, r"no file nope\.json; --annotations should name"),
        ({"name": "a/b"}, r"'a/b' cannot name"),
        ({"name": "mine", "split": ".."}, r"'\.\.' cannot name"),
    ],
)
def test_each_mistake_is_an_error(named, sentence, tmp_path):
    given = {"dataset": "coco", "name": None, "split": None, "annotations": None, "images": None, **named}
    with pytest.raises(SynthgenError, match=sentence):
        resolve_dataset(data=tmp_path, **given)


def test_the_image_folder_is_the_named_one_or_that_of_the_files(tmp_path):
    (tmp_path / "boxes.json").write_text("{}")
    (tmp_path / "photos").mkdir()
    spec = resolve_dataset("coco-json", None, None, tmp_path, tmp_path / "boxes.json", tmp_path / "photos")
    assert spec.resolve_image_folder() == spec.locate_files().image_folder == tmp_path / "photos"
    assert spec.locate_files().sources == {"instances": tmp_path / "boxes.json"}
    wrong = resolve_dataset("coco-json", None, None, tmp_path, tmp_path / "boxes.json", tmp_path / "nowhere")
    with pytest.raises(SynthgenError, match=r"no folder .*nowhere with the images of boxes; name it with --images"):
        wrong.resolve_image_folder()


def test_a_named_image_folder_needs_no_annotation_files(tmp_path):
    spec = resolve_dataset("coco", None, None, tmp_path, None, tmp_path)
    assert spec.resolve_image_folder() == tmp_path
    with pytest.raises(SynthgenError, match=r"no instances_train2017\.json in"):
        spec.locate_files()


def roboflow_export(folder: Path, *splits: str) -> Path:
    for split in splits:
        (folder / split).mkdir(parents=True)
        (folder / split / "_annotations.coco.json").write_text('{"images": [], "annotations": []}')
    return folder


def at(path, *, dataset=None, name=None, split=None, annotations=None, images=None):
    return resolve_datasets(path, dataset, name, split, Path("data"), annotations, images)


def test_a_path_gives_all_splits_of_its_dataset(tmp_path):
    folder = roboflow_export(tmp_path / "my cones", "test", "train", "valid")
    specs = at(folder)
    assert [(spec.plugin, spec.name, spec.split, spec.root) for spec in specs] == [
        ("coco_json", "my-cones", split, folder) for split in ("train", "valid", "test")
    ]
    assert [spec.locate_files().image_folder.name for spec in specs] == ["train", "valid", "test"]
    assert [spec.split for spec in at(folder, split="valid")] == ["valid"]
    assert [spec.name for spec in at(folder, name="other")] == ["other"] * 3
    assert at(folder, dataset="coco-json") == specs


@pytest.mark.parametrize("path", ["valid", "valid/_annotations.coco.json"])
def test_one_split_of_an_export_has_the_names_that_it_has_in_the_whole(path, tmp_path):
    folder = roboflow_export(tmp_path / "cones", "train", "valid")
    (whole,) = at(folder, split="valid")
    (alone,) = at(folder / path)
    assert (alone.name, alone.split) == (whole.name, whole.split) == ("cones", "valid")
    assert alone.locate_files().sources == whole.locate_files().sources
    assert alone.locate_files().image_folder == whole.locate_files().image_folder


def test_a_path_and_the_options_name_the_same_dataset(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('{"images": [], "annotations": []}')
    named = resolve_dataset("coco-json", None, None, Path("data"), path, tmp_path)
    assert at(path, images=tmp_path) == [named]
    assert at(None, dataset="coco-json", annotations=path, images=tmp_path) == [named]


def test_without_a_path_a_release_gives_its_first_split(tmp_path):
    (spec,) = resolve_datasets(None, "coco", None, None, tmp_path, None, None)
    assert spec.split == "train2017"


def test_without_a_path_a_format_gives_all_splits_of_its_folder(tmp_path):
    roboflow_export(tmp_path / "coco_json", "train", "valid")
    specs = resolve_datasets(None, "coco-json", "cones", None, tmp_path, None, None)
    assert [(spec.name, spec.split) for spec in specs] == [("cones", "train"), ("cones", "valid")]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, r"cones has no split 'val' \(it has train, valid\)"),
        ({"annotations": Path("boxes.json")}, r"cones and --annotations boxes\.json both name a dataset"),
        (
            {"dataset": "objects365"},
            r"not recognised as Objects365 \(.*looks like COCO JSON: use --dataset coco-json",
        ),
        ({"dataset": "ade20k"}, r"ADE"),
    ],
)
def test_each_wrong_path_is_an_error(given, sentence, tmp_path):
    folder = roboflow_export(tmp_path / "cones", "train", "valid")
    with pytest.raises(SynthgenError, match=sentence):
        at(folder, **{"split": "val", **given})
    with pytest.raises(SynthgenError, match=r"no file or folder .*nothing"):
        at(folder / "nothing")
    with pytest.raises(SynthgenError, match=r"no dataset is named; give its folder"):
        at(None)


def test_a_chosen_reader_gets_a_file_that_none_recognises(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('{"description": "' + "x" * 100_000 + '", "images": [], "annotations": []}')
    with pytest.raises(SynthgenError, match="is not recognised as a dataset"):
        at(path)
    (spec,) = at(path, dataset="coco-json")
    assert (spec.plugin, spec.name, spec.split) == ("coco_json", "boxes", "train")
    assert resolve_dataset("coco-json", None, None, Path("data"), path, None) == spec


def test_a_pipe_as_annotation_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "boxes.json")
    with pytest.raises(SynthgenError, match="pipe"):
        resolve_dataset("coco-json", None, None, tmp_path, tmp_path / "boxes.json", None)


def test_crowds_are_objects_only_on_request(tmp_path):
    (tmp_path / "boxes.json").write_text("{}")
    for wanted in (False, True):
        spec = resolve_dataset(
            "coco-json", None, None, tmp_path, tmp_path / "boxes.json", None, crowds_as_objects=wanted
        )
        assert spec.crowds_as_objects == spec.locate_files().crowds_as_objects == wanted
