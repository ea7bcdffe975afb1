"""Validation: no findings for a clean dataset, each planted defect, hostile input."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import coco_dataset
from fakes.temporary_writer import writing_elsewhere
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.ingest.validation.diagnosis import (
    FINDING_CODES,
    INFO_CODES,
    Finding,
    ValidationReport,
    format_validation_report,
    report_to_dict,
)
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.sample import ANNOTATION_FLAGS

Shared = Callable[[str], Path]

HEIGHT, WIDTH = 48, 64


def clean(images: int = 12, boxes: int = 4) -> dict[str, Any]:
    """A COCO-style file without a fault: `images` images, `boxes` boxes each, of two categories."""
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(images * boxes):
        x, y, w, h = (rng.uniform(low, high) for low, high in ((0, 30), (0, 20), (5, 30), (5, 25)))
        annotations.append(
            {"id": i + 1, "image_id": 100 + i // boxes, "category_id": 1 + i % 2, "bbox": [x, y, w, h], "iscrowd": 0}
        )
    return {
        "images": [
            {"id": 100 + i, "file_name": f"a/{i:04d}.png", "height": HEIGHT, "width": WIDTH} for i in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def write(root: Path, content: dict[str, Any], *, files: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "boxes.json"
    path.write_text(json.dumps(content))
    for image in content["images"] if files else ():
        file = root / "images" / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        # Noise, so that a file cut in half lacks pixels.
        Image.fromarray(np.random.default_rng(image["id"]).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(file)
    (root / "images").mkdir(exist_ok=True)
    return path


def look(root: Path, content: dict[str, Any], check_images: str | int = "none", **more: Any) -> ValidationReport:
    path = write(root, content, files=check_images != "none")
    return validate_dataset(
        "coco_json", root, annotations=path, images=root / "images", check_images=check_images, **more
    )


def findings(diagnosis: ValidationReport, split: int = 0) -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnosis.splits[split].findings}


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


def _copy(content: dict[str, Any], i: int, **changes: Any) -> None:
    content["annotations"].append({**content["annotations"][i], "id": 1000 + len(content["annotations"]), **changes})


def _near(content: dict[str, Any]) -> None:
    content["annotations"][8]["bbox"] = [10, 10, 20, 20]
    for i in range(3):  # one is a twin of both kinds of neighbours, another category and another image are not
        _copy(content, 8, bbox=[10.1, 10, 20, 20], **({}, {"category_id": 2}, {"image_id": 104})[i])


BOXES: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, int]]] = {
    "right edge": (_box(0, 50, 10, 20, 10), {"clipped": 1}),
    "negative": (_box(0, -3, 10, 20, 10), {"clipped": 1}),
    "outside": (_box(0, 64, 10, 20, 10), {"outside": 1}),
    "no width": (_box(0, 10, 10, 0, 10), {"degenerate": 1}),
    "negative width": (_box(0, 10, 10, -5, 10), {"degenerate": 1}),
    "not finite": (_box(0, 10, float("nan"), 5, 10), {"degenerate": 1}),
    "duplicate": (lambda c: _copy(c, 5), {"duplicate": 1}),
    "same box of another category": (lambda c: _copy(c, 5, category_id=1), {}),
    "same box in another image": (lambda c: _copy(c, 5, image_id=111), {}),
    "near-duplicate": (_near, {"near_duplicate": 1}),
    "crowd": (lambda c: c["annotations"][7].update(iscrowd=1), {"crowd": 1}),
    "unknown category": (lambda c: c["annotations"][7].update(category_id=9), {"unknown_category": 1}),
    "no box": (lambda c: c["annotations"][7].pop("bbox"), {"no_box": 1, "degenerate": 1}),
    "unlisted image": (lambda c: _copy(c, 5, image_id=999), {"unlisted_image": 1}),
    "empty image": (lambda c: c["images"].append({**c["images"][0], "id": 1, "file_name": "b.png"}), {"no_boxes": 1}),
    "annotation id in image": (lambda c: c["annotations"][1].update(id=1), {"same_annotation_id": 1}),
    "annotation id": (lambda c: c["annotations"][47].update(id=1), {"same_annotation_id_elsewhere": 1}),
    "image id": (lambda c: c["images"].append({**c["images"][0], "file_name": "b.png"}), {"same_image_id": 1}),
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
    assert found.is_ready, "none of these stops a job"
    for finding in found.splits[0].findings:
        assert finding.examples and 0 < finding.share <= 1
    text = "\n".join(format_validation_report(found))
    assert all(code in text for code in expected)
    json.dumps(report_to_dict(found), allow_nan=False)


def test_examples_name_annotation_image_box_and_what_is_wrong(tmp_path: Path) -> None:
    content = clean()
    content["annotations"][0]["bbox"] = [50, -2, 20, 50]  # ends with the image's last row: not beyond it
    content["annotations"][1]["bbox"] = [-1, 0, 20, 10]
    content["annotations"][8]["bbox"] = [10, 10, 20, 20]
    _copy(content, 5)
    _copy(content, 8, bbox=[10.2, 10, 20, 20])
    _copy(content, 8, bbox=[10.1, 10, 20, 20])
    found = findings(look(tmp_path, content))
    clipped = found["clipped"].examples[0]
    assert (clipped.where, clipped.annotation_id, clipped.bbox) == ("a/0000.png", 1, (50, -2, 20, 50))
    assert clipped.what == "beyond top by 2, right by 6 of 64 x 48"
    assert (found["clipped"].count, found["clipped"].of, found["clipped"].images) == (2, 51, 1)
    assert found["duplicate"].examples[0].what == "as annotation 6"
    near = [example.what for example in found["near_duplicate"].examples]
    assert near == ["IoU 0.980 with annotation 9", "IoU 0.990 with annotation 9"], "the earliest is the original"


def test_counts_are_of_all_and_examples_are_three(tmp_path: Path) -> None:
    content = clean(images=2500, boxes=2)  # more than one shard
    for annotation in content["annotations"][::10]:
        annotation["bbox"] = [60.0, 1.0, 10.0, 10.0]
    found = findings(look(tmp_path, content))
    assert (found["clipped"].count, found["clipped"].images, found["clipped"].of) == (500, 500, 5000)
    assert [example.annotation_id for example in found["clipped"].examples] == [1, 11, 21]


def test_sizes_are_cocos(tmp_path: Path) -> None:
    content = clean(images=3, boxes=1)
    for image in content["images"]:
        image.update(height=300, width=300)
    for annotation, side in zip(content["annotations"], (31, 32, 96), strict=True):
        annotation["bbox"] = [0, 0, side, side]
    _copy(content, 0, bbox=[0, 0, 0, 5])
    sizes = look(tmp_path, content).splits[0].sizes
    assert (sizes.small, sizes.medium, sizes.large) == (1, 1, 1)
    assert (sizes.median_per_image, sizes.max_per_image) == (1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_those_of_all_pairs(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = clean(images=6, boxes=20)
    places = rng.uniform(0, 4, (5, 4)) + np.array([5, 5, 30, 20])
    for annotation in content["annotations"]:
        annotation["bbox"] = (places[rng.integers(5)] + rng.uniform(0, 0.3, 4)).tolist()

    def iou(a: list[float], b: list[float]) -> float:
        w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / (a[2] * a[3] + b[2] * b[3] - both)

    rows = content["annotations"]
    expected = sum(
        any(
            a["image_id"] == b["image_id"]
            and a["category_id"] == b["category_id"]
            and iou(a["bbox"], b["bbox"]) >= 0.95
            for b in rows[:i]
        )
        for i, a in enumerate(rows)
    )
    assert expected > 10
    assert findings(look(tmp_path, content))["near_duplicate"].count == expected


# ------------------------------------------------------------------------------------------------- a wrong format


@pytest.mark.parametrize(("kind", "code"), [("xyxy", "xyxy_boxes"), ("shares", "normalised_boxes")])
def test_boxes_in_another_format_stop(tmp_path: Path, kind: str, code: str) -> None:
    content = clean()
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        x, y = x + 20, y + 20
        w, h = min(w, WIDTH - x), min(h, HEIGHT - y)
        shares = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]
        annotation["bbox"] = [x, y, x + w, y + h] if kind == "xyxy" else shares
    found = look(tmp_path, content)
    assert findings(found)[code].stops and not found.is_ready
    assert "not ready" in found.verdict and code in found.verdict


def test_boxes_that_fit_both_ways_are_taken_as_they_should_be(tmp_path: Path) -> None:
    content = clean()
    for i, annotation in enumerate(content["annotations"]):
        annotation["bbox"] = [1, 1 + i % 4, 20, 20 + i % 7]
    found = findings(look(tmp_path, content))
    assert "xyxy_boxes" not in found and "normalised_boxes" not in found


# --------------------------------------------------------------------------------------------------- image files


def _photo(root: Path, content: dict[str, Any], i: int) -> Path:
    return root / "images" / content["images"][i]["file_name"]


def test_each_kind_of_bad_file_is_reported(tmp_path: Path) -> None:
    content = clean(images=100)
    path = write(tmp_path, content)
    _photo(tmp_path, content, 1).unlink()
    cut = _photo(tmp_path, content, 2)
    cut.write_bytes(cut.read_bytes()[: HEIGHT * WIDTH])
    _photo(tmp_path, content, 3).write_text("<html>not found</html>")
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(_photo(tmp_path, content, 4))
    turned = Image.new("RGB", (HEIGHT, WIDTH))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(_photo(tmp_path, content, 5), exif=exif)
    content["images"][6]["file_name"] = f"images/{content['images'][6]['file_name']}"
    content["images"][7]["file_name"] = "../boxes.json"
    path.write_text(json.dumps(content))

    def files(check_images: str | int) -> dict[str, int]:
        found = validate_dataset(
            "coco_json", tmp_path, annotations=path, images=tmp_path / "images", check_images=check_images
        )
        return {code: finding.count for code, finding in findings(found).items()}

    header = {"missing": 2, "unreadable": 1, "wrong_size": 1, "turned": 1, "other_path": 1, "too_many_lost": 1}
    assert files("header") == header, "a header does not tell that the file is cut"
    assert files("all") == {**header, "unreadable": 2}
    assert files("none") == {}


def test_the_frames_of_another_video_are_missing(tmp_path: Path) -> None:
    """Both videos name their frames alike: pointed at one of them, half of the images are not there."""
    content = clean(images=40)
    for i, image in enumerate(content["images"]):
        image["file_name"] = f"video{i // 20}/{i % 20:04d}.png"
    path = write(tmp_path, content)
    right, wrong = (
        validate_dataset("coco_json", tmp_path, annotations=path, images=folder)
        for folder in (tmp_path / "images", tmp_path / "images" / "video0")
    )
    assert right.is_ready and not right.splits[0].findings
    assert findings(wrong)["missing"].count == 20 and not wrong.is_ready


def test_a_turned_image_annotated_as_stored_is_not_of_the_wrong_size(tmp_path: Path) -> None:
    content = clean(images=1)
    path = write(tmp_path, content)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (WIDTH, HEIGHT)).save(_photo(tmp_path, content, 0), exif=exif)
    found = validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images", check_images="all")
    assert set(findings(found)) == {"turned"} and found.is_ready


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
        _photo(tmp_path, content, i).unlink()
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

    _photo(tmp_path, content, 0).unlink()
    assert ready("header")
    assert ready(20) and not ready(19)
    _photo(tmp_path, content, 1).unlink()
    assert not ready("header")


def test_a_sample_of_images_is_spread_and_decoded(tmp_path: Path) -> None:
    content = clean(images=40)
    found = look(tmp_path, content, 7)
    assert (found.splits[0].files_checked, found.splits[0].files_decoded) == (7, 7)
    assert look(tmp_path, content, "1000").splits[0].files_checked == 40
    for wrong in ("0", "-3", "some", 0):
        with pytest.raises(SynthgenError, match="--check-images"):
            look(tmp_path, content, wrong)


def test_boxes_are_judged_by_the_files_size_where_the_annotations_give_none(tmp_path: Path) -> None:
    content = clean()
    for image in content["images"]:
        del image["height"], image["width"]
    content["annotations"][0]["bbox"] = [50, 10, 20, 10]
    assert findings(look(tmp_path, content)) == {}
    assert {code: f.count for code, f in findings(look(tmp_path, content, "header")).items()} == {"clipped": 1}


# ------------------------------------------------------------------------------------------------------- splits


def objects365(root: Path, train: list[dict[str, Any]], val: list[dict[str, Any]]) -> Path:
    for split, categories in (("train", train), ("val", val)):
        content = clean()
        content["categories"] = categories
        for annotation in content["annotations"]:
            annotation["category_id"] = categories[annotation["id"] % len(categories)]["id"]
        path = write(root / split, content)
        (root / split / "images" / "a").rename(root / split / "a")
        path.rename(root / f"zhiyuan_objv2_{split}.json")
    return root


def _categories(*names: str) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} for i, name in enumerate(names, start=1)]


def test_drift_between_splits_as_in_objects365(tmp_path: Path) -> None:
    root = objects365(
        tmp_path, _categories("Person", "Sneakers", "Chair", "Hat"), _categories("Person", "Chair", "Sneakers", "Owl")
    )
    found = validate_dataset("objects365", root, check_images="none")
    assert [split.split for split in found.splits] == ["train", "val"]
    train, val = findings(found, 0), findings(found, 1)
    assert {code: f.count for code, f in train.items()} == {"not_in_split": 1}
    assert {code: f.count for code, f in val.items()} == {"id_renamed": 3, "not_in_split": 1, "other_order": 2}
    assert [e.what for e in val["id_renamed"].examples][:1] == ["id 2, which is 'Sneakers' in train"]
    assert val["not_in_split"].examples[0].what == "named in train, not in val"
    assert found.is_ready, "names are stored, so drift is to be known, not to be mended"


def test_a_list_in_another_order_alone_is_drift_of_order_alone(tmp_path: Path) -> None:
    names = _categories("Person", "Sneakers", "Chair")
    found = validate_dataset("objects365", objects365(tmp_path, names, names[::-1]), check_images="none")
    assert not findings(found, 0) and set(findings(found, 1)) == {"other_order"}


def test_equal_splits_have_no_drift(tmp_path: Path) -> None:
    names = _categories("Person", "Sneakers", "Chair")
    found = validate_dataset("objects365", objects365(tmp_path, names, names), check_images="all")
    assert [split.findings for split in found.splits] == [(), ()]
    assert validate_dataset("objects365", tmp_path, ["val"], check_images="none").splits[0].split == "val"


# -------------------------------------------------------------------------------------------------- hostile input


def test_names_cannot_move_the_terminals_cursor(tmp_path: Path) -> None:
    content = clean()
    content["images"][0]["file_name"] = "a\x1b[2J\r\nready.png"
    content["annotations"][0]["bbox"] = [60, 0, 10, 10]
    text = format_validation_report(look(tmp_path, content))
    assert all(line.isprintable() for line in text)
    assert any("\\x1b[2J" in line for line in text)


@pytest.mark.filterwarnings("error")
def test_absurd_numbers_are_counted_and_nothing_warns(tmp_path: Path) -> None:
    content = clean(images=12, boxes=4)
    absurd = [1e308, -1e308, float("nan"), float("inf"), 5e-324]
    for i, annotation in enumerate(content["annotations"][:25]):
        annotation["bbox"] = [absurd[i % 5], absurd[i // 5], absurd[i % 4], absurd[(i + 1) % 5]]
    found = findings(look(tmp_path, content))
    assert (
        found["degenerate"].count + found["outside"].count + (found["clipped"].count if "clipped" in found else 0) == 25
    )


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


# ------------------------------------------------------------------------------------------------------ real data


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


def test_every_code_has_its_words() -> None:
    assert set(ANNOTATION_FLAGS) <= set(FINDING_CODES) and set(FINDING_CODES) >= INFO_CODES
