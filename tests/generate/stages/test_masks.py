"""The masks stage: which boxes are prompted, with what, and what is stored of the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.generate.output_checks import PluginError
from synthgen.generate.segmenters import MaskPrediction, box_fill
from synthgen.generate.stages import masks
from synthgen.generate.stages.masks import MaskStage
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import ANNOTATION_FLAGS, UNPROMPTED_FLAGS, Annotation, Sample

HEIGHT, WIDTH = 20, 30
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


class Toy:
    """Answers every box with the same mask and scores, and remembers what it was asked."""

    batch_size = 3
    source = "toy"

    def __init__(self, mask=None, predicted_iou=None, stability_score=None):
        drawn = np.ones((HEIGHT, WIDTH), bool) if mask is None else mask
        self.answer = MaskPrediction(encode_mask(drawn), predicted_iou, stability_score)
        self.asked: list[np.ndarray] = []

    def segment(self, images, boxes_xyxy):
        for boxes in boxes_xyxy:
            assert boxes.dtype == np.float32
            assert boxes.shape == (len(boxes), 4)
            self.asked.append(boxes)
            yield [self.answer] * len(boxes)


def sample(*annotations: Annotation) -> Sample:
    return Sample(1, "toy/1", "1.png", HEIGHT, WIDTH, annotations)


def box(number: int, *bbox: float, **fields) -> Annotation:
    return Annotation(number, bbox, "thing", **fields)


def run(toy: Toy, *annotations: Annotation) -> tuple[Annotation, ...]:
    (done,) = MaskStage(toy).process([sample(*annotations)], [IMAGE])
    return done.annotations


@pytest.mark.parametrize("flag", sorted(UNPROMPTED_FLAGS))
def test_crowds_and_boxes_without_area_are_passed_through_unasked(flag):
    toy = Toy()
    left, right = box(1, 2, 2, 5, 5, flags=(flag,)), box(2, 3, 3, 4, 4)
    first, second = run(toy, left, right)
    assert first == left
    assert second.segmentation is not None
    assert [b.tolist() for b in toy.asked] == [[[3, 3, 7, 7]]]


@pytest.mark.parametrize("flag", sorted(set(ANNOTATION_FLAGS) - UNPROMPTED_FLAGS))
def test_any_other_flag_does_not_cost_a_mask(flag):
    (done,) = run(Toy(), box(1, 2, 2, 5, 5, flags=(flag,)))
    assert done.segmentation is not None


def test_a_human_mask_is_never_replaced():
    human = box(
        1,
        2,
        2,
        5,
        5,
        segmentation=encode_mask(np.eye(HEIGHT, WIDTH, dtype=bool)),
        mask_source="human",
        flags=("clipped",),
    )
    toy = Toy()
    assert run(toy, human, box(2, 3, 3, 4, 4))[0] == human
    assert len(toy.asked[0]) == 1


def test_the_box_and_all_else_stay_as_they_were():
    given_box = box(7, -3.25, 2.5, 12.125, 50, flags=("clipped", "fake"), isthing=False)
    (done,) = run(Toy(), given_box)
    assert replace(done, segmentation=None, mask_source=None, box_iou=None) == given_box


def test_a_box_beyond_the_image_is_prompted_by_its_part_inside():
    toy = Toy()
    run(toy, box(1, -5, -4, 15, 10, flags=("clipped",)), box(2, 25, 15, 100, 100, flags=("clipped",)))
    assert toy.asked[0].tolist() == [[0, 0, 10, 6], [25, 15, WIDTH, HEIGHT]]


def test_nothing_found_is_a_flag_and_no_mask():
    (done,) = run(Toy(np.zeros((HEIGHT, WIDTH), bool), 0.9, 0.9), box(1, 2, 2, 5, 5, flags=("fake",)))
    assert done == box(1, 2, 2, 5, 5, flags=("empty_mask", "fake"))


def test_a_mask_at_last_takes_back_the_flag_of_its_absence():
    (done,) = run(Toy(), box(1, 2, 2, 5, 5, flags=("empty_mask", "fake", "segmenter_failed")))
    assert done.flags == ("fake",)
    (still,) = run(Toy(np.zeros((HEIGHT, WIDTH), bool)), box(1, 2, 2, 5, 5, flags=("segmenter_failed",)))
    assert still.flags == ("empty_mask",)


def test_box_iou_by_hand():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4:8, 10:20] = True  # tight box (10, 4) to (20, 8)
    (done,) = run(Toy(mask), box(1, 12, 2, 10, 4))  # (12, 2) to (22, 6): 8 x 2 in common of 40 + 40
    assert done.box_iou == 0.25
    # Against the prompt, which is the part inside: (20, 4) to (30, 8), not the box that ends at 40.
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4:8, 20:30] = True
    (done,) = run(Toy(mask), box(1, 20, 4, 20, 4, flags=("clipped",)))
    assert done.box_iou == 1


def test_holes_and_separate_parts_survive():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:12, 2:12] = True
    mask[5:8, 5:8] = False
    mask[15, 25] = True
    (done,) = run(Toy(mask), box(1, 2, 2, 25, 15))
    assert np.array_equal(decode_mask(done.segmentation), mask)


def test_scores_are_rounded_and_absent_ones_stay_absent():
    (done,) = run(Toy(None, 0.123456, 0.98765432), box(1, 0, 0, 7, 9))
    assert (done.predicted_iou, done.stability_score) == (0.1235, 0.9877)
    assert done.box_iou == round(63 / 600, 4)
    (done,) = run(Toy(), box(1, 0, 0, 7, 9))
    assert (done.predicted_iou, done.stability_score) == (None, None)
    assert done.mask_source == "toy"
    assert all(type(score) is float for score in (done.box_iou,))


def test_rows_and_annotations_keep_their_order_also_without_boxes():
    flat = [box(5, 1, 1, 2, 2), box(3, 4, 4, 0, 0, flags=("degenerate",)), box(9, 3, 3, 5, 5), box(9, 3, 3, 5, 5)]
    samples = [
        replace(sample(*flat), image_id=1),
        replace(sample(), image_id=2),
        replace(sample(*flat[::-1]), image_id=3),
    ]
    done = list(MaskStage(Toy()).process(samples, [IMAGE] * 3))
    assert [s.image_id for s in done] == [1, 2, 3]
    assert [[a.id for a in s.annotations] for s in done] == [[5, 3, 9, 9], [], [9, 9, 3, 5]]
    assert done[1] == samples[1]


def test_the_same_annotation_object_twice_gets_two_masks():
    twin = box(1, 2, 2, 5, 5)
    toy = Toy()
    assert all(a.segmentation is not None for a in run(toy, twin, twin))
    assert len(toy.asked[0]) == 2


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_a_segmenter_that_answers_too_little_or_too_much_is_an_error_not_a_mixture(answers):
    class Wrong(Toy):
        def segment(self, images, boxes_xyxy):
            yield from ([self.answer] * answers for _ in boxes_xyxy)

    with pytest.raises(PluginError, match=f"^the number of masks of an image is {answers}, not 2, one for each box$"):
        run(Wrong(), box(1, 2, 2, 5, 5), box(2, 3, 3, 5, 5))


def test_a_segmenter_that_forgets_an_image_is_an_error():
    class Wrong(Toy):
        def segment(self, images, boxes_xyxy):
            yield [self.answer]

    with pytest.raises(PluginError, match=r"^it returned masks for 1 of 2 images$"):
        list(MaskStage(Wrong()).process([sample(box(1, 2, 2, 5, 5))] * 2, [IMAGE] * 2))


def test_a_failure_marks_what_was_wanted_and_nothing_else():
    human = box(1, 2, 2, 5, 5, segmentation=encode_mask(np.ones((HEIGHT, WIDTH), bool)), mask_source="human")
    crowd, wanted = box(2, 2, 2, 5, 5, flags=("crowd",)), box(3, 2, 2, 5, 5, flags=("segmenter_failed", "fake"))
    done = MaskStage(Toy()).failed(sample(human, crowd, wanted))
    assert done.annotations[:2] == (human, crowd)
    assert done.annotations[2].flags == ("fake", "segmenter_failed")


def test_build_takes_the_plugin_by_name_and_checks_its_options():
    assert masks.build("box_fill", {"batch_size": "5"}).batch_size == 5
    with pytest.raises(SynthgenError, match="no segmenter named 'boxfill'"):
        masks.build("boxfill", {})
    with pytest.raises(SynthgenError, match="batch_size"):
        masks.build("box_fill", {"batchsize": 5})


side = st.floats(0.01, 60)
place = st.floats(-40, 40)


@given(st.lists(st.tuples(place, place, side, side), max_size=6))
def test_every_box_is_accounted_for(rows):
    """Whatever the boxes: prompts lie inside the image, and each annotation leaves with a mask or with a reason."""
    annotations = []
    for number, (x, y, w, h) in enumerate(rows):
        lost = x >= WIDTH or y >= HEIGHT or x + w <= 0 or y + h <= 0
        annotations.append(box(number, x, y, w, h, flags=("outside",) if lost else ()))
    (done,) = MaskStage(box_fill.build()).process([sample(*annotations)], [IMAGE])
    for before, after in zip(annotations, done.annotations, strict=True):
        assert after.bbox == before.bbox
        assert (after.segmentation is not None) != bool({"outside", "empty_mask"} & set(after.flags))
        assert after.box_iou is None or 0 <= after.box_iou <= 1


def test_a_result_belongs_to_the_sample_that_it_was_made_of():
    drawn = box(3, 1, 1, 4, 4, segmentation=encode_mask(np.ones((HEIGHT, WIDTH), bool)), mask_source="human")
    before = sample(box(1, 2, 2, 5, 5), box(2, 3, 3, 4, 4, flags=("crowd",)), drawn)
    (after,) = MaskStage(Toy(predicted_iou=0.5)).process([before], [IMAGE])
    (nothing,) = MaskStage(Toy(mask=np.zeros((HEIGHT, WIDTH), bool))).process([before], [IMAGE])
    first, second, third = before.annotations
    first_done, *others = after.annotations
    reviewed = replace(first_done, provenance="reviewed", mask_source="human", box_iou=None)
    for result in (after, nothing, sample(reviewed, *others)):
        assert masks.is_result(before, result)
        assert masks.is_result(sample(replace(first, flags=("segmenter_failed",)), second, third), result)
        for other in (
            sample(first, second),
            sample(replace(first, bbox=(2, 2, 5, 6)), second, third),
            sample(replace(first, category="other"), second, third),
            sample(first, replace(second, bbox=(0, 0, 1, 1)), third),
            sample(first, second, replace(third, segmentation=None)),
            sample(first, second, replace(third, mask_source="grabcut")),
            replace(before, file_name="2.png"),
        ):
            assert not masks.is_result(other, result)
