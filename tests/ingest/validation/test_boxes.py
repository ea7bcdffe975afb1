"""Findings about boxes: examples, sizes, near-duplicates, other formats, absurd numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.validated_datasets import HEIGHT, WIDTH, clean, copy_annotation, findings, look


def test_examples_name_annotation_image_box_and_what_is_wrong(tmp_path: Path) -> None:
    content = clean()
    content["annotations"][0]["bbox"] = [50, -2, 20, 50]  # ends with the image's last row: not beyond it
    content["annotations"][1]["bbox"] = [-1, 0, 20, 10]
    content["annotations"][8]["bbox"] = [10, 10, 20, 20]
    copy_annotation(content, 5)
    copy_annotation(content, 8, bbox=[10.2, 10, 20, 20])
    copy_annotation(content, 8, bbox=[10.1, 10, 20, 20])
    found = findings(look(tmp_path, content))
    clipped = found["clipped"].examples[0]
    assert (clipped.where, clipped.annotation_id, clipped.bbox) == ("a/0000.png", 1, (50, -2, 20, 50))
    assert clipped.what == "beyond top by 2, right by 6 of 64 x 48"
    assert (found["clipped"].count, found["clipped"].of, found["clipped"].images) == (2, 51, 1)
    assert found["duplicate"].examples[0].what == "as annotation 6"
    near = [example.what for example in found["near_duplicate"].examples]
    assert near == ["IoU 0.980 with annotation 9", "IoU 0.990 with annotation 9"], "the earliest is the original"


def test_sizes_are_cocos(tmp_path: Path) -> None:
    content = clean(images=3, boxes=1)
    for image in content["images"]:
        image.update(height=300, width=300)
    for annotation, side in zip(content["annotations"], (31, 32, 96), strict=True):
        annotation["bbox"] = [0, 0, side, side]
    copy_annotation(content, 0, bbox=[0, 0, 0, 5])
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


def test_boxes_are_judged_by_the_files_size_where_the_annotations_give_none(tmp_path: Path) -> None:
    content = clean()
    for image in content["images"]:
        del image["height"], image["width"]
    content["annotations"][0]["bbox"] = [50, 10, 20, 10]
    assert findings(look(tmp_path, content)) == {}
    assert {code: f.count for code, f in findings(look(tmp_path, content, "header")).items()} == {"clipped": 1}


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
