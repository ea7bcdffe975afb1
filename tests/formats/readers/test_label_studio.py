"""Label Studio: regions, brush masks, which annotation counts, paths of images, JSON-MIN, hostile files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.brush_rle import encode_brush_rle
from fakes.reader_rows import first_batch_share, ingested, read_rows, rows_of_files, write_image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import label_studio
from synthgen.records.rle import decode_mask, rle_area


def result(
    kind: str, labels: Any = ("cat",), size: tuple[Any, Any] | None = (40, 30), id: Any = None, **value: Any
) -> dict[str, Any]:
    named = {**value, kind: list(labels)} if labels is not None else value
    out: dict[str, Any] = {"type": kind, "value": named, "from_name": "label", "to_name": "image", "origin": "manual"}
    if size:
        out |= {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
    return out | ({"id": id} if id is not None else {})


def rectangle(x: Any = 10, y: Any = 20, width: Any = 50, height: Any = 40, **more: Any) -> dict[str, Any]:
    return result("rectanglelabels", x=x, y=y, width=width, height=height, rotation=more.pop("rotation", 0), **more)


def annotation(*results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(results), "was_cancelled": False, "ground_truth": False, **more}


def task(*results: Any, image: Any = "a.jpg", id: Any = 7, **more: Any) -> dict[str, Any]:
    return {"id": id, "annotations": [annotation(*results)], "predictions": [], "data": {"image": image}, **more}


def put(path: Path, *tasks: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(tasks)))
    return path


def one(root: Path, *results: Any):
    """The rows of a folder with one task and its image."""
    put(root / "result.json", task(*results))
    write_image(root / "a.jpg")
    return read_rows(label_studio, root)


def masks(root: Path, *results: Any):
    """The annotations after an ingest of the layer of masks."""
    one(root / "d", *results)
    return ingested(root / "store", label_studio, root / "d")["a.jpg"].annotations


# --- regions ----------------------------------------------------------------------------------------------------------


def test_percent_become_pixels(tmp_path):
    found = one(tmp_path, rectangle())
    assert found.boxes("a.jpg") == [(4, 6, 20, 12)] and found.images == {"a.jpg": (30, 40, None)}
    assert found.rows[0].name == "cat" and found.rows[0].flags == set()


@pytest.mark.parametrize(
    ("rotation", "bbox", "flags"),
    [
        (0, (10, 12, 20, 6), set()),
        (360, (10, 12, 20, 6), set()),
        (90, (4, 12, 6, 20), set()),
        (45, (10 - 6 / math.sqrt(2), 12, 26 / math.sqrt(2), 26 / math.sqrt(2)), {"rotated"}),
        (-30, (10, 12 - 10, 20 * math.cos(math.pi / 6) + 3, 10 + 6 * math.cos(math.pi / 6)), {"rotated"}),
    ],
)
def test_a_rectangle_turns_clockwise_around_its_top_left_corner(tmp_path, rotation, bbox, flags):
    [row] = one(tmp_path, rectangle(25, 40, 50, 20, rotation=rotation)).rows
    assert row.bbox == pytest.approx(bbox, abs=1e-9) and row.flags == flags


def test_polygons_and_ellipses_have_masks(tmp_path):
    polygon, ellipse, tilted = masks(
        tmp_path,
        result("polygonlabels", points=[[25, 20], [50, 20], [50, 50]], closed=True),
        result("ellipselabels", x=50, y=50, radiusX=30, radiusY=10, rotation=0),
        result("ellipselabels", x=50, y=50, radiusX=30, radiusY=10, rotation=30),
    )
    assert polygon.bbox == pytest.approx((10, 6, 10, 9)) and 36 <= rle_area(polygon.segmentation) <= 54
    assert ellipse.bbox == pytest.approx((8, 12, 24, 6)) and not ellipse.flags
    assert tilted.flags == ("rotated",) and decode_mask(tilted.segmentation)[20, 28]
    assert rle_area(tilted.segmentation) == pytest.approx(math.pi * 36, rel=0.05)


@pytest.mark.parametrize("value", [1, 255])
def test_a_brush_is_a_mask_with_its_tight_box(tmp_path, value):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:9, 10:30] = value
    mask[20, 3] = value
    [a] = masks(tmp_path, result("brushlabels", rle=encode_brush_rle(mask), format="rle"))
    assert (decode_mask(a.segmentation) == (mask > 0)).all() and a.bbox == (3, 5, 27, 16) and not a.flags


@pytest.mark.parametrize(
    "rle", [None, [], "x", [1, 2, 3], [0, 0, 18, 192, 57, 27, 240, 0], [256], [-1], [1.5], [None], [0] * 50]
)
def test_a_brush_that_cannot_be_read_stays_with_flags(tmp_path, rle):
    [row] = one(tmp_path, result("brushlabels", rle=rle, format="rle")).rows
    assert row.flags == {"bad_segmentation", "no_box"}


@pytest.mark.parametrize("kind", ["keypointlabels", "vectorlabels", "bitmasklabels", "hypertextlabels"])
def test_regions_without_an_area_are_counted(tmp_path, kind):
    found = one(tmp_path, result(kind, x=1, y=2), rectangle())
    assert len(found.rows) == 1 and found.findings["not_an_object"].count == 1
    assert found.findings["not_an_object"].examples[0][1].endswith("'cat'")


def test_choices_texts_and_relations_are_no_regions(tmp_path):
    found = one(tmp_path, {"type": "choices", "value": {"choices": ["day"]}}, {"type": "relation", "from_id": "a"},
                {"type": "textarea", "value": {"text": ["x"]}}, rectangle())  # fmt: skip
    assert len(found.rows) == 1 and not found.findings


def test_a_shape_and_its_labels_may_come_as_two_results(tmp_path):
    box = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0}
    found = one(tmp_path, result("rectangle", None, id="r", **box), result("labels", ["dog"], id="r", **box),
                result("labels", ["cow"], id="s", **box), result("rectangle", None, id="t", **box))  # fmt: skip
    assert [(row.name, row.bbox) for row in found.rows] == [(name, (4, 6, 20, 12)) for name in ("dog", "cow", "")]


@pytest.mark.parametrize(
    ("turn", "is_turned"), [(0, False), (360, False), (90, True), (-180, True), (None, False), ("x", False)]
)
def test_an_image_that_was_turned_in_the_tool_is_counted(tmp_path, turn, is_turned):
    found = one(tmp_path, {**rectangle(), "image_rotation": turn})
    assert found.boxes("a.jpg") == [(4, 6, 20, 12)] and ("annotated_turned" in found.findings) == is_turned


def test_several_labels_are_counted_and_the_first_counts(tmp_path):
    found = one(tmp_path, rectangle(labels=["cat", "dog"]), rectangle(labels=[7]), rectangle(labels=[]))
    assert [row.name for row in found.rows] == ["cat", "7", ""]
    assert found.findings["several_labels"].examples == (("a.jpg", "cat, dog"),)


@pytest.mark.parametrize(
    "bad",
    [
        rectangle("x"), rectangle(None), rectangle(math.nan), rectangle(rotation="x"), rectangle(rotation=math.inf),
        result("rectanglelabels"),
        result("polygonlabels", points=[[1, 2], [3, 4]]), result("polygonlabels", points=[[1, 2], [3], [5, 6]]),
        result("polygonlabels", points="x"), result("ellipselabels", x=1, y=2, radiusX=0, radiusY=1),
    ],
)  # fmt: skip
def test_a_region_that_cannot_be_read_stays_with_a_flag(tmp_path, bad):
    assert [row.flags for row in one(tmp_path, bad, rectangle()).rows] == [{"no_box"}, set()]


def test_a_missing_size_is_read_from_the_image_and_without_it_the_image_has_an_error(tmp_path):
    small = rectangle(size=None)
    put(tmp_path / "result.json", task(small, id=1), task(small, image="b.jpg", id=2))
    write_image(tmp_path / "a.jpg")
    rows = read_rows(label_studio, tmp_path)
    assert rows.boxes("a.jpg") == [(4, 6, 20, 12)] and rows.objects["b.jpg"][0].flags == {"no_box"}
    assert rows.images["a.jpg"] == (30, 40, None) and "its size is not known" in str(rows.images["b.jpg"][2])


# --- which annotation counts ------------------------------------------------------------------------------------------


def boxes_of(root: Path, *annotations: dict[str, Any], **more: Any):
    put(root / "result.json", {**task(), "annotations": list(annotations), **more})
    write_image(root / "a.jpg")
    rows = read_rows(label_studio, root)
    return [row.bbox[0] for row in rows.rows], rows


def test_the_ground_truth_counts_else_the_newest(tmp_path):
    old = annotation(rectangle(10), updated_at="2024-01-01T00:00:00Z", id=3)
    new = annotation(rectangle(20), updated_at="2025-01-01T00:00:00Z", id=1)
    cancelled = annotation(rectangle(30), updated_at="2026-01-01T00:00:00Z", was_cancelled=True)
    truth = annotation(rectangle(40), updated_at="2023-01-01T00:00:00Z", ground_truth=True)
    found, rows = boxes_of(tmp_path / "a", old, new, cancelled)
    assert found == [8] and rows.findings["several_annotations"].count == 1
    found, rows = boxes_of(tmp_path / "b", old, new, cancelled, truth)
    assert found == [16] and rows.findings["several_annotations"].count == 2
    found, rows = boxes_of(tmp_path / "c", annotation(rectangle(10), id=2), annotation(rectangle(20), id=10))
    assert found == [8]


@pytest.mark.parametrize(
    ("annotations", "why"),
    [([], "its task has no annotation"), ([annotation(rectangle(), was_cancelled=True)], "its task was skipped")],
)
def test_a_task_without_a_valid_annotation_is_counted(tmp_path, annotations, why):
    put(tmp_path / "result.json", {**task(), "annotations": annotations}, task(image="b.jpg", id=8))
    rows = read_rows(label_studio, tmp_path)
    assert list(rows.images) == ["b.jpg"] and rows.findings["unlabeled_image"].examples == (("a.jpg", why),)


def test_an_empty_annotation_is_an_image_without_boxes(tmp_path):
    found, rows = boxes_of(tmp_path, annotation())
    assert found == [] and list(rows.images) == ["a.jpg"] and not rows.findings


def test_predictions_are_counted_and_old_exports_are_read(tmp_path):
    found, rows = boxes_of(tmp_path, annotation(rectangle()), predictions=[{"result": [rectangle(), rectangle()]}])
    assert len(found) == 1 and rows.findings["ignored_prediction"].count == 2
    old = task(rectangle())
    old["completions"] = old.pop("annotations")
    put(tmp_path / "old" / "result.json", old)
    assert len(read_rows(label_studio, tmp_path / "old").rows) == 1


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "reference", "found"),
    [
        ("a.jpg", "a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg", "images/a.jpg"),
        ("a.jpg", "/data/upload/1/1a2b3c4d-a.jpg", "a.jpg"),
        ("images/1a2b3c4d-a.jpg", "/data/upload/1/1a2b3c4d-a.jpg", "images/1a2b3c4d-a.jpg"),
        ("b/a.jpg", "/data/local-files/?d=set/b/a.jpg", "b/a.jpg"),
        ("a b+c.jpg", "/data/local-files/?d=set%2Fa%20b+c.jpg", "a b+c.jpg"),
        ("train/a.jpg", "s3://bucket/some/train/a.jpg", "train/a.jpg"),
        ("a b.jpg", "https://example.org/x/a%20b.jpg?token=1#y", "a b.jpg"),
        ("a.jpg", "gs://bucket/a.jpg", "a.jpg"),
        ("a.jpg", "..\\..\\upload\\a.jpg", "a.jpg"),
        ("a.jpg", "C:\\pics\\a.jpg", "a.jpg"),
        ("b.jpg", "/data/upload/1/1a2b3c4d-gone.jpg", "1a2b3c4d-gone.jpg"),
        ("b.jpg", "http://[bad/gone.jpg", "gone.jpg"),
    ],
)
def test_references_to_images(tmp_path, there, reference, found):
    put(tmp_path / "result.json", task(rectangle(), image=reference))
    write_image(tmp_path / there)
    assert list(read_rows(label_studio, tmp_path).images) == [found]


@pytest.mark.parametrize(
    "data", [{"photo": "a.jpg"}, {"text": "hello", "scan": "/data/upload/3/a.jpg"}, {"text": "x", "image": "a.jpg"}]
)
def test_the_image_is_the_value_that_looks_like_one(tmp_path, data):
    put(tmp_path / "result.json", {**task(rectangle()), "data": data})
    write_image(tmp_path / "a.jpg")
    assert list(read_rows(label_studio, tmp_path).images) == ["a.jpg"]


def test_the_uploaded_file_is_used_if_the_reference_leads_nowhere(tmp_path):
    put(tmp_path / "result.json", task(rectangle(), image="https://example.org/photo/7", file_upload="1a2b3c4d-a.jpg"))
    write_image(tmp_path / "a.jpg")
    assert list(read_rows(label_studio, tmp_path).images) == ["a.jpg"]


@pytest.mark.parametrize(
    "image", ["", None, 7, [], "..", "/", "x" * 9_000 + ".jpg", "a\0.jpg", "../../../etc/passwd", "\ud800.jpg"]
)
def test_a_hostile_reference_is_a_row_with_an_error_or_a_missing_image(tmp_path, image):
    put(tmp_path / "d" / "result.json", task(rectangle(), image=image))
    [sample] = ingested(tmp_path / "store", label_studio, tmp_path / "d").values()
    assert len(sample.annotations) == 1 and ".." not in sample.file_name.split("/")


def test_a_list_of_images_is_an_error(tmp_path):
    put(tmp_path / "result.json", {**task(rectangle()), "data": {"images": ["a.jpg", "b.jpg"]}})
    [(name, (_, _, error))] = read_rows(label_studio, tmp_path).images.items()
    assert name == "a.jpg" and "a list of images" in str(error)


def test_ids_of_tasks_are_ids_of_images(tmp_path):
    put(tmp_path / "d" / "result.json", task(rectangle(), id=5), task(rectangle(20), id=6))
    write_image(tmp_path / "d" / "a.jpg")
    from fakes.ingested_samples import ingest_samples

    samples, _ = ingest_samples(tmp_path / "store", label_studio, label_studio.files(tmp_path / "d", "train", None))
    assert [(s.image_id, s.annotations[0].bbox[0]) for s in samples] == [(5, 4), (6, 8)]


# --- JSON-MIN ---------------------------------------------------------------------------------------------------------


def minimal(*regions: Any, image: str = "a.jpg", id: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "image": image,
        "id": id,
        "label": list(regions),
        "annotator": 1,
        "annotation_id": 4,
        "updated_at": "2024",
        **more,
    }


def region(kind: str, **value: Any) -> dict[str, Any]:
    return {**value, kind: ["cat"], "original_width": 40, "original_height": 30}


def test_json_min_is_read(tmp_path):
    box = region("rectanglelabels", x=10, y=20, width=50, height=40, rotation=0)
    corners = region("polygonlabels", points=[[25, 20], [50, 20], [50, 50]])
    put(tmp_path / "result.json", minimal(box, region("keypointlabels", x=1, y=2, width=0.2)),
        minimal(corners, image="b.jpg", id=2, mood="fine"))  # fmt: skip
    rows = read_rows(label_studio, tmp_path)
    assert rows.boxes("a.jpg") == [(4, 6, 20, 12)] and rows.boxes("b.jpg") == [pytest.approx((10, 6, 10, 9))]
    assert rows.images["a.jpg"] == (30, 40, None) and rows.findings["not_an_object"].count == 1


def test_json_min_is_recognised_by_its_regions_before_a_large_mask(tmp_path):
    box = region("rectanglelabels", x=10, y=20, width=50, height=40, rotation=0)
    put(tmp_path / "result.json", minimal(box, {"format": "rle", "rle": [1] * 100_000}))
    assert label_studio.recognize(tmp_path) == ("train",)


def test_of_several_annotations_in_json_min_the_newest_counts(tmp_path):
    boxes = [region("rectanglelabels", x=x, y=20, width=50, height=40) for x in (10, 20, 30)]
    put(tmp_path / "result.json", minimal(boxes[0], updated_at="2024"), minimal(boxes[1], updated_at="2026"),
        minimal(boxes[2], updated_at="2025"), minimal(boxes[2], id=9, image="b.jpg"))  # fmt: skip
    rows = read_rows(label_studio, tmp_path)
    assert [box[0] for box in rows.boxes("a.jpg")] == [8] and rows.findings["several_annotations"].count == 2
    assert len(rows.images) == 2


# --- layouts and broken files -----------------------------------------------------------------------------------------


def test_files_and_folders_are_splits(tmp_path):
    for name in ("b", "a"):
        put(tmp_path / "files" / f"{name}.json", task(rectangle(), image=f"{name}.jpg"))
    for name in ("val", "train"):
        put(tmp_path / "folders" / name / "result.json", task(rectangle()))
        write_image(tmp_path / "folders" / name / "images" / "a.jpg")
    assert label_studio.recognize(tmp_path / "files") == ("a", "b")
    assert list(read_rows(label_studio, tmp_path / "files", "b").images) == ["b.jpg"]
    assert label_studio.recognize(tmp_path / "folders") == ("train", "val")
    assert list(read_rows(label_studio, tmp_path / "folders", "val").images) == ["val/images/a.jpg"]


def test_one_file_is_a_dataset_and_the_user_may_name_the_images(tmp_path):
    path = put(tmp_path / "d" / "x.json", task(rectangle()))
    write_image(tmp_path / "pics" / "a.jpg")
    assert label_studio.recognize(path) == ("train",)
    files = label_studio.files(tmp_path / "d", "train", path).with_image_folder(tmp_path / "pics")
    assert rows_of_files(label_studio, files).images == {"a.jpg": (30, 40, None)}


def test_other_formats_are_not_recognised(tmp_path):
    for name, text in (
        ("coco", '{"images": [], "annotations": [], "data": {}}'),
        ("results", '[{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]'),
        ("labelme", '{"shapes": [], "imagePath": "a.jpg"}'),
        ("createml", '[{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2}}]}]'),
        ("phrases", '[{"annotation_id": "7_1", "image": "a.jpg", "height": 30, "solution": [1, 2, 3, 4]}]'),
        ("empty", "[]"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").write_text(text)
        assert label_studio.recognize(tmp_path / name) is None
    assert label_studio.recognize(tmp_path / "nowhere") is None


def test_a_missing_split_says_which_there_are(tmp_path):
    one(tmp_path)
    with pytest.raises(SynthgenError, match=r"no Label Studio split 'val' in .*; it has train"):
        label_studio.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="no file"):
        label_studio.files(tmp_path, "train", tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "text", ['[{"id": 1,', "{}", '[{"id": 1}] x', '[{"annotations": ' + "[" * 20_000, "", "[1 2]", '[{"a": "\\ud8"}]'],
    ids=["cut", "object", "more", "deep", "empty", "comma", "escape"],
)  # fmt: skip
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SynthgenError) as why:
        list(label_studio.read(label_studio.files(tmp_path, "train", tmp_path / "a.json"), "annotations"))
    assert "\n" not in str(why.value) and "a.json" in str(why.value)


def test_odd_values_in_tasks_are_counted_or_rows(tmp_path):
    odd = [7, None, [], {"id": 1, "annotations": 7, "data": "x"}, {"id": 2, "annotations": [None, 7], "data": None},
           {"id": 3, "annotations": [{"result": "x"}], "data": {"image": "a.jpg"}},
           {"id": 4, "annotations": [{"result": [None, 7, {"value": 7}, {"type": 7}]}],
            "data": {"image": "b.jpg"}}]  # fmt: skip
    path = put(tmp_path / "a.json", *odd)
    rows = rows_of_files(label_studio, label_studio.files(tmp_path, "train", path))
    assert list(rows.images) == ["a.jpg", "b.jpg"] and not rows.rows
    assert rows.findings["unreadable_line"].count == 3 and rows.findings["unlabeled_image"].count == 2


def test_a_large_file_is_streamed(tmp_path, monkeypatch):
    path = put(tmp_path / "a.json", *[task(*[rectangle()] * 20, id=n, image=f"{n}.jpg") for n in range(400)])
    assert first_batch_share(label_studio, label_studio.files(tmp_path, "train", path), monkeypatch) < 0.5


# --- real files -------------------------------------------------------------------------------------------------------


def test_the_sample_of_the_sdk(shared):
    rows = read_rows(label_studio, shared("data/formats/label-studio__sdk-coco"))
    [(name, size)] = rows.images.items()
    assert (name, size) == ("test_image1.jpg", (320, 500, None)) and rows.findings["not_an_object"].count == 2
    box, polygon = rows.rows
    assert (box.name, polygon.name) == ("rectangle_label", "polygon_label")
    assert box.bbox == pytest.approx((159.70961887, 13.16312057, 31.76043557, 31.77304965))
    assert polygon.bbox == pytest.approx((207.80399274, 11.34751773, 19.05626134, 28.59574468))
