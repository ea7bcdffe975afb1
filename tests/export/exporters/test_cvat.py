"""The exporter `cvat`: the reader of CVAT gives back what was written; names and values of strangers stay text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defusedxml import ElementTree
from fakes.exporter_runs import (
    HOSTILE_NAMES,
    annotation,
    context,
    export,
    folder_bytes,
    human_samples,
    random_masks,
    rectangle,
    sample,
)
from fakes.reader_rows import ingested, read_rows

from synthgen.errors import ArgumentError
from synthgen.export.exporters import cvat
from synthgen.formats.readers import cvat as reader
from synthgen.records.rle import decode_mask, rle_from_coco
from synthgen.records.sample import Caption


def shapes(path: Path) -> list[Any]:
    """The elements of all shapes of a file."""
    return [shape for image in ElementTree.parse(path).getroot().iter("image") for shape in image]


def attributes(shape: Any) -> dict[str, str]:
    return {one.get("name"): one.text for one in shape.iter("attribute")}


@pytest.mark.parametrize("options", [{}, {"shape": "polygon", "tolerance": 0.0}], ids=["mask", "polygon"])
def test_the_reader_gives_back_masks_and_categories_of_each_split(tmp_path: Path, options: dict[str, Any]) -> None:
    masks = random_masks(12)
    cats = sample(1, *(annotation(i, mask) for i, mask in enumerate(masks[:6])))
    dogs = sample(2, *(annotation(i, mask, "dog", 12) for i, mask in enumerate(masks[6:])), name="sub/b.jpg")
    given = {"train": [cats, sample(3)], "val": [dogs]}
    notes, written = export(cvat, context(tmp_path / "d", splits=("train", "val")), given, **options)
    assert written == 12 and not notes.left_out and not notes.lines
    assert set(reader.recognize(tmp_path / "d") or ()) == {"train", "val"}
    for split, some in given.items():
        back = ingested(tmp_path / split, reader, tmp_path / "d", split=split)
        assert {f"images/{split}/{one.file_name}" for one in some} == set(back)
        for one in some:
            found = back[f"images/{split}/{one.file_name}"]
            assert [a.segmentation for a in found.annotations] == [a.segmentation for a in one.annotations]
            assert [a.category for a in found.annotations] == [a.category for a in one.annotations]
            assert [a.bbox for a in found.annotations] == [a.bbox for a in one.annotations]


def test_real_masks_come_back_with_every_pixel(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    given, samples = human_samples(tmp_path / "d", shared("data/coco128"))
    export(cvat, given, samples, draw_images=False)
    back = {name.rpartition("/")[2]: found for name, found in ingested(tmp_path / "s", reader, tmp_path / "d").items()}
    assert len(back) == len(samples) == 128
    for one in samples:
        found = back[one.file_name].annotations
        assert [(a.category, a.segmentation) for a in found] == [(a.category, a.segmentation) for a in one.annotations]


def test_the_source_says_who_drew_a_mask(tmp_path: Path) -> None:
    mask = rectangle(5, 5, 4, 4)
    drawn = [
        annotation(1, mask),
        annotation(2, mask, provenance="reviewed"),
        annotation(3, mask, mask_source="human"),
        annotation(4, None),
    ]
    export(cvat, context(tmp_path), [sample(1, *drawn)])
    found = shapes(tmp_path / "train.xml")
    assert [shape.get("source") for shape in found] == ["auto", "semi-auto", "manual", "manual"]
    told = [attributes(shape) for shape in found]
    assert [own.get("provenance") for own in told] == ["machine", "reviewed", "human", None]
    assert [own.get("model") for own in told] == ["lite", "lite", None, None]
    assert [own["annotation_id"] for own in told] == ["1", "2", "3", "4"]


def test_scores_captions_and_crowds_are_attributes_that_the_labels_declare(tmp_path: Path) -> None:
    own = annotation(
        1,
        rectangle(5, 5, 4, 4),
        predicted_iou=0.875,
        box_iou=0.5,
        stability_score=math.nan,
        iscrowd=True,
        captions=(Caption("a <b>cat</b> & more", "ofa"), Caption("second", "ofa")),
    )
    export(cvat, context(tmp_path), [sample(1, own)])
    [shape] = shapes(tmp_path / "train.xml")
    told = attributes(shape)
    assert (told["predicted_iou"], told["box_iou"], told["crowd"]) == ("0.875", "0.5", "true")
    assert told["captions"] == "a <b>cat</b> & more\nsecond" and "stability_score" not in told
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [label["name"] for label in labels] == ["cat", "dog"] and len({label["color"] for label in labels}) == 2
    declared = ElementTree.parse(tmp_path / "train.xml").getroot().find("meta/task/labels/label/attributes")
    names = {one.findtext("name") for one in declared}
    assert set(told) <= names == {one["name"] for one in labels[0]["attributes"]}


def test_boxes_without_a_mask_stay_boxes(tmp_path: Path) -> None:
    boxes = [annotation(1, None, bbox=(1.5, 2.25, 3, 4)), annotation(2, None, bbox=(math.nan, 0, 1, 1))]
    notes, written = export(cvat, context(tmp_path), [sample(1, *boxes)])
    assert written == 1 and notes.left_out == {"no_box": 1}
    [row] = read_rows(reader, tmp_path, "train").rows
    assert row.bbox == (1.5, 2.25, 3, 4) and row.name == "cat"


def test_parts_of_one_object_are_one_group(tmp_path: Path) -> None:
    two = rectangle(1, 1, 5, 5) | rectangle(20, 20, 4, 4)
    drawn = [annotation(1, two), annotation(2, rectangle(3, 3, 2, 2)), annotation(3, two)]
    export(cvat, context(tmp_path), [sample(1, *drawn)], shape="polygon")
    groups = [shape.get("group_id") for shape in shapes(tmp_path / "train.xml")]
    assert groups[0] == groups[1] != groups[3] == groups[4] and groups[2] is None and None not in groups[3:]


def test_a_tolerance_is_counted_as_lost_iou(tmp_path: Path) -> None:
    notes, _ = export(
        cvat,
        context(tmp_path),
        [sample(1, *(annotation(i, mask) for i, mask in enumerate(random_masks(6))))],
        shape="polygon",
        tolerance=2.0,
    )
    assert len(notes.lines) == 1 and 0 < notes.figures["polygon_iou_min"] <= notes.figures["polygon_iou_mean"] < 1
    assert notes.figures["polygons_changed"] >= 1


def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    names = HOSTILE_NAMES
    given = context(tmp_path, names, layer="<b>/train/&amp;", recipe={"<x>": "]]>", "path": HOSTILE_NAMES[0]})
    drawn = [annotation(i, rectangle(i, i, 3, 3), name, 11 + i) for i, name in enumerate(names)]
    hostile_file = "a'\"<&>\n\t=.jpg"
    export(cvat, given, [sample(1, *drawn, name=hostile_file)], draw_images=False)
    root = ElementTree.parse(tmp_path / "train.xml").getroot()
    [image] = root.iter("image")
    assert image.get("name") == hostile_file and len(image) == len(names)
    labels = [label.findtext("name") for label in root.find("meta/task/labels")]
    assert [shape.get("label") for shape in image] == labels and len(set(labels)) == len(names)
    unchanged = [name for name in names if "\0" not in name]
    assert set(unchanged) < set(labels)
    assert root.findtext("meta/task/name") == given.layer
    assert json.loads(root.findtext("meta/synthgen/recipe") or "") == dict(given.recipe)


def test_characters_that_xml_cannot_hold_are_reported(tmp_path: Path) -> None:
    drawn = sample(1, annotation(1, rectangle(1, 1, 3, 3), "a\0"), name="b\x07.jpg")
    notes, _ = export(cvat, context(tmp_path, ("a\0", "a\1")), [drawn], draw_images=False)
    assert len(notes.lines) == 2
    [image] = ElementTree.parse(tmp_path / "train.xml").getroot().iter("image")
    assert image.get("name") == "b\ufffd.jpg"


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    samples = [sample(1, *(annotation(i, mask, predicted_iou=0.1) for i, mask in enumerate(random_masks(4))))]
    for name in ("a", "b"):
        export(cvat, context(tmp_path / name), samples)
    first = folder_bytes(tmp_path / "a")
    assert first == folder_bytes(tmp_path / "b") and set(first) == {"train.xml", "labels.json"}
    assert str(tmp_path).encode() not in b"".join(first.values())


@pytest.mark.parametrize("options", [{"shape": "box"}, {"tolerance": -1.0}, {"tolerance": math.nan}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        cvat.CvatOptions(**options)


def test_an_image_that_stays_in_its_place_is_only_named(tmp_path: Path) -> None:
    given = replace(context(tmp_path), images="none")
    export(cvat, given, [sample(1, annotation(1, rectangle(1, 1, 3, 3)), name="sub/a.jpg")])
    [image] = ElementTree.parse(tmp_path / "train.xml").getroot().iter("image")
    assert image.get("name") == "sub/a.jpg" and not (tmp_path / "images").exists()


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_datumaro_reads_every_pixel(tmp_path: Path, shape: str) -> None:
    """It is no dependency of the tests, as it refuses current versions of Pillow, OpenCV and pandas."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed; it needs an environment of its own")
    masks = random_masks(9)
    given = {"train": [sample(1, *(annotation(i, mask) for i, mask in enumerate(masks)))], "val": [sample(2)]}
    export(cvat, context(tmp_path, splits=("train", "val")), given, shape=shape, tolerance=0.0)
    dataset = datumaro.Dataset.import_from(str(tmp_path), "cvat")
    assert set(dataset.subsets()) == {"train", "val"} and len(dataset) == 2
    found = [np.zeros((30, 40), np.bool_) for _ in masks]
    for one in dataset.get("1", "train").annotations:
        points = getattr(one, "points", None)
        drawn = one.image if points is None else decode_mask(rle_from_coco([list(points)], 30, 40))
        found[int(one.attributes["annotation_id"])] |= np.asarray(drawn, np.bool_)
    for mask, own in zip(masks, found, strict=True):
        assert (mask == own).all()
