"""Validation: no findings for a clean dataset, each planted defect, hostile input."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset
from fakes.temporary_writer import writing_elsewhere
from fakes.validated_datasets import clean, copy_annotation, findings, look, photo_path, write

from synthgen.errors import SynthgenError
from synthgen.ingest.validation.diagnosis import (
    format_validation_report,
    report_to_dict,
)
from synthgen.ingest.validation.validate import validate_dataset

Shared = Callable[[str], Path]


def test_a_clean_dataset_has_no_findings(tmp_path: Path) -> None:
    found = look(tmp_path, clean(), "all")
    assert found.splits[0].findings == ()
    assert (found.splits[0].images, found.splits[0].boxes, found.splits[0].categories) == (12, 48, 2)
    assert (found.splits[0].files_checked, found.splits[0].files_decoded) == (12, 12)
    assert found.is_ready
    assert format_validation_report(found)[-2:] == ["ready", f"next: {found.next}"]
    assert found.next.startswith("synthgen masks --dataset coco-json --annotations")


# Each defect: what is done to a clean file, and {code: count}, of which nothing may be missing and nothing be over.
def _box(i: int, *bbox: float) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][i]["bbox"] = list(bbox)

    return change


def _near(content: dict[str, Any]) -> None:
    content["annotations"][8]["bbox"] = [10, 10, 20, 20]
    for i in range(3):  # one is a twin of both kinds of neighbours, another category and another image are not
        copy_annotation(content, 8, bbox=[10.1, 10, 20, 20], **({}, {"category_id": 2}, {"image_id": 104})[i])


def _root(content: dict[str, Any]) -> None:
    content["categories"] = [{**c, "supercategory": "pets"} for c in content["categories"]]
    content["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})


def _only_polygon(content: dict[str, Any]) -> None:
    del content["annotations"][7]["bbox"]
    content["annotations"][7]["segmentation"] = [[1, 2, 9, 2, 9, 9]]


BOXES: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, int]]] = {
    "right edge": (_box(0, 50, 10, 20, 10), {"clipped": 1}),
    "negative": (_box(0, -3, 10, 20, 10), {"clipped": 1}),
    "outside": (_box(0, 64, 10, 20, 10), {"outside": 1}),
    "no width": (_box(0, 10, 10, 0, 10), {"degenerate": 1}),
    "negative width": (_box(0, 10, 10, -5, 10), {"degenerate": 1}),
    "not finite": (_box(0, 10, float("nan"), 5, 10), {"degenerate": 1}),
    "duplicate": (lambda c: copy_annotation(c, 5), {"duplicate": 1}),
    "same box of another category": (lambda c: copy_annotation(c, 5, category_id=1), {}),
    "same box in another image": (lambda c: copy_annotation(c, 5, image_id=111), {}),
    "near-duplicate": (_near, {"near_duplicate": 1}),
    "crowd": (lambda c: c["annotations"][7].update(iscrowd=1), {"crowd": 1}),
    "unknown category": (lambda c: c["annotations"][7].update(category_id=9), {"unknown_category": 1}),
    "no box": (lambda c: c["annotations"][7].pop("bbox"), {"no_box": 1, "degenerate": 1}),
    "unlisted image": (lambda c: copy_annotation(c, 5, image_id=999), {"unlisted_image": 1}),
    "empty image": (lambda c: c["images"].append({**c["images"][0], "id": 1, "file_name": "b.png"}), {"no_boxes": 1}),
    "annotation id in image": (lambda c: c["annotations"][1].update(id=1), {"same_annotation_id": 1}),
    "annotation id": (lambda c: c["annotations"][47].update(id=1), {"same_annotation_id_elsewhere": 1}),
    "image id": (lambda c: c["images"].append({**c["images"][0], "file_name": "b.png"}), {"same_image_id": 1}),
    "image again": (lambda c: c["images"].append(dict(c["images"][0])), {"repeated_image": 1}),
    "root category": (_root, {"root_category": 1, "unused_category": 1}),
    "rotated": (lambda c: c["annotations"][7].update(attributes={"rotation": 30.5}), {"rotated": 1}),
    "ignored": (lambda c: c["annotations"][7].update(ignore=1), {"ignored": 1}),
    "five numbers": (_box(0, 1, 2, 3, 4, 5), {"bad_box": 1, "degenerate": 1, "no_box": 1}),
    "box of a polygon": (_only_polygon, {"no_box": 1}),
    "no mask": (lambda c: c["annotations"][7].update(segmentation=[[1, 2]]), {"bad_segmentation": 1}),
    "part of a mask": (
        lambda c: c["annotations"][7].update(segmentation=[[1, 2, 9, 2, 9, 9], []]),
        {"bad_polygon_part": 1},
    ),
    "flat polygon": (lambda c: c["annotations"][7].update(segmentation=[1, 2, 9, 2, 9, 9]), {"flat_polygon": 1}),
    "no file name": (lambda c: c["images"][0].update(file_name=""), {"no_file_name": 1}),
    "no file names": (lambda c: [i.update(file_name="") for i in c["images"][:2]], {"no_file_name": 2}),
    "file name": (lambda c: c["images"][1].update(file_name="a/0000.png"), {"same_file_name": 1}),
    "unused category": (lambda c: c["categories"].append({"id": 3, "name": "owl"}), {"unused_category": 1}),
    "blanks": (lambda c: c["categories"][0].update(name=" cat "), {"outer_blanks": 1}),
    "same name": (lambda c: c["categories"][1].update(name="cat"), {"same_name": 1}),
    "case": (lambda c: c["categories"][1].update(name="CAT"), {"nearly_same_name": 1}),
    "nameless": (lambda c: c["categories"][1].update(name=" "), {"unknown_category": 24}),
}


@pytest.mark.parametrize("name", BOXES)
def test_each_planted_defect_is_reported_and_nothing_else(tmp_path: Path, name: str) -> None:
    content = clean()
    change, expected = BOXES[name]
    change(content)
    found = look(tmp_path, content)
    assert {code: finding.count for code, finding in findings(found).items()} == expected
    assert found.is_ready == ("same_image_id" not in expected), "none of the others stops a job"
    for finding in found.splits[0].findings:
        assert finding.examples and 0 < finding.share <= 1
    text = "\n".join(format_validation_report(found))
    assert all(code in text for code in expected)
    json.dumps(report_to_dict(found), allow_nan=False)


def test_counts_are_of_all_and_examples_are_three(tmp_path: Path) -> None:
    content = clean(images=2500, boxes=2)  # more than one shard
    for annotation in content["annotations"][::10]:
        annotation["bbox"] = [60.0, 1.0, 10.0, 10.0]
    found = findings(look(tmp_path, content))
    assert (found["clipped"].count, found["clipped"].images, found["clipped"].of) == (500, 500, 5000)
    assert [example.annotation_id for example in found["clipped"].examples] == [1, 11, 21]


def test_too_many_lost_images_stop_and_name_the_remedy(tmp_path: Path) -> None:
    content = clean(images=20)
    write(tmp_path, content)
    (tmp_path / "other").mkdir()
    path = tmp_path / "boxes.json"
    found = validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "other")
    assert findings(found)["missing"].count == 20
    assert findings(found)["too_many_lost"].stops and not found.is_ready
    assert "--images" in found.verdict and found.next.startswith("synthgen doctor --dataset coco-json")
    assert found.next.endswith("boxes.json --images FOLDER")
    with pytest.raises(SynthgenError, match=r"no folder .*nowhere .*--images"):
        validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "nowhere")


def test_five_percent_is_counted_in_each_shard_as_a_job_does(tmp_path: Path) -> None:
    """60 of 2,500 images are 2.4 %, but they lie in two shards of 40, which a job would refuse."""
    content = clean(images=2500, boxes=1)
    path = write(tmp_path, content)
    for i in [*range(60), *range(100, 2500, 200)]:
        photo_path(tmp_path, content, i).unlink()
    found = validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images")
    assert findings(found)["missing"].count == 72
    assert (findings(found)["too_many_lost"].count, findings(found)["too_many_lost"].of) == (2, 63)
    assert [e.what for e in findings(found)["too_many_lost"].examples] == ["40 of 40 lost", "20 of 40 lost"]
    assert not found.is_ready


def test_images_without_a_name_do_not_dilute_the_lost_ones(tmp_path: Path) -> None:
    content = clean(images=16, boxes=1)
    for image in content["images"][2:]:
        image["file_name"] = ""
    path = write(tmp_path, content, files=False)
    found = validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images")
    assert [e.what for e in findings(found)["too_many_lost"].examples] == ["2 of 2 lost"]


def test_five_percent_is_not_more_than_five_percent(tmp_path: Path) -> None:
    content = clean(images=1280, boxes=1)  # 64 shards of 20
    path = write(tmp_path, content)

    def ready(check_images: str | int) -> bool:
        images = tmp_path / "images"
        return validate_dataset(
            "coco_json", tmp_path, annotations=path, images=images, check_images=check_images
        ).is_ready

    photo_path(tmp_path, content, 0).unlink()
    assert ready("header")
    assert ready(20) and not ready(19)
    photo_path(tmp_path, content, 1).unlink()
    assert not ready("header")


def test_a_sample_of_images_is_spread_and_decoded(tmp_path: Path) -> None:
    content = clean(images=40)
    found = look(tmp_path, content, 7)
    assert (found.splits[0].files_checked, found.splits[0].files_decoded) == (7, 7)
    assert look(tmp_path, content, "1000").splits[0].files_checked == 40
    for wrong in ("0", "-3", "some", 0):
        with pytest.raises(SynthgenError, match="--check-images"):
            look(tmp_path, content, wrong)


def test_what_a_killed_run_left_in_the_temporary_folder_is_removed(tmp_path: Path, monkeypatch) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with writing_elsewhere(place):
        pass
    (place / "of another program").touch()
    assert len(list(place.iterdir())) == 3
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    validate_dataset("coco_json", tmp_path, annotations=tmp_path / "boxes.json", images=tmp_path / "photos")
    assert [path.name for path in place.iterdir()] == ["of another program"]


def test_an_empty_dataset_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match="no images"):
        look(tmp_path, {"images": [], "annotations": [], "categories": []})


def test_a_file_that_is_no_dataset_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text("[1, 2")
    with pytest.raises(SynthgenError, match=r"boxes.json"):
        validate_dataset("coco_json", tmp_path, annotations=path, check_images="none")
    with pytest.raises(SynthgenError, match=r"zhiyuan_objv2_train\.json"):
        validate_dataset("objects365", tmp_path)


def test_the_real_excerpts(shared: Shared) -> None:
    folder = shared("data/coco_tiny")
    coco = validate_dataset("coco", folder, check_images="all")
    assert coco.is_ready and sum(split.images for split in coco.splits) > 0
    genome = validate_dataset("visual_genome", shared("data/visual_genome_excerpt"), check_images="none")
    assert (genome.splits[0].images, genome.splits[0].boxes) == (15, 460)
    sample = shared("data/coco_panoptic_sample")
    panoptic = validate_dataset(
        "coco_panoptic", sample, annotations=sample / "panoptic_examples.json", images=sample / "input_images",
        check_images="all",
    )  # fmt: skip
    assert panoptic.is_ready
    assert (panoptic.splits[0].images, panoptic.splits[0].boxes, panoptic.splits[0].categories) == (2, 50, 133)
