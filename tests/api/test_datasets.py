"""`doctor` and `ingest_dataset`: the report and the bytes of the commands, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset

import synthgen as sg
from synthgen.errors import ArgumentError, SynthgenError
from synthgen.ingest.validation.diagnosis import report_to_dict
from synthgen.progress import NoProgress


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    path = coco_dataset.write_coco_dataset(tmp_path, images=6)
    content = json.loads(path.read_text())
    content["annotations"][4]["bbox"] = [5, 5, 0, 9]
    path.write_text(json.dumps(content))


def test_the_report_is_that_of_the_command(typed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed("doctor", "boxes.json", "--images", "photos", "--json")
    report = sg.doctor("boxes.json", images="photos")
    assert capsys.readouterr() == ("", "")
    assert json.loads(json.dumps(report_to_dict(report))) == json.loads(out)
    assert report.is_ready == (code == 0) is True
    (split,) = report.splits
    assert (split.images, split.boxes, split.prompted) == (6, 18, 17)
    assert "degenerate" in {finding.code for finding in split.findings}


def test_a_dataset_that_no_job_can_use_is_not_ready() -> None:
    Path("empty").mkdir()
    report = sg.doctor(Path("boxes.json"), images=Path("empty"), check_images="all")
    assert not report.is_ready
    assert any(finding.stops for finding in report.splits[0].findings)
    assert not Path("shards").exists(), "nothing is written"


def test_progress_is_passed_on() -> None:
    opened: list[str] = []

    def open_progress(description: str, total: int, unit: str) -> NoProgress:
        opened.append(f"{description} {unit}")
        return NoProgress(description, total, unit)

    sg.doctor("boxes.json", images="photos", progress=open_progress)
    assert opened == ["reading bytes", "examining images"]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"path": "box.json"}, SynthgenError, r"no file or folder box\.json"),
        ({"path": "boxes.json", "split": "val"}, SynthgenError, r"boxes\.json has no split 'val'"),
        ({"path": "boxes.json", "dataset": "yolo"}, SynthgenError, r"is not recognised as YOLO"),
        ({"path": "boxes.json", "annotations": "boxes.json"}, SynthgenError, r"both name a dataset"),
        ({"path": "boxes.json", "check_images": "some"}, SynthgenError, r"some"),
        ({"path": "boxes.json", "check_images": True}, ArgumentError, r"check_images=True is not valid"),
        ({"path": "boxes.json", "check_images": 2.5}, ArgumentError, r"check_images=2\.5 is not valid"),
        ({"path": "boxes.json", "check_images": None}, ArgumentError, r"check_images=None is not valid"),
        ({"path": 3}, ArgumentError, r"path=3 is not a path"),
        ({}, SynthgenError, r"no dataset is named"),
    ],
)
def test_each_wrong_argument_has_its_sentence(arguments: dict[str, Any], error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        sg.doctor(**{"images": "photos", **arguments})


def test_an_ingest_writes_the_bytes_of_the_command(synthgen: Any, tmp_path: Path) -> None:
    assert synthgen("ingest", "boxes.json", "--images", "photos", "--store", "typed", "--shard-size", "4")[0] == 0
    found = sg.ingest_dataset("boxes.json", images="photos", store="called", shard_size=4)
    report = found["boxes/train/annotations"]
    assert (report.shards, report.committed, report.images, report.annotations) == (2, 2, 6, 18)
    assert report.flags == {"degenerate": 1}
    for name in ("00000-of-00002.parquet", "00001-of-00002.parquet"):
        typed, called = (tmp_path / store / "boxes/train/annotations" / name for store in ("typed", "called"))
        assert called.read_bytes() == typed.read_bytes()
    again = sg.ingest_dataset("boxes.json", images="photos", store="called", shard_size=4)
    assert again["boxes/train/annotations"].committed == 0
    with pytest.raises(ArgumentError, match=r"shard_size=-1 is not valid"):
        sg.ingest_dataset("boxes.json", images="photos", shard_size=-1)
    with pytest.raises(SynthgenError, match=r"boxes has no layer 'regions' of its own"):
        sg.ingest_dataset("boxes.json", images="photos", layer="regions")


def test_a_changed_file_updates_the_layer_and_the_masks() -> None:
    masks = {"images": "photos", "segmenter": "box_fill"}
    sg.generate_masks("boxes.json", **masks)
    before = {sample.image_id: sample for sample in sg.load_layer("shards", "boxes/train/masks")}
    path = Path("boxes.json")
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] -= 3
    content["images"] = [image for image in content["images"] if image["id"] != 6]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 6]
    path.write_text(json.dumps(content))
    with pytest.raises(SynthgenError, match=r"\(0 images added, 1 changed, 1 removed, 4 unchanged\); add --update"):
        sg.generate_masks("boxes.json", **masks)
    for name, value in {"update": 1, "removed": "some"}.items():
        with pytest.raises(ArgumentError, match=f"{name}="):
            sg.ingest_dataset("boxes.json", images="photos", **{name: value})
        with pytest.raises(ArgumentError, match=f"{name}="):
            sg.generate_masks("boxes.json", **masks, **{name: value})
    (report,) = sg.ingest_dataset("boxes.json", images="photos", update=True, removed="keep").values()
    assert report.changes is not None and report.changes.total.kept == 1
    sg.generate_masks("boxes.json", **masks, update=True, removed="keep")
    after = {sample.image_id: sample for sample in sg.load_layer("shards", "boxes/train/masks")}
    assert after.keys() == before.keys()
    assert [number for number in after if after[number].annotations != before[number].annotations] == [1]


def test_a_layer_is_removed() -> None:
    sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    with pytest.raises(SynthgenError, match="boxes/train/masks cannot be renewed without boxes/train/annotations"):
        sg.remove_layer("boxes/train/annotations")
    assert sg.remove_layer("boxes/train/masks", dry_run=True).shards == 1
    assert sg.remove_layer("boxes/train/masks").shards == 1
    assert not Path("shards/boxes/train/masks").exists()
    for wrong in ({"layer": 3}, {"layer": "a/b/c", "force": 1}, {"layer": "a/b/c", "dry_run": "no"}):
        with pytest.raises(ArgumentError):
            sg.remove_layer(**wrong)  # type: ignore[arg-type]
