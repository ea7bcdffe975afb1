"""COCO-style files as exporters write them: ids, boxes without bbox, sizes, names, root categories, crowds."""

from __future__ import annotations

import gzip
import json
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.ingested_samples import first_annotation, ingest_samples
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json
from synthgen.ingest.ingest import IngestReport
from synthgen.ingest.validation.diagnosis import ValidationReport, format_validation_report
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask, rle_area
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]

SQUARE = [2, 2, 10, 2, 10, 12, 2, 12]


def ingested(folder: Path, content: Any, layer: str = "annotations") -> tuple[list[Sample], IngestReport]:
    path = folder / "own.json"
    path.write_text(json.dumps(content))
    return ingest_samples(folder / "store", coco_json, coco_json.files(folder, "train", path), layer)


def from_case(folder: Path, path: Path, layer: str = "annotations") -> tuple[list[Sample], IngestReport]:
    return ingest_samples(folder / "store", coco_json, coco_json.files(path.parent, "train", path), layer)


def examined(folder: Path, content: Any) -> ValidationReport:
    path = folder / "own.json"
    path.write_text(json.dumps(content))
    return validate_dataset("coco_json", folder, annotations=path, check_images="none")


def counts(report: ValidationReport) -> dict[str, int]:
    return {finding.code: finding.count for finding in report.splits[0].findings}


def names_of_layer(folder: Path, layer: str = "annotations") -> list[str]:
    store = ShardStore(folder / "store")
    footer = store.read_footer(store.list_shards("d", "s", layer)[0])
    assert footer is not None
    return list(footer["categories"])


def dataset(*annotations: dict[str, Any], **image: Any) -> dict[str, Any]:
    """One image of 30 x 20 pixels; the annotations get ids 1, 2, ..."""
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30, **image}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 2, **one} for i, one in enumerate(annotations, start=1)
        ],
        "categories": [{"id": 2, "name": "cat"}],
    }


# --- Ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [("1_23", "12_3"), ("007", "7"), ("7", "7.0"), (" 7", "7"), ("٧", "7"), ("a", "b")])
def test_images_with_different_texts_as_ids_keep_their_own_boxes(tmp_path: Path, texts: tuple[str, str]) -> None:
    content = {
        "images": [{"id": text, "file_name": f"{i}.png", "height": 20, "width": 30} for i, text in enumerate(texts)],
        "annotations": [{"image_id": text, "bbox": [i, 0, 5, 5], "category_id": 1} for i, text in enumerate(texts)],
    }
    for layer in coco_json.LAYERS:
        (tmp_path / layer).mkdir()
        samples, report = ingested(tmp_path / layer, content, layer)
        found = {sample.file_name: [a.bbox for a in sample.annotations] for sample in samples}
        assert found == {"0.png": [(0, 0, 5, 5)], "1.png": [(1, 0, 5, 5)]} and report.errors == 0


def test_ids_and_categories_that_are_uuids(tmp_path: Path) -> None:
    ids = [f"5f0c9f0e-0000-4000-8000-00000000000{i}" for i in range(4)]
    content = {
        "images": [{"id": ids[0], "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [{"id": ids[1], "image_id": ids[0], "category_id": ids[2], "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": ids[3], "name": "dog"}, {"id": ids[2], "name": "cat"}],
    }
    samples, report = ingested(tmp_path, content)
    assert first_annotation(samples).category == "cat" and report.errors == 0
    assert counts(examined(tmp_path, content)) == {"unused_category": 1}


def test_a_number_in_quotes_is_the_same_id(tmp_path: Path) -> None:
    content = dataset({"bbox": [1, 2, 3, 4], "image_id": "139", "category_id": "2"}, id=139)
    samples, report = ingested(tmp_path, content)
    assert [s.image_id for s in samples] == [139] and report.errors == 0 and len(samples[0].annotations) == 1


@pytest.mark.parametrize("number", [7, "frame_7"])
def test_two_images_of_one_id_stop_the_ingest(tmp_path: Path, number: Any) -> None:
    content = dataset({"bbox": [1, 2, 3, 4], "image_id": number}, id=number)
    content["images"].append({**content["images"][0], "file_name": "b.png"})
    with pytest.raises(
        SynthgenError, match=r"two images have the id .*7.*, a.png and b.png, .*; give each image"
    ) as why:
        ingested(tmp_path, content)
    assert ("'frame_7'" in str(why.value)) == (number == "frame_7") and "\n" not in str(why.value)
    assert not list((tmp_path / "store").rglob("*.parquet"))
    report = examined(tmp_path, content)
    assert not report.is_ready and counts(report)["same_image_id"] == 1 and "id of its own" in report.verdict
    [finding] = [f for f in report.splits[0].findings if f.code == "same_image_id"]
    assert finding.stops and finding.examples[0].where == "b.png" and "as a.png" in finding.examples[0].what


def test_an_image_that_is_listed_twice_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = dataset({"bbox": [1, 2, 3, 4]})
    content["images"].append(dict(content["images"][0]))
    with caplog.at_level(logging.WARNING):
        samples, report = ingested(tmp_path, content)
    assert (len(samples), report.errors, report.annotations) == (1, 0, 1)
    assert "listed again" in caplog.text and "a.png" in caplog.text
    found = examined(tmp_path, content)
    assert found.is_ready and counts(found) == {"repeated_image": 1}


# --- Boxes and masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [{}, {"bbox": None}, {"bbox": []}, {"bbox": {}}])
@pytest.mark.parametrize(
    "segmentation",
    [[SQUARE], SQUARE, [SQUARE, []], {"size": [20, 30], "counts": [42, 10, 10, 10, 10, 10, 508]}],
)
def test_an_annotation_without_a_box_gets_that_of_its_mask(tmp_path: Path, box: Any, segmentation: Any) -> None:
    samples, report = ingested(tmp_path, dataset({**box, "segmentation": segmentation}))
    one = first_annotation(samples)
    assert one.bbox == ((2, 2, 8, 10) if isinstance(segmentation, list) else (2, 2, 3, 10))
    assert one.flags == ("no_box",) and report.has_usable_box
    assert examined(tmp_path, dataset({**box, "segmentation": segmentation})).splits[0].prompted == 1


def test_a_box_of_five_numbers_is_read_off_the_mask(tmp_path: Path) -> None:
    samples, _ = ingested(tmp_path, dataset({"bbox": [1, 2, 3, 4, 5], "segmentation": [SQUARE]}))
    assert (first_annotation(samples).bbox, first_annotation(samples).flags) == ((2, 2, 8, 10), ("bad_box", "no_box"))


def test_a_box_that_is_there_stays_whatever_the_mask_says(tmp_path: Path) -> None:
    samples, _ = ingested(tmp_path, dataset({"bbox": [1, 1, 2, 2], "segmentation": [SQUARE]}))
    assert first_annotation(samples).bbox == (1, 1, 2, 2) and first_annotation(samples).flags == ()


@pytest.mark.parametrize("nothing", [{}, {"segmentation": []}, {"segmentation": {}}, {"segmentation": None}])
@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_no_mask_is_no_finding(tmp_path: Path, nothing: Any, layer: str) -> None:
    samples, report = ingested(tmp_path, dataset({"bbox": [1, 2, 3, 4], "area": 12, **nothing}), layer)
    assert first_annotation(samples).flags == () and report.masks == 0
    assert counts(examined(tmp_path, dataset({"bbox": [1, 2, 3, 4], **nothing}))) == {}


def test_an_annotation_with_an_area_alone_stays_without_a_box(tmp_path: Path) -> None:
    content = dataset({"area": 12})
    samples, report = ingested(tmp_path, content)
    assert first_annotation(samples).flags == ("degenerate", "no_box") and not report.has_usable_box
    assert not examined(tmp_path, content).is_ready


@pytest.mark.parametrize(
    ("segmentation", "flags", "area"),
    [
        (SQUARE, ("flat_polygon",), 80),
        ([[2, 2], [10, 2], [10, 12], [2, 12]], ("flat_polygon",), 80),
        ([SQUARE, [20, 20, 21, 21]], ("bad_polygon_part",), 80),
        ([SQUARE, []], ("bad_polygon_part",), 80),
        ([[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], ("bad_segmentation",), None),
        ({"size": [30, 20], "counts": [600]}, ("bad_segmentation",), None),
    ],
)
def test_masks_of_exporters(tmp_path: Path, segmentation: Any, flags: tuple[str, ...], area: int | None) -> None:
    content = dataset({"bbox": [1, 2, 3, 4], "segmentation": segmentation})
    samples, report = ingested(tmp_path, content, "human")
    one = first_annotation(samples)
    assert one.flags == flags and one.bbox == (1, 2, 3, 4)
    assert (one.segmentation and rle_area(one.segmentation)) == area and report.masks == (area is not None)
    found = examined(tmp_path, content)
    assert counts(found) == dict.fromkeys(flags, 1)
    assert found.splits[0].findings[0].examples[0].what, "each has its reason"


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": 0, "width": 0}])
def test_a_mask_without_the_size_of_its_image_takes_that_of_the_file(tmp_path: Path, size: Any) -> None:
    content = dataset({"bbox": [1, 2, 300, 4], "segmentation": [SQUARE]})
    for key in ("height", "width"):
        content["images"][0].pop(key)
    content["images"][0] |= size
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    samples, _ = ingested(tmp_path, content, "human")
    assert (samples[0].height, samples[0].width) == (20, 30)
    one = first_annotation(samples)
    assert one.segmentation is not None and rle_area(one.segmentation) == 80
    assert one.flags == ("clipped",), "the box is checked against the size that became known"


def test_a_mask_without_the_size_of_its_image_takes_that_of_the_rle(tmp_path: Path) -> None:
    content = dataset({"bbox": [1, 2, 3, 4], "segmentation": {"size": [20, 30], "counts": [0, 40, 560]}}, height=0)
    samples, _ = ingested(tmp_path, content, "human")
    assert (samples[0].height, samples[0].width) == (20, 30) and first_annotation(samples).segmentation is not None


def test_a_mask_of_no_known_size_is_flagged(tmp_path: Path) -> None:
    samples, _ = ingested(tmp_path, dataset({"bbox": [1, 2, 3, 4], "segmentation": [SQUARE]}, height=0), "human")
    assert first_annotation(samples).flags == ("bad_segmentation",)


# --- Names and categories --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), [(7, "7"), (7.0, "7.0"), (-1.5, "-1.5"), (10**30, str(10**30))])
def test_names_that_are_numbers_become_their_text(tmp_path: Path, name: Any, text: str) -> None:
    content = dataset({"bbox": [1, 2, 3, 4]}, file_name=name)
    content["categories"][0]["name"] = name
    samples, report = ingested(tmp_path, content)
    assert (samples[0].file_name, first_annotation(samples).category) == (text, text) and report.errors == 0


@pytest.mark.parametrize("name", [None, True, [], {}, float("nan")])
def test_names_that_are_nothing_stay_unknown(tmp_path: Path, name: Any) -> None:
    content = dataset({"bbox": [1, 2, 3, 4]}, file_name=name)
    content["categories"][0]["name"] = name
    samples, report = ingested(tmp_path, content)
    assert "no file name" in str(samples[0].error) and report.flags == {"unknown_category": 1}


def test_outer_blanks_of_a_file_name_stay(tmp_path: Path) -> None:
    samples, _ = ingested(tmp_path, dataset({"bbox": [1, 2, 3, 4]}, file_name="a.png "))
    assert samples[0].file_name == "a.png "


ROBOFLOW = [
    {"id": 0, "name": "kites", "supercategory": "none"},
    {"id": 2, "name": "kite", "supercategory": "kites"},
    {"id": 3, "name": "bird", "supercategory": "kites"},
]


def test_a_root_category_without_boxes_is_no_negative(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = dataset({"bbox": [1, 2, 3, 4]}) | {"categories": ROBOFLOW}
    with caplog.at_level(logging.WARNING):
        ingested(tmp_path, content)
    assert names_of_layer(tmp_path) == ["bird", "kite"]
    assert "supercategory" in caplog.text and "kites" in caplog.text
    found = examined(tmp_path, content)
    assert found.is_ready and counts(found)["root_category"] == 1


@pytest.mark.parametrize("root", ["2", 2**50, -1])
def test_a_root_category_with_boxes_stays(tmp_path: Path, root: Any) -> None:
    content = dataset({"bbox": [1, 2, 3, 4], "category_id": root})
    content["categories"] = [{**ROBOFLOW[0], "id": root}, {**ROBOFLOW[1], "id": 5}, ROBOFLOW[2]]
    ingested(tmp_path, content)
    assert names_of_layer(tmp_path) == ["bird", "kite", "kites"]


def test_a_root_category_with_the_name_of_a_class_leaves_the_class(tmp_path: Path) -> None:
    content = dataset({"bbox": [1, 2, 3, 4]})
    content["categories"] = [
        {"id": 0, "name": "kite", "supercategory": "none"},
        {**ROBOFLOW[1], "supercategory": "kite"},
    ]
    samples, _ = ingested(tmp_path, content)
    assert names_of_layer(tmp_path) == ["kite"] and first_annotation(samples).category == "kite"


def test_a_category_that_is_its_own_supercategory_stays(tmp_path: Path) -> None:
    """COCO's "person" is one."""
    content = dataset({"bbox": [1, 2, 3, 4]})
    content["categories"].append({"id": 9, "name": "person", "supercategory": "person"})
    ingested(tmp_path, content)
    assert names_of_layer(tmp_path) == ["cat", "person"]


def test_crowds_are_objects_for_doctor_only_on_request(tmp_path: Path) -> None:
    content = dataset({"bbox": [1, 2, 3, 4], "iscrowd": 1, "segmentation": {"size": [20, 30], "counts": [0, 40, 560]}})
    assert not examined(tmp_path, content).is_ready
    path = tmp_path / "own.json"
    found = validate_dataset("coco_json", tmp_path, annotations=path, check_images="none", crowds_as_objects=True)
    assert found.is_ready and counts(found) == {} and found.splits[0].prompted == 1
    assert found.next.endswith("--crowds-as-objects")


def test_only_records_without_a_box_have_their_segmentation_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthgen.formats.readers import _coco_records

    looked: list[Any] = []
    real = _coco_records.find_mask_box
    monkeypatch.setattr(_coco_records, "find_mask_box", lambda value: looked.append(value) or real(value))
    usual = [{"bbox": [1, 2, 3, 4], "segmentation": [SQUARE], "attributes": {"rotation": 0.0}} for _ in range(500)]
    samples, _ = ingested(tmp_path, dataset(*usual, {"segmentation": [SQUARE]}, *usual))
    assert looked == [[SQUARE]] and len(samples[0].annotations) == 1001


@pytest.mark.slow
def test_many_text_ids_take_little_memory(tmp_path: Path) -> None:
    content = {
        "images": [{"id": f"image-{i:06d}", "file_name": f"{i}.jpg", "height": 9, "width": 9} for i in range(20_000)],
        "annotations": [{"image_id": f"image-{i:06d}", "bbox": [1, 1, 2, 2], "category_id": 1} for i in range(20_000)],
    }
    (tmp_path / "own.json").write_text(json.dumps(content))
    files = coco_json.files(tmp_path, "train", tmp_path / "own.json")
    del content
    tracemalloc.start()
    _, report = ingest_samples(tmp_path / "store", coco_json, files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.annotations == 20_000 and peak < 2**26


# --- Real cases ------------------------------------------------------------------------------------------------------


def test_case_flat_polygon(tmp_path: Path, shared: Shared) -> None:
    path = shared("cases/07-flat-polygon/boxes.json")
    samples, report = from_case(tmp_path, path, "human")
    assert report.masks == 2 and report.flags == {"flat_polygon": 2}
    for sample in samples:
        assert sample.annotations[0].segmentation is not None
        assert decode_mask(sample.annotations[0].segmentation)[12:36, 16:48].all()
    found = validate_dataset("coco_json", path.parent, annotations=path, images=path.parent / "photos")
    assert found.is_ready and counts(found) == {"flat_polygon": 2}
    assert "annotation 1, box 16 12 32 24: a flat list of 8 numbers" in "\n".join(format_validation_report(found))


def test_case_gzip(tmp_path: Path, shared: Shared) -> None:
    path = shared("cases/12-gz/boxes.json.gz")
    samples, _ = from_case(tmp_path, path)
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert [s.file_name for s in samples] == [image["file_name"] for image in content["images"]]
    assert [list(s.annotations[0].bbox) for s in samples] == [a["bbox"] for a in content["annotations"]]


def test_case_text_ids(tmp_path: Path, shared: Shared) -> None:
    samples, report = from_case(tmp_path, shared("cases/18-underscore-ids-collide/boxes.json"))
    found = {sample.file_name: [a.bbox for a in sample.annotations] for sample in samples}
    assert found == {"clip1_frame23.png": [(16, 12, 32, 24)], "clip12_frame3.png": [(2, 2, 8, 8)]}
    assert report.errors == 0


def test_case_numbers_as_names(tmp_path: Path, shared: Shared) -> None:
    samples, report = from_case(tmp_path, shared("cases/19-numeric-category-names/boxes.json"))
    assert [s.annotations[0].category for s in samples] == ["7", "7"] and report.flags == {}


def test_case_rotation(tmp_path: Path, shared: Shared) -> None:
    path = shared("cases/20-cvat-rotation/boxes.json")
    samples, report = from_case(tmp_path, path)
    assert report.flags == {"rotated": 2} and samples[0].annotations[0].bbox == (16, 12, 32, 24)
    found = validate_dataset("coco_json", path.parent, annotations=path, images=path.parent / "photos")
    assert found.is_ready and counts(found) == {"rotated": 2}


def test_case_five_numbers(tmp_path: Path, shared: Shared) -> None:
    path = shared("cases/21-bbox-five-numbers/boxes.json")
    _, report = from_case(tmp_path, path)
    assert not report.has_usable_box and report.flags["bad_box"] == 2
    found = validate_dataset("coco_json", path.parent, annotations=path, images=path.parent / "photos")
    assert not found.is_ready and "no box can be used" in found.verdict


def test_case_crowds(tmp_path: Path, shared: Shared) -> None:
    path = shared("cases/37-cvat-masks-iscrowd-1/boxes.json")
    _, report = from_case(tmp_path, path)
    assert report.flags == {"crowd": 2} and not report.has_usable_box
    found = validate_dataset("coco_json", path.parent, annotations=path, check_images="none", crowds_as_objects=True)
    assert found.is_ready and counts(found) == {} and found.next.endswith("--crowds-as-objects")


def test_case_bad_part(tmp_path: Path, shared: Shared) -> None:
    path = shared("cases/47-one-bad-part-of-a-polygon/boxes.json")
    samples, report = from_case(tmp_path, path, "human")
    assert report.masks == 2 and report.flags == {"bad_polygon_part": 2}
    assert all(s.annotations[0].segmentation and rle_area(s.annotations[0].segmentation) == 768 for s in samples)
    found = validate_dataset("coco_json", path.parent, annotations=path, images=path.parent / "photos")
    assert [e.what for e in found.splits[0].findings[0].examples] == [
        "part 2 of 2 has 4 numbers, and a polygon needs at least three points",
        "part 2 of 2 is empty",
    ]


def test_case_roboflow_root(tmp_path: Path, shared: Shared) -> None:
    path = next(shared("cases/w1-roboflow").rglob("train/*.json"))
    from_case(tmp_path, path)
    assert names_of_layer(tmp_path) == ["kite"]
