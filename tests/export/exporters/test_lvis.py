"""The exporter of LVIS: our own reader gives back the lists of absent categories; crowds are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import exports
from fakes.reader_output import ingest_layer

from synthgen.export.exporters import lvis
from synthgen.export.options import ExportOptions
from synthgen.formats.readers import lvis as reader
from synthgen.layers.layer import load_layer
from synthgen.layers.layer_export import export_layers
from synthgen.records.sample import Sample


def test_absent_categories_and_counts_are_those_of_the_images(tmp_path: Path) -> None:
    exporter = lvis.build(exports.make_context(tmp_path / "out", splits=("train",)), lvis.OPTIONS())
    items = [replace(item, split="train") for item in exports.make_items(4)]
    items[1] = replace(items[1], sample=replace(items[1].sample, neg_categories=("cup", "gone")))
    items[2] = replace(items[2], sample=replace(items[2].sample, not_exhaustive_categories=("dog",)))
    crowd = replace(items[3].sample.annotations[0], iscrowd=True)
    items[3] = replace(items[3], sample=replace(items[3].sample, annotations=(crowd, *items[3].sample.annotations[1:])))
    written = sum(len(exporter.write(item)) for item in items)
    notes = exporter.finish()
    content = json.loads((tmp_path / "out/annotations/lvis_train.json").read_text())
    assert notes.left_out == {"crowd": 1} and written == len(content["annotations"])
    by_name = {category["name"]: category for category in content["categories"]}
    for image, item in zip(content["images"], items, strict=True):
        there = {a.category for a in item.sample.annotations}
        looked_for = {"cat", "dog", "cup"} if item.sample.neg_categories is None else {"cup"}
        assert image["neg_category_ids"] == sorted(by_name[name]["id"] for name in looked_for - there)
        assert image["not_exhaustive_category_ids"] == [by_name[n]["id"] for n in item.sample.not_exhaustive_categories]
    for category in content["categories"]:
        own = [a for a in content["annotations"] if a["category_id"] == category["id"]]
        assert category["instance_count"] == len(own)
        assert category["image_count"] == len({a["image_id"] for a in own})
        assert category["frequency"] == "r"


@pytest.mark.parametrize(("images", "letter"), [(10, "r"), (11, "c"), (100, "c"), (101, "f")])
def test_the_letter_of_a_category_is_that_of_lvis(tmp_path: Path, images: int, letter: str) -> None:
    exporter = lvis.build(exports.make_context(tmp_path / "out", splits=("train",)), lvis.OPTIONS())
    [item] = exports.make_items(1)
    for number in range(images):
        own = (exports.make_annotation(3 * number + 3),)
        exporter.write(replace(item, split="train", sample=exports.make_sample(number + 1, own), mask_areas=(1,)))
    exporter.finish()
    content = json.loads((tmp_path / "out/annotations/lvis_train.json").read_text())
    assert content["categories"][0]["frequency"] == letter


def test_real_annotations_come_back(shared: Callable[[str], Path], tmp_path: Path) -> None:
    root = shared("data/lvis_excerpt")
    source = root / "lvis_val_100.json"
    theirs = ingest_layer(tmp_path / "store", reader, reader.files(root, "val", source), "human")
    [name] = [path.relative_to(tmp_path / "store") for path in (tmp_path / "store").glob("*/*/human")]
    export_layers(
        [load_layer(tmp_path / "store", str(name))], "lvis", tmp_path / "out", options=ExportOptions(image_mode="none")
    )
    back = next((tmp_path / "out/annotations").glob("*.json"))
    ours = ingest_layer(tmp_path / "again", reader, reader.files(root, "val", back), "human")

    def content(samples: list[Sample]) -> list[object]:
        return [
            (
                s.image_id,
                sorted(s.neg_categories or ()),
                sorted(s.not_exhaustive_categories),
                [(a.id, a.bbox, a.category, a.category_id, a.segmentation) for a in s.annotations],
            )
            for s in samples
        ]

    assert content(ours) == content(theirs) and len(ours) > 5
