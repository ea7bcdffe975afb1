"""The contract of every segmenter: order, batches, boxes and images of any size, bounded memory, options."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fakes import tiny_lite, tiny_sam
from fakes.segmenter_inputs import box_array, draw_ellipse, random_boxes, segment_one
from hypothesis import given
from hypothesis import strategies as st

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import box_fill, grabcut
from synthgen.generate.stages.masks import MaskStage
from synthgen.records.rle import check_rle, decode_mask, rle_area
from synthgen.records.sample import Annotation, Sample

PLUGIN_PACKAGE = "generate.segmenters"


#: A mask may leave its prompt by this many pixels; a filled box by none.
SLACK = {"box_fill": 0, "grabcut": 0}
WITH_WEIGHTS = [
    name
    for name in plugins.list_plugins(PLUGIN_PACKAGE)
    if "checkpoint" in plugins.build_parameters(PLUGIN_PACKAGE, name)
]


@pytest.fixture(params=plugins.list_plugins(PLUGIN_PACKAGE))
def any_segmenter(request, tmp_path):
    """Each of the shelf; those with weights have few and random ones, and draw nonsense."""
    if request.param not in WITH_WEIGHTS:
        return plugins.build_plugin(PLUGIN_PACKAGE, request.param, {})
    if request.param == "lite":
        options = {"checkpoint": str(tiny_lite.write_weights(tmp_path)), "device": "cpu"}
    else:
        path = tiny_sam.checkpoint(tmp_path, f"{request.param}_tiny")
        options = {"checkpoint": str(path), "device": "cpu", "self_test": False}
    return plugins.build_plugin(PLUGIN_PACKAGE, request.param, options)


def inside(mask: np.ndarray, box: np.ndarray, slack: int) -> bool:
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int) - slack, np.ceil(box[2:]).astype(int) + slack
    rest = mask.copy()
    rest[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = False
    return not rest.any()


def test_says_what_it_is(any_segmenter):
    assert any_segmenter.batch_size >= 1
    assert any_segmenter.source


def test_one_prediction_a_box_in_order_for_images_of_different_sizes(name, segmenter):
    images = [draw_ellipse(60, 80), draw_ellipse(33, 47, 1), draw_ellipse(100, 20, 2)]
    prompts = [
        random_boxes(5, 60, 80),
        box_array(),
        np.concatenate([box_array((2, 10, 18, 90)), random_boxes(3, 100, 20)]),
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


@pytest.mark.parametrize("shape", [(60, 80), (1, 1), (1, 300), (300, 1)])
def test_what_it_returns_passes_the_checks_of_the_stage(any_segmenter, shape):
    """Also what networks with random weights draw; black and noise, boxes of any size."""
    height, width = shape
    boxes = [(0.0, 0.0, float(width), float(height)), (0.0, 0.0, 0.25, 0.25), (width - 0.5, height - 0.5, 9.0, 9.0)]
    annotations = tuple(Annotation(i, box, "thing") for i, box in enumerate(boxes))
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    given = [Sample(1, "toy/1", "1.png", height, width, annotations)] * 2
    for done in MaskStage(any_segmenter).process(given, [noise, np.zeros_like(noise)]):
        assert all((a.segmentation is not None) != ("empty_mask" in a.flags) for a in done.annotations)


def test_no_images_and_no_boxes(any_segmenter):
    assert list(any_segmenter.segment([], [])) == []
    assert list(any_segmenter.segment([draw_ellipse(), draw_ellipse()], [box_array(), box_array()])) == [[], []]


def test_a_batch_gives_what_its_images_give_alone(segmenter):
    images = [draw_ellipse(60, 80, seed) for seed in range(3)]
    prompts = [random_boxes(4, 60, 80, seed) for seed in range(3)]
    together = list(segmenter.segment(images, prompts))
    assert together == [segment_one(segmenter, i, p) for i, p in zip(images, prompts, strict=True)]


def test_a_box_gets_its_mask_whatever_the_other_boxes(segmenter):
    image, prompts = draw_ellipse(), random_boxes(12, 60, 80)
    found = segment_one(segmenter, image, prompts)
    order = np.random.default_rng(3).permutation(len(prompts))
    assert segment_one(segmenter, image, prompts[order]) == [found[i] for i in order]
    assert segment_one(segmenter, image, prompts[4:5]) == found[4:5]


def test_inputs_are_not_written_to(any_segmenter):
    image, prompts = draw_ellipse(), random_boxes(3, 60, 80)
    image.flags.writeable = prompts.flags.writeable = False
    assert len(segment_one(any_segmenter, image, prompts)) == 3


@pytest.mark.parametrize(
    "box",
    [(0, 0, 1, 1), (79, 59, 80, 60), (40, 30, 41, 31), (40.2, 30.3, 40.4, 30.9), (5, 0, 5.5, 60), (0, 59.2, 80, 59.9)],
)
def test_boxes_of_a_pixel_or_less_get_at_least_a_pixel(name, segmenter, box):
    (prediction,) = segment_one(segmenter, draw_ellipse(), box_array(box))
    assert rle_area(prediction.rle) >= 1
    assert inside(decode_mask(prediction.rle), box_array(box)[0], SLACK.get(name, 2))


def test_a_box_whose_area_was_lost_in_rounding_is_answered(any_segmenter):
    found = segment_one(
        any_segmenter, draw_ellipse(), box_array((80, 10, 80, 20), (7.3, 60, 9, 60), (5.5, 5.5, 5.5, 5.5))
    )
    assert [p.rle.size for p in found] == [(60, 80)] * 3


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (40, 0, 80, 30), (0, 30, 40, 60), (40, 30, 80, 60), (0, 0, 80, 60)])
def test_boxes_on_the_border(segmenter, box):
    (prediction,) = segment_one(segmenter, draw_ellipse(), box_array(box))
    assert rle_area(prediction.rle) > 0


SHAPES = [(1, 1), (1, 300), (300, 1), (2, 2), (3, 5), (9, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_shape_are_answered(any_segmenter, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    whole, point = segment_one(any_segmenter, image, box_array((0, 0, shape[1], shape[0]), (0, 0, 0.25, 0.25)))
    for prediction in (whole, point):
        assert prediction.rle.size == shape
        check_rle(prediction.rle)
        assert all(score is None or 0 <= score <= 1 for score in prediction[1:])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_as_large_as_its_image_finds_something(segmenter, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    (prediction,) = segment_one(segmenter, image, box_array((0, 0, shape[1], shape[0])))
    assert prediction.rle.size == shape
    assert rle_area(prediction.rle) >= 1


@pytest.mark.parametrize("value", [0, 128, 255])
def test_uniform_images_have_no_object_to_find_but_the_box_is_answered(segmenter, value):
    image = np.full((60, 80, 3), value, np.uint8)
    (prediction,) = segment_one(segmenter, image, box_array((20, 10, 60, 50)))
    assert rle_area(prediction.rle) > 0.2 * 40 * 40
    assert prediction.stability_score is None or prediction.stability_score < 0.5


@given(st.data())
def test_any_box_in_any_image(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    x = sorted((data.draw(st.floats(0, width, width=32)), data.draw(st.floats(0, width, width=32))))
    y = sorted((data.draw(st.floats(0, height, width=32)), data.draw(st.floats(0, height, width=32))))
    if x[0] == x[1] or y[0] == y[1]:
        return
    prompt = box_array((x[0], y[0], x[1], y[1]))
    image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), np.uint8)
    for own in (box_fill.build(), grabcut.build(grabcut.GrabCutOptions(side=16, threads=1))):
        (prediction,) = segment_one(own, image, prompt)
        check_rle(prediction.rle)
        assert inside(decode_mask(prediction.rle), prompt[0], 0)


@pytest.mark.slow
def test_many_boxes_on_one_image_in_bounded_memory(segmenter):
    image = draw_ellipse(900, 1200)  # 500 masks of it as arrays are half a gigabyte
    tracemalloc.start()
    found = segment_one(segmenter, image, random_boxes(500, 900, 1200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 500
    assert peak < 64 * 2**20


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
        plugins.build_plugin(PLUGIN_PACKAGE, name, options)
    with pytest.raises(SynthgenError, match=sentence):
        plugins.resolve_options(PLUGIN_PACKAGE, name, options)


@pytest.mark.parametrize("options", [{"side": 8, "margin": 0.0}, {"margin": 100.0, "threads": 1024}])
def test_options_at_the_end_of_their_range_work(options):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    (found,) = plugins.build_plugin(PLUGIN_PACKAGE, "grabcut", options).segment(
        [image], [np.array([[10, 10, 60, 50]], np.float32)]
    )
    assert found[0].rle.size == (60, 80)


@pytest.mark.parametrize("plugin", [box_fill, grabcut])
def test_the_note_after_a_job_has_the_figures_of_the_readme(plugin):
    """Mean IoU of all boxes of the excerpt of COCO that nothing was tuned on."""
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    table = re.search(
        r"\| (804) \| `lite` \| \*\*(0\.\d+)\*\*.*?`grabcut` \| (0\.\d+).*?`box_fill` \| (0\.\d+)", readme, re.S
    )
    assert table is not None
    assert f"({table[1]} objects of COCO" in plugin.NOTE_AFTER_JOB
    own, lite = table[4 if plugin is box_fill else 3], table[2]
    assert re.findall(r"0\.\d+", plugin.NOTE_AFTER_JOB) == [f"{float(own):.2f}", f"{float(lite):.2f}"]
