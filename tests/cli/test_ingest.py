"""`synthgen ingest` and `synthgen doctor`: shards, names, error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import coco_dataset
from fakes.command_result import CommandResult

from synthgen.storage.shard_store import ShardStore


@pytest.fixture
def synthgen(typed):
    return lambda *words: CommandResult(*typed(*words))


OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")


def test_the_size_of_shards_is_asked_for_once(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=40)
    assert synthgen("ingest", *OWN, "--shard-size", "7").code == 0
    folder = tmp_path / "shards/boxes/train/annotations"
    whole = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert len(whole) == 6
    (folder / "00002-of-00006.parquet").unlink()
    told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert told.code == 0, told.err
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == whole
    assert "every shard was there" in synthgen("ingest", *OWN).out
    assert "was made with shard_size 7 (now 8)" in synthgen("ingest", *OWN, "--shard-size", "8").err


@pytest.mark.parametrize("folder", ["visual-genome", "visual_genome"])
def test_a_datasets_folder_may_be_spelt_as_its_option(synthgen, tmp_path: Path, folder: str) -> None:
    place = tmp_path / "data" / folder
    place.mkdir(parents=True)
    box = {"object_id": 1, "names": ["cat"], "x": 1, "y": 1, "w": 2, "h": 2}
    (place / "objects.json").write_text(json.dumps([{"image_id": 1, "objects": [box]}]))
    assert "1 image, 1 box;" in synthgen("ingest", "--dataset", "visual-genome").out
    assert (tmp_path / "shards/visual_genome/train/annotations").is_dir()


def test_an_annotation_file_of_the_longest_name(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    (tmp_path / "boxes.json").rename(tmp_path / f"{'y' * 250}.json")
    assert synthgen("ingest", "--dataset", "coco-json", "--annotations", f"{'y' * 250}.json").code == 0
    assert (tmp_path / "shards" / ("y" * 200)).is_dir()


@pytest.mark.parametrize("layer", ["annotations", "human"])
def test_half_a_surrogate_pair_in_a_name_is_a_question_mark(synthgen, tmp_path: Path, layer: str) -> None:
    """JSON allows it, and neither UTF-8 nor a column can hold it."""
    (tmp_path / "boxes.json").write_text(
        '{"images": [{"id": 1, "file_name": "\\ud800.png", "height": 9, "width": 9}], "annotations": [{"id": 1, '
        '"image_id": 1, "bbox": [1, 1, 5, 5], "category_id": 1}], '
        '"categories": [{"id": 1, "name": "a\\udfff"}, {"id": 2, "name": "\\ud83d\\ude00"}]}'
    )
    told = synthgen("ingest", *OWN[:4], "--layer", layer)
    assert told.code == 0, told.err
    store = ShardStore(tmp_path / "shards")
    (shard,) = store.list_shards("boxes", "train", layer)
    (sample,) = store.read_samples(shard)
    assert (sample.file_name, sample.annotations[0].category) == ("?.png", "a?")
    assert store.read_footer(shard)["categories"] == ["a?", "\U0001f600"]


def bad_file(folder: Path, text: str) -> None:
    (folder / "boxes.json").write_text(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "boxes.json"),
        ("not json", "boxes.json"),
        ("[]", "boxes.json"),
        ('{"images": [', "boxes.json"),
        ('{"images": []}', "annotations"),
        ('{"images": [{"id": null}], "annotations": []}', "id"),
        ('{"images": [], "annotations": [], "categories": []}', "no images"),
    ],
)
@pytest.mark.parametrize("command", ["masks", "ingest", "doctor"])
def test_bad_files_have_a_sentence(synthgen, tmp_path: Path, command: str, text: str, sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    bad_file(tmp_path, text)
    told = synthgen(command, *OWN)
    assert told.code == 2, (told.out, told.err)
    assert sentence in told.err
    assert len(told.err.strip().splitlines()) == 1, told.err
    assert not list(tmp_path.rglob("*.parquet"))
