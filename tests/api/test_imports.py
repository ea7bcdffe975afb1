"""`synthgen.import_masks`: the same as the command; real masks out and in again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import foreign_masks
from fakes.foreign_masks import layer_files

import synthgen as sg
from synthgen.records.sample import Annotation, mask_provenance


def test_the_function_does_what_the_command_does(tmp_path: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    world = foreign_masks.write_world(tmp_path)
    (tmp_path / "masks.json").write_text(json.dumps(foreign_masks.results(world)))
    report = sg.import_masks(tmp_path / "masks.json", "boxes", store=tmp_path / "shards", model="sam2")
    assert (report.layer, report.imported) == ("boxes/train/imported", 24)
    made = layer_files(tmp_path / "shards", "imported")
    for path in (tmp_path / "shards/boxes/train/imported").glob("*.parquet"):
        path.unlink()
    assert typed("import-masks", "masks.json", "--dataset", "boxes", "--model", "sam2")[0] == 0
    assert layer_files(tmp_path / "shards", "imported") == made
    report = sg.import_masks(tmp_path / "masks.json", into=report.layer, store=tmp_path / "shards")
    assert (report.imported, report.unchanged) == (0, 24)


def test_thresholds_of_scores_keep_reviewed_masks(tmp_path: Path) -> None:
    world = foreign_masks.write_world(tmp_path)
    content = foreign_masks.with_masks(world)
    store, file = tmp_path / "shards", tmp_path / "masks.json"
    for one in content["annotations"]:
        one["predicted_iou"] = 0.5
    file.write_text(json.dumps(content))
    name = sg.import_masks(file, "boxes", store=store, model="sam2").layer
    x, y, w, h = content["annotations"][4]["bbox"]
    content["annotations"][4]["segmentation"] = foreign_masks.coco_rle([x, y, w - 3, h - 2])
    file.write_text(json.dumps(content))
    sg.import_masks(file, into=name, store=store)
    strict = sg.load_layer(store, name).filter(min_predicted_iou=0.9)
    assert [a.id for sample in strict for a in sample.annotations] == [5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset": None},
        {"into": "boxes/train/masks"},
        {"match": "name"},
        {"min_box_iou": 1.5},
        {"min_box_iou": True},
        {"any_category": "no"},
        {"layer": 3},
        {"model": ""},
        {"source": 3},
    ],
)
def test_wrong_arguments(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(sg.ArgumentError):
        sg.import_masks(**{"source": "masks.json", "dataset": "boxes", "store": tmp_path, **wrong})


def own(layer: sg.Layer) -> list[list[Annotation]]:
    """The annotations of a layer's images."""
    return [list(sample.annotations) for sample in layer]


def test_masks_by_people_come_back_as_they_were(shared: Callable[[str], Path], tmp_path: Path) -> None:
    root = shared("data/coco128")
    images, store = root / "train2017", tmp_path / "shards"
    file = root / "annotations/instances_train2017.json"
    sg.ingest_dataset(file, images=images, layer="human", name="one", store=store)
    first = sg.load_layer(store, "one/train2017/human")
    first.to_coco(tmp_path / "human.json")
    sg.ingest_dataset(tmp_path / "human.json", images=images, layer="human", name="two", store=store)
    second = sg.load_layer(store, "two/train/human")
    assert own(first) == own(second) and len(own(first)) == 128
    assert all(mask_provenance(a) == "human" for found in own(second) for a in found)
    # The boxes alone, and the same masks as a layer on them.
    sg.ingest_dataset(file, images=images, name="one", store=store)
    report = sg.import_masks(tmp_path / "human.json", "one", store=store)
    assert (report.imported, report.without_mask, report.unused) == (939, 0, {})
    imported = own(sg.load_layer(store, report.layer))
    # The layer of boxes knows no areas of masks.
    assert [[replace(a, box_iou=None) for a in found] for found in imported] == [
        [replace(a, area=None) for a in found] for found in own(first)
    ]


def test_masks_of_a_machine_come_back_as_masks_of_a_machine(shared: Callable[[str], Path], tmp_path: Path) -> None:
    root = shared("data/coco128")
    images, store = root / "train2017", tmp_path / "shards"
    made = sg.generate_masks(
        root / "annotations/instances_train2017.json", images=images, segmenter="box_fill", name="one", store=store
    ).load()
    made.to_coco(tmp_path / "masks.json", masks_only=True)
    with pytest.raises(sg.SynthgenError, match="import-masks"):
        sg.ingest_dataset(tmp_path / "masks.json", images=images, layer="human", name="two", store=store)
    report = sg.import_masks(tmp_path / "masks.json", "one", store=store)
    assert own(sg.load_layer(store, report.layer)) == own(made)
