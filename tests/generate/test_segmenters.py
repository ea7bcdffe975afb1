"""What every segmenter on the shelf promises, found by itself; then what GrabCut promises beyond that."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import tiny_sam

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import box_fill, grabcut
from synthgen.records.geometry import check_rle, decode_mask, encode_mask, rle_area, rle_iou

SHELF = "generate.segmenters"
#: A mask may leave its prompt by this many pixels; a filled box by none.
SLACK = {"box_fill": 0, "grabcut": 0}


WITH_WEIGHTS = [name for name in plugins.list_plugins(SHELF) if "checkpoint" in plugins.build_parameters(SHELF, name)]


@pytest.fixture(params=[name for name in plugins.list_plugins(SHELF) if name not in WITH_WEIGHTS])
def name(request):
    return request.param


@pytest.fixture
def segmenter(name):
    """One that needs no weights, and so can be asked for sensible masks."""
    return plugins.build_plugin(SHELF, name, {})


@pytest.fixture(params=plugins.list_plugins(SHELF))
def any_segmenter(request, tmp_path):
    """Each of the shelf; those with weights have few and random ones, and draw nonsense."""
    if request.param not in WITH_WEIGHTS:
        return plugins.build_plugin(SHELF, request.param, {})
    path = tiny_sam.checkpoint(tmp_path, f"{request.param}_tiny")
    return plugins.build_plugin(SHELF, request.param, {"checkpoint": str(path), "device": "cpu", "self_test": False})


def photograph(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """A red ellipse on noisy blue, at 30 to 70 % of the image's sides."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    disc = np.hypot(y - 0.5, x - 0.5) < 0.2
    return np.where(disc[..., None], (200, 40, 40), rng.integers(60, 140, (height, width, 3)) * (0.4, 0.6, 1)).astype(
        np.uint8
    )


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def random_boxes(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sides = np.sort(rng.random((count, 2, 2)), axis=1) * (width, height)  # two corners, x and y
    sides[:, 1] = np.minimum(np.maximum(sides[:, 1], sides[:, 0] + 0.5), (width, height))
    sides[:, 0] = np.minimum(sides[:, 0], sides[:, 1] - 0.25)
    return sides.reshape(-1, 4).astype(np.float32)


def one(segmenter, image, prompts):
    (found,) = segmenter.segment([image], [prompts])
    return found


def inside(mask: np.ndarray, box: np.ndarray, slack: int) -> bool:
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int) - slack, np.ceil(box[2:]).astype(int) + slack
    rest = mask.copy()
    rest[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = False
    return not rest.any()


# --- the contract of the shelf ---------------------------------------------------------------------------------------


def test_says_what_it_is(any_segmenter):
    assert any_segmenter.batch_size >= 1
    assert any_segmenter.source


def test_one_prediction_a_box_in_order_for_images_of_different_sizes(name, segmenter):
    images = [photograph(60, 80), photograph(33, 47, 1), photograph(100, 20, 2)]
    prompts = [
        random_boxes(5, 60, 80),
        boxes(),
        np.concatenate([boxes((2, 10, 18, 90)), random_boxes(3, 100, 20)]),
    ]
    found = list(segmenter.segment(images, prompts))
    assert [len(own) for own in found] == [5, 0, 4]
    for image, rows, own in zip(images, prompts, found, strict=True):
        for box, prediction in zip(rows, own, strict=True):
            assert prediction.rle.size == image.shape[:2]
            check_rle(prediction.rle)
            assert inside(decode_mask(prediction.rle), box, SLACK.get(name, 2))
            for score in (prediction.predicted_iou, prediction.stability_score):
                assert score is None or 0 <= score <= 1


def test_no_images_and_no_boxes(any_segmenter):
    assert list(any_segmenter.segment([], [])) == []
    assert list(any_segmenter.segment([photograph(), photograph()], [boxes(), boxes()])) == [[], []]


def test_a_batch_gives_what_its_images_give_alone(segmenter):
    images = [photograph(60, 80, seed) for seed in range(3)]
    prompts = [random_boxes(4, 60, 80, seed) for seed in range(3)]
    together = list(segmenter.segment(images, prompts))
    assert together == [one(segmenter, i, p) for i, p in zip(images, prompts, strict=True)]


def test_a_box_gets_its_mask_whatever_the_other_boxes(segmenter):
    image, prompts = photograph(), random_boxes(12, 60, 80)
    found = one(segmenter, image, prompts)
    order = np.random.default_rng(3).permutation(len(prompts))
    assert one(segmenter, image, prompts[order]) == [found[i] for i in order]
    assert one(segmenter, image, prompts[4:5]) == found[4:5]


def test_inputs_are_not_written_to(any_segmenter):
    image, prompts = photograph(), random_boxes(3, 60, 80)
    image.flags.writeable = prompts.flags.writeable = False
    assert len(one(any_segmenter, image, prompts)) == 3


@pytest.mark.parametrize(
    "box",
    [(0, 0, 1, 1), (79, 59, 80, 60), (40, 30, 41, 31), (40.2, 30.3, 40.4, 30.9), (5, 0, 5.5, 60), (0, 59.2, 80, 59.9)],
)
def test_boxes_of_a_pixel_or_less_get_at_least_a_pixel(name, segmenter, box):
    (prediction,) = one(segmenter, photograph(), boxes(box))
    assert rle_area(prediction.rle) >= 1
    assert inside(decode_mask(prediction.rle), boxes(box)[0], SLACK.get(name, 2))


def test_a_box_whose_area_was_lost_in_rounding_is_answered(any_segmenter):
    found = one(any_segmenter, photograph(), boxes((80, 10, 80, 20), (7.3, 60, 9, 60), (5.5, 5.5, 5.5, 5.5)))
    assert [p.rle.size for p in found] == [(60, 80)] * 3


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (40, 0, 80, 30), (0, 30, 40, 60), (40, 30, 80, 60), (0, 0, 80, 60)])
def test_boxes_on_the_border(segmenter, box):
    (prediction,) = one(segmenter, photograph(), boxes(box))
    assert rle_area(prediction.rle) > 0


SHAPES = [(1, 1), (1, 300), (300, 1), (2, 2), (3, 5), (9, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_shape_are_answered(any_segmenter, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    whole, point = one(any_segmenter, image, boxes((0, 0, shape[1], shape[0]), (0, 0, 0.25, 0.25)))
    for prediction in (whole, point):
        assert prediction.rle.size == shape
        check_rle(prediction.rle)
        assert all(score is None or 0 <= score <= 1 for score in prediction[1:])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_as_large_as_its_image_finds_something(segmenter, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    (prediction,) = one(segmenter, image, boxes((0, 0, shape[1], shape[0])))
    assert prediction.rle.size == shape
    assert rle_area(prediction.rle) >= 1


@pytest.mark.parametrize("value", [0, 128, 255])
def test_uniform_images_have_no_object_to_find_but_the_box_is_answered(segmenter, value):
    image = np.full((60, 80, 3), value, np.uint8)
    (prediction,) = one(segmenter, image, boxes((20, 10, 60, 50)))
    assert rle_area(prediction.rle) > 0.2 * 40 * 40
    assert prediction.stability_score is None or prediction.stability_score < 0.5


@given(st.data())
def test_any_box_in_any_image(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    x = sorted((data.draw(st.floats(0, width, width=32)), data.draw(st.floats(0, width, width=32))))
    y = sorted((data.draw(st.floats(0, height, width=32)), data.draw(st.floats(0, height, width=32))))
    if x[0] == x[1] or y[0] == y[1]:
        return
    prompt = boxes((x[0], y[0], x[1], y[1]))
    image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), np.uint8)
    for own in (box_fill.build(), grabcut.build(grabcut.GrabCutOptions(side=16, threads=1))):
        (prediction,) = one(own, image, prompt)
        check_rle(prediction.rle)
        assert inside(decode_mask(prediction.rle), prompt[0], 0)


def test_many_boxes_on_one_image_in_bounded_memory(segmenter):
    image = photograph(900, 1200)  # 500 masks of it as arrays are half a gigabyte
    tracemalloc.start()
    found = one(segmenter, image, random_boxes(500, 900, 1200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 500
    assert peak < 64 * 2**20


# --- the box itself --------------------------------------------------------------------------------------------------


def test_a_filled_box_is_every_pixel_that_the_box_touches():
    (prediction,) = one(box_fill.build(), np.zeros((10, 12, 3), np.uint8), boxes((2.5, 3, 5.1, 7.9)))
    expected = np.zeros((10, 12), bool)
    expected[3:8, 2:6] = True
    assert np.array_equal(decode_mask(prediction.rle), expected)
    assert prediction[1:] == (None, None, None)


# --- GrabCut ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("grabcut", {"side": "0"}, r"'side' of 'grabcut' should be from 8 to 2048 pixels, got 0"),
        ("grabcut", {"side": "-5"}, r"got -5"),
        ("grabcut", {"side": "2049"}, r"got 2049"),
        ("grabcut", {"margin": "nan"}, r"'margin' of 'grabcut' should be from 0 to 100 parts of the box, got nan"),
        ("grabcut", {"margin": "inf"}, r"got inf"),
        ("grabcut", {"margin": "-1"}, r"got -1"),
        ("grabcut", {"threads": "-1"}, r"'threads' of 'grabcut' should be from 0 \(one a core\) to 1024, got -1"),
        ("grabcut", {"batch_size": "0"}, r"'batch_size' of 'grabcut' should be 1 or more images, got 0"),
        ("box_fill", {"batch_size": "-3"}, r"'batch_size' of 'box_fill' should be 1 or more images, got -3"),
    ],
)
def test_options_out_of_range_are_refused_where_the_job_begins(name, options, sentence):
    with pytest.raises(SynthgenError, match=sentence):
        plugins.build_plugin(SHELF, name, options)
    with pytest.raises(SynthgenError, match=sentence):
        plugins.resolve_options(SHELF, name, options)


@pytest.mark.parametrize("options", [{"side": 8, "margin": 0.0}, {"margin": 100.0, "threads": 1024}])
def test_options_at_the_end_of_their_range_work(options):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    (found,) = plugins.build_plugin(SHELF, "grabcut", options).segment(
        [image], [np.array([[10, 10, 60, 50]], np.float32)]
    )
    assert found[0].rle.size == (60, 80)


def test_finds_a_disc():
    image = photograph(240, 320)
    y, x = np.mgrid[0:1:240j, 0:1:320j]
    truth = encode_mask(np.hypot(y - 0.5, x - 0.5) < 0.2)
    (prediction,) = one(grabcut.build(), image, boxes((96, 72, 224, 168)))
    assert rle_iou([prediction.rle], [truth])[0, 0] > 0.93
    assert prediction.predicted_iou is None
    assert prediction.stability_score > 0.85


def test_an_unsure_mask_is_scored_less_stable_than_a_sure_one():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    (unsure,) = one(grabcut.build(), noise, boxes((96, 72, 224, 168)))
    (sure,) = one(grabcut.build(), photograph(240, 320), boxes((96, 72, 224, 168)))
    assert unsure.stability_score < sure.stability_score - 0.1


def test_threads_and_what_ran_before_do_not_change_a_byte():
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (120, 90, 3), np.uint8), photograph(100, 140), photograph(64, 64, 7)]
    prompts = [random_boxes(10, *image.shape[:2], seed=i) for i, image in enumerate(images)]
    first = list(grabcut.build(grabcut.GrabCutOptions(threads=1)).segment(images, prompts))
    assert sum(rle_area(p.rle) > 0 for own in first for p in own) > 20  # else equality would say little
    cv2.setRNGSeed(12345)
    assert list(grabcut.build(grabcut.GrabCutOptions(threads=4)).segment(images, prompts)) == first
    backwards = grabcut.build(grabcut.GrabCutOptions(threads=4)).segment(images[::-1], [p[::-1] for p in prompts[::-1]])
    assert [own[::-1] for own in backwards][::-1] == first
    assert list(grabcut.build(grabcut.GrabCutOptions(threads=3, batch_size=1)).segment(images, prompts)) == first


def test_closing_early_stops_the_work():
    images, prompts = [photograph()] * 40, [random_boxes(4, 60, 80)] * 40
    done = []
    segmenter = grabcut.build(grabcut.GrabCutOptions(threads=2))
    predict = segmenter._predict
    segmenter._predict = lambda image, box: done.append(0) or predict(image, box)
    found = segmenter.segment(images, prompts)
    next(found)
    found.close()
    assert len(done) < 80


@pytest.mark.parametrize("shape", [(100, 40_000), (40_000, 100)])
def test_images_longer_than_a_short_integer(shape):
    image = np.zeros((*shape, 3), np.uint8)
    whole = boxes((0, 0, shape[1], shape[0]))
    (prediction,) = one(grabcut.build(), image, whole)
    assert rle_area(prediction.rle) > 0


def test_a_large_box_costs_a_few_bytes_a_pixel():
    image = photograph(3000, 4000)
    tracemalloc.start()
    (prediction,) = one(grabcut.build(), image, boxes((100, 100, 3900, 2900)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rle_area(prediction.rle) > 0
    assert peak < 6 * 3000 * 4000


def test_beats_the_box_on_human_masks(shared):
    from pycocotools.coco import COCO

    from synthgen.images.decode import load_rgb
    from synthgen.records.sample import Rle

    root: Path = shared("data/coco_tiny")
    coco = COCO(str(root / "annotations/instances_val2017.json"))
    ious: dict[str, list[float]] = {"grabcut": [], "box_fill": []}
    for key in sorted(coco.imgs)[:16]:
        image = load_rgb(root / "val2017" / coco.imgs[key]["file_name"])
        human = [a for a in coco.imgToAnns[key] if not a["iscrowd"]]
        prompts = boxes(*[(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in human)])
        prompts = np.clip(prompts, 0, [*image.shape[1::-1], *image.shape[1::-1]]).astype(np.float32)
        for name, scores in ious.items():
            for prediction, truth in zip(
                one(plugins.build_plugin(SHELF, name, {}), image, prompts), human, strict=True
            ):
                rle = Rle(image.shape[:2], coco.annToRLE(truth)["counts"])
                scores.append(rle_iou([prediction.rle], [rle])[0, 0])
    assert len(ious["grabcut"]) > 80
    assert np.mean(ious["grabcut"]) > np.mean(ious["box_fill"]) + 0.05
