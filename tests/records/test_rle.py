"""Masks: equal to those of pycocotools and numpy, inverse conversions, hostile input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from synthgen.errors import SynthgenError
from synthgen.records import rle as rle_module
from synthgen.records.rle import (
    check_rle,
    checked_areas,
    decode_mask,
    decode_mask_window,
    encode_mask,
    encode_mask_window,
    rle_area,
    rle_bbox_xyxy,
    rle_from_coco,
    rle_iou,
)
from synthgen.records.rle_codec import decode_counts
from synthgen.records.sample import Rle

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


# --- masks -----------------------------------------------------------------------------------------------------------


@given(masks)
def test_encoding_is_pycocotools_own_and_comes_back(mask):
    rle = encode_mask(mask)
    theirs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert (list(rle.size), rle.counts) == (theirs["size"], theirs["counts"])
    assert np.array_equal(decode_mask(rle), mask)
    assert decode_mask(rle).dtype == bool


@given(masks, st.data())
def test_a_window_is_encoded_as_the_whole_image_would_be(mask, data):
    height = mask.shape[0] + (top := data.draw(st.integers(0, 3))) + data.draw(st.integers(0, 3))
    width = mask.shape[1] + (left := data.draw(st.integers(0, 3))) + data.draw(st.integers(0, 3))
    whole = np.zeros((height, width), bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert encode_mask_window(mask, top, left, height, width) == encode_mask(whole)


@given(masks)
@example(np.zeros((3, 4), bool))
@example(np.ones((3, 4), bool))
def test_the_decoded_window_is_the_tight_one(mask):
    window = decode_mask_window(encode_mask(mask))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        assert window.pixels.shape == (0, 0)
        return
    assert (window.top, window.left) == (rows[0], columns[0])
    assert np.array_equal(window.pixels, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    assert window.pixels.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("runs", [[3, 0, 5, 4, 0, 6, 2, 0, 22], [0, 0, 42], [0, 42], [41, 1], [41, 1, 0, 0]])
def test_windows_of_masks_with_runs_of_no_pixels(runs):
    rle = Rle(SIZE, text_of(runs))
    mask, window = decode_mask(rle), decode_mask_window(rle)
    assert window.pixels.sum() == mask.sum()
    if mask.any():
        assert encode_mask_window(window.pixels, window.top, window.left, *SIZE) == encode_mask(mask)


@given(masks)
def test_runs_are_the_masks(mask):
    runs = decode_counts(encode_mask(mask).counts)
    values = np.arange(len(runs)) % 2 == 1
    assert np.array_equal(np.repeat(values, runs).reshape(mask.shape, order="F"), mask)


@given(masks)
def test_area_and_box_are_numpys(mask):
    rle = encode_mask(mask)
    assert rle_area(rle) == mask.sum()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows.size else (0, 0, 0, 0)
    assert rle_bbox_xyxy(rle) == tight


@given(st.lists(masks, max_size=4))
def test_areas_of_many_masks_are_numpys(several):
    assert checked_areas([encode_mask(mask) for mask in several]).tolist() == [int(mask.sum()) for mask in several]


@given(st.lists(st.tuples(st.binary(max_size=6), st.tuples(st.integers(0, 5), st.integers(0, 5))), max_size=3))
def test_many_masks_are_refused_exactly_if_one_of_them_is(parts):
    several = [Rle(size, counts) for counts, size in parts]

    def is_valid(rle):
        try:
            check_rle(rle)
        except SynthgenError:
            return False
        return bool(rle.counts)

    if all(map(is_valid, several)):
        assert len(checked_areas(several)) == len(several)
    else:
        with pytest.raises(SynthgenError, match=r"a mask of several"):
            checked_areas(several)


@given(masks, st.data())
def test_mask_iou_is_numpys(mask, data):
    other = data.draw(hnp.arrays(np.bool_, mask.shape))
    a, b = encode_mask(mask), encode_mask(other)
    both, either = (mask & other).sum(), (mask | other).sum()
    assert rle_iou([a], [b])[0, 0] == pytest.approx(both / either if either else 0)
    assert rle_iou([a], [b], [True])[0, 0] == pytest.approx(both / mask.sum() if mask.any() else 0)


def test_iou_of_nothing_has_a_shape():
    one = encode_mask(np.ones((2, 3), bool))
    assert rle_iou([], [one, one]).shape == (0, 2)
    assert rle_iou([one], []).shape == (1, 0)
    assert rle_iou([one, one, one], [one, one]).shape == (3, 2)


def test_any_value_but_zero_is_foreground():
    grey = np.array([[0, 1, 2], [255, 0, 7]], np.uint8)
    assert np.array_equal(decode_mask(encode_mask(grey)), grey != 0)


def test_holes_and_separate_parts_survive():
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:25] = True
    mask[10:15, 10:15] = False  # a hole
    mask[30:38, 50:58] = True  # another part
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


# --- lying masks -----------------------------------------------------------------------------------------------------

SIZE = (6, 7)


def text_of(runs: list[int]) -> bytes:
    """COCO's text of runs, whether they make sense or not."""
    return coco_mask.frPyObjects({"size": list(SIZE), "counts": runs}, *SIZE)["counts"]


@given(st.lists(st.integers(0, 60), max_size=8))
@example([42])
@example([0, 42])
def test_runs_that_do_not_fill_the_image_are_refused(runs):
    rle = Rle(SIZE, text_of(runs) if runs else b"")
    if sum(runs) == 42:
        check_rle(rle)
        assert decode_mask(rle).sum() == sum(runs[1::2])
    else:
        with pytest.raises(SynthgenError, match="mask of 6 x 7"):
            check_rle(rle)
        with pytest.raises(SynthgenError):
            decode_mask(rle)


@given(
    st.binary(max_size=40) | st.lists(st.integers(48, 111), max_size=40).map(bytes),
    st.tuples(*[st.integers(-2, 50)] * 2),
)
def test_random_bytes_are_a_mask_or_a_sentence(counts, size):
    """What passes the check decodes to as many pixels as its runs say; nothing else is handed to cocoapi."""
    rle = Rle(size, counts)
    try:
        check_rle(rle)
    except SynthgenError:
        for function in (decode_mask, decode_mask_window, lambda r: rle_iou([r], [r])):
            with pytest.raises(SynthgenError):
                function(rle)
        for function in (rle_area, rle_bbox_xyxy):  # these two count runs and may be told lies, but must not crash
            try:
                function(rle)
            except SynthgenError:
                continue
    else:
        assume(0 not in size)
        assert decode_mask(rle).shape == size
        assert rle_area(rle) == decode_mask(rle).sum()


def test_sums_that_come_round_are_refused():
    """Runs of more than 32 bits whose 64-bit sum would be the right number again."""
    with pytest.raises(SynthgenError, match="longer than"):
        rle_from_coco({"size": [6, 7], "counts": [2**63 - 1, 2**63 - 1, 44]}, 6, 7)


def test_a_negative_run_is_refused():
    """ "0" then -1 (as COCO writes it) then 43: the sum is right."""
    negative = b"0" + b"O" + b"[1"
    assert decode_counts(negative).tolist() == [0, -1, 43]
    with pytest.raises(SynthgenError, match="negative"):
        check_rle(Rle(SIZE, negative))


# --- COCO's `segmentation` -------------------------------------------------------------------------------------------


def theirs(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The mask that pycocotools' `annToMask` makes."""
    coco = COCO()
    coco.imgs = {1: {"id": 1, "height": height, "width": width}}
    return coco.annToMask({"image_id": 1, "segmentation": segmentation}).astype(bool)


polygon = st.lists(st.tuples(st.floats(-20, 60), st.floats(-15, 45)), min_size=3, max_size=12).map(
    lambda points: [number for point in points for number in point]
)


@given(st.lists(polygon, min_size=1, max_size=3))
def test_polygons_are_pycocotools_own(parts):
    assert np.array_equal(decode_mask(rle_from_coco(parts, 30, 40)), theirs(parts, 30, 40))


@pytest.fixture
def strips(monkeypatch):
    """As if no more than 100 pixels were safe: images are filled in strips of three columns."""
    monkeypatch.setattr(rle_module, "_COCOAPI_MAX_PIXELS", 100)


corner = st.integers(-20, 60)
rectangle = st.tuples(corner, corner, corner, corner).map(lambda c: [c[0], c[1], c[2], c[1], c[2], c[3], c[0], c[3]])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(rectangle, min_size=1, max_size=4))
def test_large_images_are_filled_in_strips(parts, strips):
    assert np.array_equal(decode_mask(rle_from_coco(parts, 30, 40)), theirs(parts, 30, 40))


def test_slanting_outlines_of_large_images_are_off_by_single_pixels(strips):
    angle = np.linspace(0, 2 * np.pi, 30)
    circle = np.stack([20.3 + 14.7 * np.cos(angle), 15.1 + 17.2 * np.sin(angle)], axis=1).ravel().tolist()
    difference = decode_mask(rle_from_coco([circle], 30, 40)) ^ theirs([circle], 30, 40)
    assert difference.sum() <= 3


@given(masks)
def test_large_masks_are_encoded_as_small_ones(mask):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle_module, "_COCOAPI_MAX_PIXELS", 0)
        large = encode_mask(mask)
    assert large == encode_mask(mask)


@given(masks)
def test_both_kinds_of_rle_are_pycocotools_own(mask):
    height, width = mask.shape
    rle = encode_mask(mask)
    runs = {"size": [height, width], "counts": decode_counts(rle.counts).tolist()}
    text = {"size": [height, width], "counts": rle.counts.decode()}
    for segmentation in (runs, text, {**text, "counts": rle.counts}):
        assert rle_from_coco(segmentation, height, width) == rle
        assert np.array_equal(theirs(segmentation, height, width), mask)


def test_two_parts_are_one_mask():
    rle = rle_from_coco([[0, 0, 4, 0, 4, 4, 0, 4], [6, 6, 9, 6, 9, 9, 6, 9]], 10, 10)
    assert rle_area(rle) == 16 + 9
    assert rle_bbox_xyxy(rle) == (0, 0, 9, 9)


square = [1, 1, 5, 1, 5, 5, 1, 5]
HOSTILE = {
    "nothing": None,
    "number": 7,
    "text": "5",
    "empty list": [],
    "empty part": [[]],
    "flat list": square,
    "two points": [[1, 1, 5, 5]],
    "one point": [[1, 1]],
    "odd count": [[1, 1, 5, 1, 5, 5, 1]],
    "one bad part of two": [square, [1, 2, 3]],
    "text as number": [["1", "1", "5", "1", "5", "5"]],
    "a long text among numbers": [[*square, "x" * 10_000, 1]],
    "None as number": [[None, 1, 5, 1, 5, 5]],
    "bool as number": [[True, False, True, True, False, False]],
    "nested": [[square, square, square]],
    "dict as part": [{"size": [8, 9], "counts": [72]}],
    "dict as number": [[{}, 1, 5, 1, 5, 5]],
    "NaN": [[float("nan"), 1, 5, 1, 5, 5]],
    "infinity": [[float("inf"), 1, 5, 1, 5, 5]],
    "huge float": [[1e300, 1, 5, 1, 5, 5]],
    "huge whole number": [[10**400, 1, 5, 1, 5, 5]],
    "far away": [[1e9, 1, 5, 1, 5, 5]],
    "outline without end": [[0, 0, 9, 8] * 300_000],
    "dict without counts": {"size": [8, 9]},
    "dict without size": {"counts": [72]},
    "size of another image": {"size": [9, 8], "counts": [72]},
    "size as number": {"size": 72, "counts": [72]},
    "size as text": {"size": "89", "counts": [72]},
    "size nested": {"size": [[8], [9]], "counts": [72]},
    "counts too short": {"size": [8, 9], "counts": [71]},
    "counts too long": {"size": [8, 9], "counts": [73]},
    "counts empty": {"size": [8, 9], "counts": []},
    "counts negative": {"size": [8, 9], "counts": [0, -1, 73]},
    "counts huge": {"size": [8, 9], "counts": [2**64, 72]},
    "counts round the clock": {"size": [8, 9], "counts": [2**32, 72]},
    "counts of floats": {"size": [8, 9], "counts": [36.0, 36.0]},
    "counts of bools": {"size": [8, 9], "counts": [True] * 72},
    "counts of texts": {"size": [8, 9], "counts": ["72"]},
    "counts nested": {"size": [8, 9], "counts": [[72]]},
    "counts None": {"size": [8, 9], "counts": None},
    "counts a number": {"size": [8, 9], "counts": 72},
    "counts a dict": {"size": [8, 9], "counts": {}},
    "text too short": {"size": [8, 9], "counts": "1"},
    "text empty": {"size": [8, 9], "counts": ""},
    "text that goes on": {"size": [8, 9], "counts": "X2o"},
    "text of other letters": {"size": [8, 9], "counts": "hello world"},
    "text beyond ASCII": {"size": [8, 9], "counts": "Ω" * 5},
    "half a surrogate pair": {"size": [8, 9], "counts": "\ud800"},
    "text with a zero byte": {"size": [8, 9], "counts": "X2\0"},
    "run of 40 letters": {"size": [8, 9], "counts": "o" * 40 + "0"},
}  # fmt: skip


@pytest.mark.parametrize("segmentation", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_values_are_a_sentence(segmentation):
    with pytest.raises(SynthgenError) as why:
        rle_from_coco(segmentation, 8, 9)
    assert "\n" not in str(why.value)
    assert len(str(why.value)) < 200


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=20,
)


@given(
    json_value
    | st.fixed_dictionaries({"size": st.just([8, 9]), "counts": json_value})
    | st.lists(st.lists(st.floats() | st.integers()))
)
def test_any_json_is_a_mask_or_a_sentence(segmentation):
    try:
        rle = rle_from_coco(segmentation, 8, 9)
    except SynthgenError:
        return
    check_rle(rle)
    assert rle.size == (8, 9)


@pytest.mark.parametrize(("height", "width"), [(0, 9), (8, 0), (-8, -9), (2**16, 2**16), (2**31, 2**31)])
def test_an_image_of_impossible_size_has_no_mask(height, width):
    for segmentation in ([square], {"size": [height, width], "counts": [max(0, height * width)]}):
        with pytest.raises(SynthgenError, match="can have no mask"):
            rle_from_coco(segmentation, height, width)


def test_the_largest_mask_works():
    """As many pixels as are allowed, in runs of six letters, where cocoapi's shifts are still right."""
    height = width = 2**14
    rle = rle_from_coco(
        {"size": [height, width * 2], "counts": [5, rle_module.MAX_MASK_PIXELS - 6, 1]}, height, width * 2
    )
    assert rle_area(rle) == rle_module.MAX_MASK_PIXELS - 6
    assert decode_counts(rle.counts).tolist() == [5, rle_module.MAX_MASK_PIXELS - 6, 1]


# --- real masks ------------------------------------------------------------------------------------------------------


def test_human_masks_of_coco_are_pycocotools_own(shared):
    path = next(shared("data/coco_tiny").rglob("*instances*.json"))
    coco = json.loads(path.read_text())
    images = {image["id"]: image for image in coco["images"]}
    assert coco["annotations"]
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        rle = rle_from_coco(annotation["segmentation"], image["height"], image["width"])
        assert np.array_equal(decode_mask(rle), theirs(annotation["segmentation"], image["height"], image["width"]))


def test_runs_that_are_kept_for_the_next_who_asks_cannot_be_changed_by_the_first() -> None:
    text = encode_mask(np.eye(8, dtype=bool)).counts
    first = decode_counts(text)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 9
    assert np.array_equal(decode_counts(text), first)
    long = b"11" * 4096
    assert decode_counts(long) is not decode_counts(long), "so that what is kept is bounded"
