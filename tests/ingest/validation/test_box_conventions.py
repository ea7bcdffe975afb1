"""Boxes in other conventions: each is found from thirty boxes on, and true boxes are never called wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.validated_datasets import clean, findings, look
from numpy.typing import NDArray

from synthgen.ingest.validation.box_conventions import REMEDIES, BoxConvention, ConventionSums, judge_conventions
from synthgen.ingest.validation.finding_codes import FINDING_CODES
from synthgen.ingest.validation.validate import validate_dataset

Shared = Callable[[str], Path]
Boxes = NDArray[np.float64]


def photographs(count: int, seed: int = 0) -> tuple[Boxes, NDArray[np.int32], NDArray[np.int32]]:
    """True boxes as in photographs: of all sizes, some at the edges; landscape and portrait images."""
    rng = np.random.default_rng(seed)
    width = rng.choice([640, 640, 480, 500], count)
    height = np.where(width == 640, rng.choice([427, 480], count), rng.choice([640, 375], count))
    sides = np.stack([width, height], 1).astype(np.float64)
    size = np.clip(rng.lognormal(-1.7, 0.9, (count, 2)), 0.01, 1) * sides
    start = rng.uniform(-0.1, 1.1, (count, 2)) * (sides - size)
    start = np.clip(start, 0, sides - size)
    return np.concatenate([start, size], 1), height.astype(np.int32), width.astype(np.int32)


def judge(boxes: Boxes, height: NDArray[np.int32], width: NDArray[np.int32], *, batches: int = 1) -> Any:
    sums = ConventionSums()
    for part in np.array_split(np.arange(len(boxes)), batches):
        sums.add(boxes[part], height[part], width[part])
    return judge_conventions(sums)


def rewrite(code: str, boxes: Boxes, height: NDArray[np.int32], width: NDArray[np.int32]) -> Boxes:
    """True boxes as a file in another convention has them."""
    x, y, w, h = boxes.T
    numbers = {
        "normalised_boxes": (x / width, y / height, w / width, h / height),
        "percent_boxes": (100 * x / width, 100 * y / height, 100 * w / width, 100 * h / height),
        "permille_boxes": (1000 * x / width, 1000 * y / height, 1000 * w / width, 1000 * h / height),
        "xyxy_boxes": (x, y, x + w, y + h),
        "yxyx_boxes": (y, x, y + h, x + w),
        "centre_boxes": (x + w / 2, y + h / 2, w, h),
        "exchanged_axes": (y, x, h, w),
        "corners_as_centres": (x - w / 2, y - h / 2, w, h),
        "pixels_as_fractions": (x * width, y * height, w * width, h * height),
        "percent_as_fractions": (100 * x, 100 * y, 100 * w, 100 * h),
    }
    return np.stack(numbers[code], 1)


CONVENTIONS = [code for code in REMEDIES if code != "misfit_boxes"]


@pytest.mark.parametrize("code", CONVENTIONS)
def test_each_convention_is_found_from_thirty_boxes_on(code: str) -> None:
    found = []
    for seed in range(20):
        boxes, height, width = photographs(30, seed)
        result = judge(rewrite(code, boxes, height, width), height, width)
        found.append(result is not None and result.code == code)
    assert sum(found) >= 17
    boxes, height, width = photographs(300)
    sure = judge(rewrite(code, boxes, height, width), height, width)
    assert (sure.code, sure.stops) == (code, True) and sure.count > 280


@pytest.mark.parametrize("code", CONVENTIONS)
def test_a_few_exceptions_do_not_hide_a_convention(code: str) -> None:
    boxes, height, width = photographs(300)
    wrong = rewrite(code, boxes, height, width)
    wrong[::50] = [5000, 7000, 3000, 2000]
    found = judge(wrong, height, width)
    assert (found.code, found.stops) == (code, True)


@pytest.mark.parametrize("count", [10, 30, 100])
def test_true_boxes_are_never_called_wrong(count: int) -> None:
    assert [judge(*photographs(count, seed)) for seed in range(200)] == [None] * 200


def test_boxes_that_reach_a_little_beyond_their_images_are_no_convention() -> None:
    boxes, height, width = photographs(500)
    rng = np.random.default_rng(1)
    boxes[:, 2:] += (rng.random((500, 2)) < 0.05) * rng.uniform(0, 20, (500, 2))
    assert judge(boxes, height, width) is None
    amodal = judge(boxes + np.array([-3, -3, 6, 6]), height, width)
    assert amodal is None or (amodal.code, amodal.stops) == ("misfit_boxes", False)


def test_objects_in_one_corner_are_not_percentages() -> None:
    boxes, height, width = photographs(200)
    corner = boxes * [0.1, 0.1, 0.1, 0.1]  # within 64 x 64 pixels of the images
    found = judge(corner, height, width)
    assert found is None or not found.stops


def test_boxes_of_resized_photographs_fit_no_convention() -> None:
    boxes, height, width = photographs(300)
    found = judge(boxes * 2, height, width)
    assert (found.code, found.stops) == ("misfit_boxes", True)


def test_square_images_do_not_show_exchanged_axes() -> None:
    boxes = photographs(300)[0]
    square = np.full(300, 640, np.int32)
    assert judge(boxes[:, [1, 0, 3, 2]], square, square) is None


def test_the_first_pixel_of_pascal_voc_is_told() -> None:
    boxes, height, width = photographs(300)
    found = judge(np.floor(boxes) + np.array([1, 1, 0, 0]), height, width)
    assert (found.code, found.stops) == ("one_based_boxes", False)
    assert judge(np.floor(boxes), height, width) is None


def test_few_boxes_stop_nothing() -> None:
    boxes, height, width = photographs(9)
    for code in set(CONVENTIONS) - {"normalised_boxes"}:
        found = judge(rewrite(code, boxes, height, width), height, width)
        assert found is None or not found.stops
    assert judge(rewrite("normalised_boxes", boxes, height, width), height, width).stops
    assert judge(np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, np.int32)) is None


def test_a_part_of_fractions_is_named_and_stops_nothing() -> None:
    boxes, height, width = photographs(300)
    boxes[:30] = rewrite("normalised_boxes", boxes, height, width)[:30]
    found = judge(boxes, height, width)
    assert (found.code, found.count, found.stops) == ("normalised_boxes", 30, False)


def test_fractions_are_found_where_no_size_is_known() -> None:
    boxes, height, width = photographs(30)
    nothing = np.zeros(30, np.int32)
    assert judge(rewrite("normalised_boxes", boxes, height, width), nothing, nothing).code == "normalised_boxes"
    assert judge(rewrite("xyxy_boxes", boxes, height, width), nothing, nothing) is None


@pytest.mark.parametrize("code", CONVENTIONS)
def test_sums_of_batches_are_those_of_all(code: str) -> None:
    boxes, height, width = photographs(300)
    wrong = rewrite(code, boxes, height, width)
    assert judge(wrong, height, width, batches=7) == judge(wrong, height, width)


@pytest.mark.filterwarnings("error")
def test_hostile_numbers_are_left_out() -> None:
    boxes, height, width = photographs(300)
    boxes[:100] = [np.nan, np.inf, -1e308, 1e308]
    boxes[100:150] = [1e308, 1e308, 1e308, 1e308]
    found = judge(boxes, height, width)
    assert found is None or isinstance(found, BoxConvention)


def test_every_convention_has_its_words() -> None:
    assert set(REMEDIES) <= set(FINDING_CODES)


@pytest.mark.parametrize("code", ["centre_boxes", "percent_boxes", "exchanged_axes"])
def test_doctor_stops_and_says_what_to_do(tmp_path: Path, code: str) -> None:
    boxes, height, width = photographs(48)
    content = clean(images=48, boxes=1)
    for i, row in enumerate(rewrite(code, boxes, height, width).tolist()):
        content["images"][i].update(width=int(width[i]), height=int(height[i]))
        content["annotations"][i]["bbox"] = row
    found = look(tmp_path, content)
    assert findings(found)[code].stops and findings(found)[code].note and not found.is_ready
    assert found.verdict.startswith(f"not ready ({code}") and REMEDIES[code] in found.verdict


def test_normalised_boxes_with_an_exception(shared: Shared) -> None:
    folder = shared("cases/39-normalised-with-one-exception")
    found = validate_dataset("coco_json", folder, annotations=folder / "boxes.json", images=folder / "photos")
    assert findings(found)["normalised_boxes"].stops and not found.is_ready
    assert "multiply the boxes" in found.verdict


@pytest.mark.parametrize(
    "name",
    [
        "coco128/annotations/instances_train2017.json",
        "coco_tiny/annotations/instances_val2017.json",
        "lvis_excerpt/lvis_val_100.json",
        "formats/roboflow-coco__rbc/valid/_annotations.coco.json",
    ],
)
def test_real_boxes_are_right_and_rewritten_ones_are_found(shared: Shared, name: str) -> None:
    content = json.loads(shared(f"data/{name}").read_bytes())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    boxes = np.array([a["bbox"] for a in content["annotations"]], np.float64)
    height, width = np.array([sizes[a["image_id"]] for a in content["annotations"]], np.int32).T
    assert judge(boxes, height, width) is None
    rng = np.random.default_rng(0)
    for count in (10, 30, 100):
        for _ in range(50):
            rows = rng.choice(len(boxes), count, replace=False)
            assert judge(boxes[rows], height[rows], width[rows]) is None
    square = (height == width).all()
    for code in set(CONVENTIONS) - ({"exchanged_axes", "yxyx_boxes"} if square else set()):
        found = judge(rewrite(code, boxes, height, width), height, width)
        assert (found.code, found.stops) == (code, True)
