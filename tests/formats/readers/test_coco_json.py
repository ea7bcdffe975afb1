"""COCO JSON files of users: every spelling of boxes, sizes, names and masks."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.ingested_samples import first_annotation, ingest_samples

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json
from synthgen.ingest.ingest import IngestReport
from synthgen.records.rle import rle_area, rle_bbox_xyxy
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore


def own(folder: Path, content: Any, layer: str = "annotations") -> tuple[list[Sample], IngestReport]:
    """Ingest a file of one's own."""
    path = folder / "own.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return ingest_samples(folder / "store", coco_json, coco_json.files(folder, "train", path), layer)


def one(annotation: dict[str, Any], layer: str = "annotations", **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30, **image}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], **annotation}],
        "categories": [{"id": 2, "name": "cat"}],
    }


def test_ones_own_file_has_to_be_named(tmp_path):
    with pytest.raises(SynthgenError, match="--annotations FILE"):
        coco_json.files(tmp_path, "train", None)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://images.cocodataset.org/train2017/000000391895.jpg", "coco/000000391895"),
        ("https://images.cocodataset.org/val2014/COCO_val2014_000000391895.jpg", "coco/000000391895"),
        ("http://example.org/train2017/000000391895.jpg", "d/a.jpg"),
        ("http://example.org/?images.cocodataset.org/000000391895.jpg", "d/a.jpg"),
        ("", "d/a.jpg"),
    ],
)
def test_a_photograph_of_cocos_has_cocos_key(tmp_path, url, key):
    samples, _ = own(tmp_path, one({}, coco_url=url))
    assert samples[0].image_key == key


def test_mask2formers_file_of_ade20k_has_the_keys_of_ade20k(tmp_path: Path) -> None:
    """https://github.com/facebookresearch/Mask2Former/blob/main/datasets/prepare_ade20k_ins_seg.py

    Its ids are the names of the photographs. A number as id, or another name, is a dataset of its own.
    """
    name = "ADE_val_00000012"
    rle = {"size": [20, 30], "counts": [0, 5, 595]}
    content = one({"image_id": name, "segmentation": rle}, id=name, file_name=f"{name}.jpg")
    [sample] = own(tmp_path, content, "human")[0]
    assert (sample.image_key, sample.file_name) == ("ade20k/ADE_val_00000012", f"{name}.jpg")
    assert [a.mask_source for a in sample.annotations] == ["human"]
    for place, image in (("a", {"file_name": f"{name}.jpg"}), ("b", {"id": name, "file_name": "x.jpg"})):
        (tmp_path / place).mkdir()
        [sample] = own(tmp_path / place, one({"image_id": image.get("id", 1)}, **image))[0]
        assert sample.image_key == f"d/{image['file_name']}"


@pytest.mark.parametrize(
    ("change", "bbox", "flags"),
    [
        ({}, (1, 2, 3, 4), ()),
        ({"bbox": ["1", "2", "3.5", "4"]}, (1, 2, 3.5, 4), ()),
        ({"bbox": [1, 2, 3]}, (0, 0, 0, 0), ("bad_box", "degenerate", "no_box")),
        ({"bbox": [1, 2, 3, 4, 0.5]}, (0, 0, 0, 0), ("bad_box", "degenerate", "no_box")),
        ({"bbox": {}}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": []}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": None}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": {"x": 1}}, (0, 0, 0, 0), ("bad_box", "degenerate", "no_box")),
        ({"bbox": "1,2,3,4"}, (0, 0, 0, 0), ("bad_box", "degenerate", "no_box")),
        ({"bbox": ["1_0", 2, 3, 4]}, (math.nan, 2, 3, 4), ("degenerate",)),
        ({"bbox": [1, 2, None, 4]}, (1, 2, math.nan, 4), ("degenerate",)),
        ({"bbox": [1, 2, math.nan, 4]}, (1, 2, math.nan, 4), ("degenerate",)),
        ({"bbox": [1, 2, math.inf, 4]}, (1, 2, math.inf, 4), ("degenerate",)),
        ({"bbox": [1, 2, 300, 4]}, (1, 2, 300, 4), ("clipped",)),
        ({"bbox": [40, 2, 3, 4]}, (40, 2, 3, 4), ("outside",)),
        ({"iscrowd": 1}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": True}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": "1"}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": 1.0}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": "true"}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": "1.0"}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": None}, (1, 2, 3, 4), ()),
        ({"iscrowd": "0"}, (1, 2, 3, 4), ()),
        ({"iscrowd": "false"}, (1, 2, 3, 4), ()),
        ({"iscrowd": 0.0}, (1, 2, 3, 4), ()),
        ({"iscrowd": False}, (1, 2, 3, 4), ()),
        ({"ignore": 0}, (1, 2, 3, 4), ()),
        ({"ignore": None, "is_ignore": False}, (1, 2, 3, 4), ()),
        ({"ignore": 1}, (1, 2, 3, 4), ("ignored",)),
        ({"ignore": "true"}, (1, 2, 3, 4), ("ignored",)),
        ({"is_ignore": True}, (1, 2, 3, 4), ("ignored",)),
        ({"attributes": {"occluded": False, "rotation": 45.0}}, (1, 2, 3, 4), ("rotated",)),
        ({"attributes": {"rotation": "12.5"}}, (1, 2, 3, 4), ("rotated",)),
        ({"attributes": {"rotation": 0.0}}, (1, 2, 3, 4), ()),
        ({"attributes": {"rotation": 360}}, (1, 2, 3, 4), ()),
        ({"attributes": {"rotation": "left"}}, (1, 2, 3, 4), ()),
        ({"attributes": {}}, (1, 2, 3, 4), ()),
        ({"attributes": [1, {"rotation": 5}]}, (1, 2, 3, 4), ()),
        ({"attributes": "rotation"}, (1, 2, 3, 4), ()),
        ({"rotation": -30}, (1, 2, 3, 4), ("rotated",)),
        ({"angle": 1e-3, "ignore": 1}, (1, 2, 3, 4), ("ignored", "rotated")),
        ({"angle": math.nan, "rotation": 0}, (1, 2, 3, 4), ()),
        ({"category_id": 77}, (1, 2, 3, 4), ("unknown_category",)),
        ({"category_id": None}, (1, 2, 3, 4), ("unknown_category",)),
        ({"category_id": "2"}, (1, 2, 3, 4), ()),
        ({"category_id": 2.0}, (1, 2, 3, 4), ()),
        ({"category_id": "cat"}, (1, 2, 3, 4), ("unknown_category",)),
        ({"category_id": "02"}, (1, 2, 3, 4), ("unknown_category",)),
        ({"image_id": "1", "id": 5.0}, (1, 2, 3, 4), ()),
    ],
)
@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_every_spelling_of_a_box(tmp_path, change, bbox, flags, layer):
    samples, _ = own(tmp_path, one(change), layer)
    box = first_annotation(samples)
    assert np.array_equal(box.bbox, bbox, equal_nan=True)
    assert box.flags == flags and box.id == 5
    assert box.category == ("" if "unknown_category" in flags else "cat")


def test_annotations_without_ids_are_numbered(tmp_path):
    content = one({})
    content["annotations"] = [{"image_id": 1, "bbox": [i, 0, 1, 1]} for i in range(3)]
    content["annotations"][1]["id"] = 70
    samples, _ = own(tmp_path, content)
    assert [(a.id, a.bbox[0]) for a in samples[0].annotations] == [(1, 0.0), (3, 2.0), (70, 1.0)]


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ({"height": None, "width": None}, (0, 0)),
        ({"height": "20", "width": 30.0}, (20, 30)),
        ({"height": -5, "width": 10**30}, (0, 0)),
        ({"height": math.nan, "width": "wide"}, (0, 0)),
    ],
)
def test_every_spelling_of_a_size(tmp_path, image, size):
    samples, _ = own(tmp_path, one({"bbox": [100, 100, 1, 1]}, **image))
    assert (samples[0].height, samples[0].width) == size
    assert first_annotation(samples).flags == (() if size == (0, 0) else ("outside",))


def test_a_file_name_that_is_no_unicode(tmp_path):
    samples, _ = own(tmp_path, json.dumps(one({}, file_name="\ud800.jpg")))
    assert samples[0].file_name == "?.jpg"


def test_an_image_without_a_name_is_a_row_with_an_error(tmp_path):
    samples, report = own(tmp_path, one({}, file_name=None))
    assert report.errors == 1 and "no file name" in str(samples[0].error) and len(samples[0].annotations) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (one({"image_id": ""}), r"record 1 of 'annotations' cannot be understood \(its 'image_id' should be a whole"),
        (one({"image_id": None}), "it is null"),
        (one({"image_id": 10**30}), "should be a whole number or a text"),
        (one({"image_id": 1.5}), "it is 1.5"),
        (one({}, id=True), "record 1 of 'images' .* it is true"),
        ({"images": []}, "has no 'annotations'"),
        ({"annotations": []}, "has no 'images'"),
        ({"images": [], "annotations": []}, "list no images"),
        ([], "a JSON array where a JSON object"),
    ],
)
def test_what_has_no_identity_is_refused(tmp_path, content, sentence):
    with pytest.raises(SynthgenError, match=sentence) as why:
        own(tmp_path, content)
    assert "\n" not in str(why.value)
    assert not list((tmp_path / "store").rglob("*.parquet"))


SQUARE = [[2, 2, 10, 2, 10, 12, 2, 12]]


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        (SQUARE, 80),
        ([*SQUARE, [20, 2, 22, 2, 22, 4, 20, 4]], 84),
        ({"size": [20, 30], "counts": [0, 40, 560]}, 40),
        ({"size": [20, 30], "counts": "0X1`a0"}, 40),
        (None, None),
        ([], None),
    ],
)
def test_human_masks(tmp_path, segmentation, area):
    samples, report = own(tmp_path, one({"segmentation": segmentation}), "human")
    box = first_annotation(samples)
    assert box.flags == () and box.bbox == (1, 2, 3, 4)
    assert (box.segmentation and rle_area(box.segmentation)) == area
    assert report.masks == (area is not None) and box.mask_source == ("human" if area else None)


@pytest.mark.parametrize(
    "segmentation",
    [
        "abc",
        17,
        [[1, 2]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, math.nan]],
        [["a", "b", "c", "d", "e", "f"]],
        [[1e300, 0, 0, 1e300, 5, 5]],
        [[[1, 2, 3, 4, 5, 6]]],
        {"size": [20, 31], "counts": [600]},
        {"size": [20, 30], "counts": [601]},
        {"size": [20, 30], "counts": [-1, 601]},
        {"size": [20, 30], "counts": "~~~~"},
        {"size": 20, "counts": [600]},
        {"size": [20, 30], "counts": None},
        {"counts": [600]},
    ],
)
def test_a_bad_segmentation_is_flagged_and_the_box_stays(tmp_path, segmentation):
    samples, report = own(tmp_path, one({"segmentation": segmentation}), "human")
    box = first_annotation(samples)
    assert box.flags == ("bad_segmentation",) and box.segmentation is None and box.bbox == (1, 2, 3, 4)
    assert report.masks == 0


@pytest.mark.parametrize("size", [(2_000_000_000, 2_000_000_000), (0, 0)])
def test_a_mask_of_an_absurd_image_is_never_made(tmp_path, size):
    samples, _ = own(tmp_path, one({"segmentation": SQUARE}, height=size[0], width=size[1]), "human")
    assert first_annotation(samples).flags == ("bad_segmentation",)


def test_a_box_is_read_off_the_mask_where_there_is_none(tmp_path):
    samples, _ = own(tmp_path, one({"segmentation": SQUARE, "bbox": None}), "human")
    box = first_annotation(samples)
    assert box.segmentation is not None
    x1, y1, x2, y2 = rle_bbox_xyxy(box.segmentation)
    assert box.bbox == (x1, y1, x2 - x1, y2 - y1) == (2, 2, 8, 10) and box.flags == ("no_box",)


def test_categories(tmp_path):
    """Stripped, spelt as they are, the last one of an id; two ids of one name are one category."""
    content = one({})
    ids = [1, 2, 3, 4, 5, 6]
    content["categories"] = [
        *({"id": i, "name": name} for i, name in zip(ids, [" Bakset", "cat ", "cat", "", None, "old"], strict=True)),
        {"id": 6, "name": "new"},
    ]
    content["annotations"] = [{"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 1, i]} for i in ids]
    samples, report = own(tmp_path, content)
    assert [a.category for a in samples[0].annotations] == ["Bakset", "cat", "cat", "", "", "new"]
    assert report.flags == {"unknown_category": 2}
    store = ShardStore(tmp_path / "store")
    footer = store.read_footer(store.list_shards("d", "s", "annotations")[0])
    assert footer is not None and footer["categories"] == ["Bakset", "cat", "new"]


def test_counts_of_flags_add_up(tmp_path, shared):
    """A real file made dirty: as many flags as mistakes."""
    content = json.loads(shared("data/coco_tiny/annotations/instances_val2017.json").read_text())
    mistakes: Counter[str] = Counter()
    for place, annotation in enumerate(content["annotations"]):
        if annotation["iscrowd"]:
            mistakes["crowd"] += 1
        elif place % 7 == 0:
            annotation["bbox"] = [-5, -5, 20, 20]
            annotation["category_id"] = 1 + place  # so that no two are duplicates
            mistakes["clipped"] += 1
        elif place % 11 == 0:
            annotation["bbox"][2] = 0
            mistakes["degenerate"] += 1
    names = [{"id": i, "name": str(i)} for i in range(1, 1000)]
    _, report = own(tmp_path, content | {"categories": names})
    assert report.flags == dict(mistakes) and report.annotations == 815
