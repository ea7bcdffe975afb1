"""The exporter `labelstudio`: the reader gives back the masks of people; those of models are predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

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
from synthgen.export.exporters import labelstudio
from synthgen.formats.readers import label_studio as reader
from synthgen.formats.readers._brush_rle import decode_brush_rle
from synthgen.records.rle import decode_mask, rle_iou
from synthgen.records.sample import Annotation, Caption


def tasks(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{split}.json").read_text())
    return found


def labels(folder: Path, tag: str = "BrushLabels") -> list[str]:
    """The labels of a tag in the labeling config."""
    root = ElementTree.parse(folder / "labeling_config.xml").getroot()
    return [one.get("value") for one in root.find(tag)]


def renamed(drawn: list[Annotation]) -> list[Annotation]:
    """The same annotations with the names of strangers."""
    return [
        replace(one, category=HOSTILE_NAMES[i % len(HOSTILE_NAMES)], category_id=11 + i % len(HOSTILE_NAMES))
        for i, one in enumerate(drawn)
    ]


def test_the_reader_gives_back_what_people_drew(tmp_path: Path) -> None:
    masks = random_masks(12)
    cats = sample(71, *(annotation(i, mask, mask_source="human") for i, mask in enumerate(masks[:6])))
    dogs = [annotation(i, mask, "dog", 12, provenance="reviewed") for i, mask in enumerate(masks[6:])]
    given = {"train": [cats], "val": [sample(72, *dogs, name="sub/a b+c%20.jpg")]}
    notes, written = export(labelstudio, context(tmp_path / "d", splits=("train", "val")), given)
    assert written == 12 and not notes.left_out and not notes.lines
    assert set(reader.recognize(tmp_path / "d") or ()) == {"train", "val"}
    for split, [one] in given.items():
        [(name, back)] = ingested(tmp_path / split, reader, tmp_path / "d", split=split).items()
        assert name == f"images/{split}/{one.file_name}" and back.image_id == one.image_id
        assert [a.segmentation for a in back.annotations] == [a.segmentation for a in one.annotations]
        assert [a.category for a in back.annotations] == [a.category for a in one.annotations]


def test_real_masks_come_back_with_every_pixel(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    given, samples = human_samples(tmp_path / "d", shared("data/coco128"))
    export(labelstudio, given, samples, draw_images=False)
    back = {one.image_id: one.annotations for one in ingested(tmp_path / "s", reader, tmp_path / "d").values()}
    for one in samples:
        found = [(a.category, a.segmentation) for a in back.get(one.image_id, ())]
        assert found == [(a.category, a.segmentation) for a in one.annotations]


def test_masks_of_models_are_predictions_by_model(tmp_path: Path) -> None:
    masks = random_masks(4)
    drawn = [
        annotation(1, masks[0], mask_source="sam vit_h", predicted_iou=0.5),
        annotation(2, masks[1], mask_source="sam vit_h", predicted_iou=1.0),
        annotation(3, masks[2], "dog", 12, soft_iou=0.75, box_iou=0.25, captions=(Caption("a dog", "ofa"),)),
        annotation(4, masks[3], mask_source="human", iscrowd=True),
    ]
    export(labelstudio, context(tmp_path), [sample(1, *drawn)])
    [task] = tasks(tmp_path)
    sam, lite = task["predictions"]
    assert (sam["model_version"], sam["score"]) == ("sam vit_h", 0.75)
    assert (lite["model_version"], lite["score"]) == ("lite", 0.75)
    assert [region["origin"] for region in sam["result"]] == ["prediction"] * 2
    for number, region in enumerate([*sam["result"], *lite["result"]]):
        assert (decode_brush_rle(region["value"]["rle"], 30, 40) == masks[number]).all()
    meta = lite["result"][0]["meta"]
    assert meta["text"] == ["a dog"] and meta["provenance"] == "machine" and meta["mask_source"] == "lite"
    assert (meta["soft_iou"], meta["box_iou"]) == (0.75, 0.25) and tuple(meta["bbox"]) == drawn[2].bbox
    [own] = task["annotations"]
    [region] = own["result"]
    assert region["origin"] == "manual" and region["meta"]["iscrowd"] == 1 and "score" not in region


def test_the_reader_takes_no_prediction_for_an_annotation(tmp_path: Path) -> None:
    export(labelstudio, context(tmp_path), [sample(1, annotation(1, rectangle(1, 1, 4, 4)))])
    found = read_rows(reader, tmp_path, layer="human")
    assert not found.rows and found.findings["ignored_prediction"].count == 1


def test_every_region_names_a_tag_and_a_label_of_the_config(tmp_path: Path) -> None:
    drawn = [annotation(1, rectangle(1, 1, 4, 4)), annotation(2, None, "dog", 12)]
    export(labelstudio, context(tmp_path / "a"), [sample(1, *drawn)])
    export(labelstudio, context(tmp_path / "b"), [sample(1, drawn[0])], shape="polygon")
    for folder, kinds in ((tmp_path / "a", {"brush", "rectangle"}), (tmp_path / "b", {"polygon"})):
        root = ElementTree.parse(folder / "labeling_config.xml").getroot()
        tags = {one.get("name"): one for one in root if one.tag != "Image"}
        assert set(tags) == kinds
        [task] = tasks(folder)
        for source in (*task["annotations"], *task["predictions"]):
            for region in source["result"]:
                tag = tags[region["from_name"]]
                assert tag.tag.lower() == region["type"] and tag.get("toName") == region["to_name"] == "image"
                assert region["value"][region["type"]][0] in [label.get("value") for label in tag]


def test_a_mask_with_parts_and_holes_is_one_polygon(tmp_path: Path) -> None:
    mask = rectangle(5, 5, 12, 12) & ~rectangle(8, 8, 4, 4) | rectangle(20, 25, 6, 6)
    own = annotation(1, mask, mask_source="human")
    notes, _ = export(labelstudio, context(tmp_path), [sample(1, own)], shape="polygon", tolerance=0.0)
    [region] = tasks(tmp_path)[0]["annotations"][0]["result"]
    points = np.array(region["value"]["points"])
    assert region["value"]["closed"] is True and points.min() >= 0 and points.max() <= 100
    [back] = ingested(tmp_path / "s", reader, tmp_path)["images/train/1.jpg"].annotations
    assert rle_iou([back.segmentation], [own.segmentation])[0, 0] == pytest.approx(notes.figures["polygon_iou_min"])
    found = decode_mask(back.segmentation)
    assert not found[8:12, 8:12].all() and found[20:26, 25:31].all()


def test_boxes_without_a_mask_are_rectangles_inside_the_image(tmp_path: Path) -> None:
    boxes = [(10.0, 6.0, 20.0, 3.0), (-5.0, -5.0, 10.0, 100.0), (50.0, 1.0, 5.0, 5.0), (math.inf, 1.0, 1.0, 1.0)]
    drawn = [annotation(i, None, bbox=box) for i, box in enumerate(boxes)]
    unknown = sample(2, annotation(9, None), size=(0, 0))
    notes, written = export(labelstudio, context(tmp_path / "d"), [sample(1, *drawn), unknown], draw_images=False)
    assert written == 2 and notes.left_out == {"no_box": 1, "outside_image": 1, "no_image_size": 1}
    rows = read_rows(reader, tmp_path / "d").rows
    assert [row.bbox for row in rows] == [pytest.approx(boxes[0]), pytest.approx((0, 0, 5, 30))]


def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    drawn = [annotation(i, rectangle(i, i, 3, 3), name, 11 + i) for i, name in enumerate(HOSTILE_NAMES)]
    export(labelstudio, context(tmp_path, HOSTILE_NAMES), [sample(1, *drawn)])
    found = labels(tmp_path)
    [prediction] = tasks(tmp_path)[0]["predictions"]
    assert [region["value"]["brushlabels"][0] for region in prediction["result"]] == found
    assert len(set(found)) == len(HOSTILE_NAMES)
    assert not any("$" in label for label in found)  # Label Studio would replace it by a value of the task
    assert set(found) > {name for name in HOSTILE_NAMES if "$" not in name and "\0" not in name}


@pytest.mark.parametrize("name", ["a b.jpg", "é&x=1#?%2f.jpg", "../../etc/passwd", "javascript:alert(1)"])
def test_the_usual_reference_to_an_image_decodes_to_its_path(tmp_path: Path, name: str) -> None:
    export(labelstudio, context(tmp_path), [sample(1, name=name)], draw_images=False)
    url = urlsplit(tasks(tmp_path)[0]["data"]["image"])
    assert url.path == "/data/local-files/" and not url.scheme and not url.fragment
    assert parse_qs(url.query) == {"d": [f"images/train/{name}"]}


def test_the_prefix_of_images_is_an_option(tmp_path: Path) -> None:
    for folder, images in (("a", "link"), ("b", "none")):
        export(
            labelstudio,
            context(tmp_path / folder, images=images),
            [sample(1, name="x y.jpg")],
            draw_images=False,
            image_prefix="s3://bucket/",
        )
    assert tasks(tmp_path / "a")[0]["data"]["image"] == "s3://bucket/images/train/x y.jpg"
    assert tasks(tmp_path / "b")[0]["data"]["image"] == "s3://bucket/x y.jpg"


def test_annotations_with_one_id_stay_apart(tmp_path: Path) -> None:
    drawn = [annotation(5, mask, mask_source="human") for mask in random_masks(3)]
    export(labelstudio, context(tmp_path / "d"), [sample(1, *drawn)])
    [back] = ingested(tmp_path / "s", reader, tmp_path / "d").values()
    assert [a.segmentation for a in back.annotations] == [a.segmentation for a in drawn]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    samples = [sample(1, *(annotation(i, mask, predicted_iou=0.1) for i, mask in enumerate(random_masks(4))))]
    for name in ("a", "b"):
        export(labelstudio, context(tmp_path / name), samples)
    first = folder_bytes(tmp_path / "a")
    assert first == folder_bytes(tmp_path / "b") and set(first) == {"train.json", "labeling_config.xml"}
    assert str(tmp_path).encode() not in b"".join(first.values())


@pytest.mark.parametrize("options", [{"shape": "mask"}, {"tolerance": -1.0}, {"tolerance": math.nan}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        labelstudio.LabelStudioOptions(**options)


def test_a_split_without_images_is_an_empty_list(tmp_path: Path) -> None:
    export(labelstudio, context(tmp_path, splits=("train", "val")), [sample(1)])
    assert tasks(tmp_path, "val") == [] and len(tasks(tmp_path)) == 1


@pytest.mark.parametrize("shape", ["brush", "polygon"])
def test_label_studio_accepts_the_config_and_the_regions(tmp_path: Path, shape: str) -> None:
    """Its SDK is no dependency of the tests, as it refuses current versions of OpenCV."""
    sdk = pytest.importorskip(
        "label_studio_sdk.label_interface",
        reason="label-studio-sdk is not installed; it needs an environment of its own",
    )
    drawn = [annotation(i, mask, predicted_iou=1.5) for i, mask in enumerate(random_masks(6))]
    drawn += [annotation(9, rectangle(1, 1, 28, 38), mask_source="human"), annotation(10, None, bbox=(-5.0, 0, 99, 9))]
    export(labelstudio, context(tmp_path, HOSTILE_NAMES), [sample(1, *renamed(drawn))], shape=shape)
    config = sdk.LabelInterface((tmp_path / "labeling_config.xml").read_text(encoding="utf-8"))
    config.validate()
    [task] = tasks(tmp_path)
    assert config.validate_task({"data": task["data"]})
    assert [config.validate_prediction(one, return_errors=True) for one in task["predictions"]] == [[]]
    assert config.validate_annotation(task["annotations"][0])
