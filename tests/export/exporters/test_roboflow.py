"""The exporter of Roboflow's layout: folders, the root category, and masks that pycocotools draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fakes import exports
from fakes.reader_output import ingest_layer
from pycocotools.coco import COCO

from synthgen.export.exporters import roboflow
from synthgen.export.options import ExportOptions
from synthgen.formats.readers import coco_json
from synthgen.layers.layer import load_layer
from synthgen.layers.layer_export import export_layers
from synthgen.records.rle import decode_mask


def test_folders_and_categories_are_those_of_roboflow(tmp_path: Path) -> None:
    exporter = roboflow.build(exports.make_context(tmp_path / "out"), roboflow.OPTIONS())
    for item in exports.make_items():
        assert len(exporter.write(item)) == len(item.sample.annotations)
    notes = exporter.finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train", "valid"] and notes.lines == ()
    assert (exporter.image_folder("train"), exporter.image_folder("val")) == ("train", "valid")
    content = json.loads((tmp_path / "out/valid/_annotations.coco.json").read_text())
    assert content["categories"] == [
        {"id": 0, "name": "objects", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "objects"},
        {"id": 2, "name": "dog", "supercategory": "objects"},
        {"id": 3, "name": "cup", "supercategory": "objects"},
    ]
    assert [image["id"] for image in content["images"]] == [1, 2]


def test_the_root_category_has_a_name_of_its_own(tmp_path: Path) -> None:
    categories = (exports.ExportCategory(1, "objects"),)
    context = exports.make_context(tmp_path / "out", categories=categories, splits=("train",))
    notes = roboflow.build(context, roboflow.OPTIONS()).finish()
    content = json.loads((tmp_path / "out/train/_annotations.coco.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["all objects", "objects"]
    assert "--val 0.1" in notes.lines[0]


def test_real_masks_come_back(shared: Callable[[str], Path], tmp_path: Path) -> None:
    root = shared("data/coco_mini")
    source = root / "annotations/instances_train2017.json"
    ingest_layer(tmp_path / "store", coco_json, coco_json.files(root / "train2017", "train", source), "human")
    [place] = [path.relative_to(tmp_path / "store") for path in (tmp_path / "store").glob("*/*/human")]
    layer = load_layer(tmp_path / "store", str(place))
    report = export_layers([layer], "roboflow", tmp_path / "out", options=ExportOptions(val=0.2))
    assert report.left_out == {} and report.notes == ()
    own = {sample.file_name: sample for sample in layer}
    for folder in ("train", "valid"):
        coco = COCO(str(tmp_path / f"out/{folder}/_annotations.coco.json"))
        for number, image in coco.imgs.items():
            assert (tmp_path / "out" / folder / image["file_name"]).is_file()
            found = coco.imgToAnns[number]
            for record, annotation in zip(found, own[image["file_name"]].annotations, strict=True):
                assert annotation.segmentation is not None
                assert np.array_equal(coco.annToMask(record), decode_mask(annotation.segmentation))
                assert isinstance(record["segmentation"], dict) == annotation.iscrowd
    assert coco_json.recognize(tmp_path / "out") == ("train", "valid")
    back = ingest_layer(tmp_path / "back", coco_json, coco_json.files(tmp_path / "out", "valid", None), "annotations")
    assert len(back) == report.images["val"]
    assert {a.category for sample in back for a in sample.annotations} <= set(layer.categories)
