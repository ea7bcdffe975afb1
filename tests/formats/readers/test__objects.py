"""Objects of an image in their documented forms; everything else is an error that shows the fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from synthgen.formats.readers import AnnotationBatch, ImageBatch
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._objects import BatchBuilder, ImageObject, parse_objects
from synthgen.records.rle import encode_mask

BOX = (1.0, 2.0, 3.0, 4.5)
SQUARE = [[2, 3, 8, 3, 8, 7, 2, 7]]


@pytest.mark.parametrize("box", ["bbox", "box"])
@pytest.mark.parametrize("label", ["category", "label", "name", "category_name", "category_id"])
def test_a_list_of_objects(box: str, label: str) -> None:
    value = 3 if label == "category_id" else "cat"
    [found] = parse_objects([{box: list(BOX), label: value, "id": 7, "iscrowd": 1, "area": 9.5}])
    assert found == ImageObject(BOX, value, 7, True, None)


@pytest.mark.parametrize("box", ["bbox", "bboxes", "boxes"])
@pytest.mark.parametrize("label", ["category", "categories", "labels", "category_ids", "names"])
def test_a_list_for_each_field(box: str, label: str) -> None:
    found = parse_objects({box: [list(BOX), [0, 0, 1, 1]], label: [4, 5], "is_crowd": [True, False], "extra": "x"})
    assert [(one.bbox, one.label, one.iscrowd) for one in found] == [(BOX, 4, True), ((0, 0, 1, 1), 5, False)]


@pytest.mark.parametrize("as_columns", [True, False])
def test_what_an_export_says_of_a_mask_is_read(as_columns: bool) -> None:
    records = [
        {"bbox": list(BOX), "category": "a", "segmentation": SQUARE, "mask_source": "sam", "provenance": "machine"},
        {"bbox": list(BOX), "category": "a", "segmentation": SQUARE, "mask_source": "sam", "provenance": "reviewed"},
        {"bbox": list(BOX), "category": "a", "segmentation": None, "mask_source": None, "provenance": None},
    ]
    value: Any = {name: [one[name] for one in records] for name in records[0]} if as_columns else records
    if as_columns:  # of another program
        value |= {"flags": "x", "captions": ["of the image"]}
    objects = parse_objects(value)
    assert [one.origin and one.origin.stated for one in objects] == ["machine", "reviewed", None]
    findings = FindingCounter()
    builder = BatchBuilder(findings, masked=True)
    list(builder.add(1, "a.jpg", 20, 30, objects, {}))
    [found] = findings.parts()
    assert (found.code, found.count, found.examples) == ("machine_masks", 1, (("a.jpg", "it has a mask by sam"),))
    [batch] = [part for part in builder.flush() if isinstance(part, AnnotationBatch)]
    assert batch.payload is not None and [payload is None for payload in batch.payload] == [False, False, True]


def test_no_objects() -> None:
    for value in (None, [], {"bbox": [], "category": []}, {"bbox": None, "category": None}):
        assert parse_objects(value) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([{"x": 1, "text": "a"}], "no bbox .their fields: x, text."),
        ({"caption": ["a"]}, "no bbox .their fields: caption."),
        ({"bbox": [[1, 2, 3, 4]], "category": []}, "different lengths .bbox 1, category 0."),
        ({"bbox": "x"}, "'bbox' of its objects is not a list"),
        ([1, 2], "neither a list of objects nor"),
        ("text", "neither a list of objects nor"),
        ([{"\ud800" * 60: 1}], r"no bbox"),
    ],
)
def test_another_form_is_an_error_with_its_fields(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as why:
        parse_objects(value)
    str(why.value).encode()


@pytest.mark.parametrize("box", [None, [], [1, 2, 3], [1, 2, 3, "x"], "1 2 3 4", {"x": 1}, [1, 2, 3, math.nan]])
def test_an_object_with_a_bad_box_stays(box: Any) -> None:
    good, bad = parse_objects([{"bbox": list(BOX), "label": "a"}, {"bbox": box, "label": "b"}])
    assert good.bbox == BOX and bad.label == "b" and not all(map(math.isfinite, bad.bbox))


@pytest.mark.parametrize(
    ("mask", "box"),
    [
        (SQUARE, (2, 3, 6, 4)),
        (SQUARE[0], (2, 3, 6, 4)),
        ([[0, 0, 1, 0, 1, 1], [5, 5, 9, 5, 9, 8]], (0, 0, 9, 8)),
        ([[1, 2]], None),
        ([[1, 2, 3, "x", 5, 6]], None),
        ({"size": [4, 4], "counts": [5, 2, 2, 2, 5]}, (1, 1, 2, 2)),
        ({"size": [4, 4], "counts": [5, 2, 2, 2, 50]}, None),
        ({"size": "x", "counts": "y"}, None),
        (5, None),
    ],
)
def test_an_object_without_a_box_gets_that_of_its_mask(mask: Any, box: tuple[float, ...] | None) -> None:
    [found] = parse_objects([{"category": "a", "segmentation": mask}])
    assert found.bbox == box if box is not None else math.isnan(found.bbox[0])
    [found] = parse_objects([{"bbox": list(BOX), "segmentation": mask}])
    assert found.bbox == BOX


def test_labels_are_stripped_names_or_whole_numbers() -> None:
    given = [" cat ", "", 3, 3.0, 3.5, True, None, "\ud800", 2**70]
    found = parse_objects([{"bbox": list(BOX), "label": value} for value in given])
    assert [one.label for one in found] == ["cat", None, 3, 3, None, None, None, "?", None]


def test_batches_have_the_names_of_their_categories() -> None:
    findings = FindingCounter()
    builder = BatchBuilder(findings, masked=True)
    rle = encode_mask(np.eye(4, dtype=np.uint8))
    objects = [
        ImageObject(BOX, "dog", None, False, SQUARE),
        ImageObject(BOX, 1, 70, True, {"size": [4, 4], "counts": rle.counts}),
        ImageObject((math.nan,) * 4, None, None, False, {"size": object()}),
    ]
    assert not list(builder.add(5, "a.jpg", 4, 6, objects, {1: "cat"}))
    assert not list(builder.add(6, "b.jpg", 0, 0, [ImageObject(BOX, 9, None, False, None)], {}, "broken"))
    images, boxes = builder.flush()
    assert isinstance(images, ImageBatch) and isinstance(boxes, AnnotationBatch)
    assert (images.image_id.tolist(), list(images.error or [])) == ([5, 6], [None, "broken"])
    assert boxes.id.tolist() == [1, 70, 3, 4] and boxes.iscrowd.tolist() == [False, True, False, False]
    assert boxes.flags["no_box"].tolist() == [False, False, True, False]
    assert boxes.payload == [b"[[2,3,8,3,8,7,2,7]]", boxes.payload[1], b"0", None] and rle.counts in boxes.payload[1]
    names = builder.categories().names
    assert [names.get(code) for code in boxes.category.tolist()] == ["dog", "cat", None, "9"]
    [finding] = findings.parts()
    assert (finding.code, finding.count, finding.examples[0][0]) == ("no_class_names", 1, "9")


def test_categories_have_the_same_numbers_and_order_in_all_splits() -> None:
    found = []
    for labels in (["dog", "cat", "bird"], ["cat", "bird", "dog"]):
        builder = BatchBuilder(FindingCounter(), masked=False)
        builder.declare(["wolf", "dog"])
        objects = [ImageObject(BOX, label, None, False, None) for label in labels]
        assert not list(builder.add(1, "a.jpg", 4, 6, objects, {}))
        found.append(list(builder.categories().names.items()))
    assert found[0] == found[1] and [name for _, name in found[0]] == ["wolf", "dog", "bird", "cat"]
    assert [number for number, _ in found[0][:2]] == [0, 1]


def test_a_batch_is_given_when_it_is_full() -> None:
    builder = BatchBuilder(FindingCounter(), masked=False)
    one = ImageObject(BOX, "a", None, False, None)
    parts = [part for i in range(2_500) for part in builder.add(i, f"{i}", 0, 0, [one] * 10, {})]
    assert sum(len(part.id) for part in parts if isinstance(part, AnnotationBatch)) == 20_000
    assert not list(builder.flush())[2:] and not list(builder.flush())
