"""Every metric: perfect and empty predictions, any order, merged parts, unknown ground truth."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.ascii_samples import ascii_sample, boxed_annotation, masked_annotation
from fakes.metric_inputs import detection_at, drawn_samples, make_ground_truth, perfect_prediction

from synthgen.evaluation import postprocess
from synthgen.evaluation.evaluate import _with_all_phrases
from synthgen.evaluation.evaluator import load_metric
from synthgen.evaluation.metrics import Detection, GroundTruth
from synthgen.evaluation.postprocess import RawPrediction
from synthgen.records.rle import decode_mask, encode_mask

TASKS = ["instance", "detection", "panoptic", "semantic", "referring", "foreground"]


def blind(one: GroundTruth, queries=8) -> RawPrediction:
    size = (one.sample.height, one.sample.width)
    masks = torch.full((queries, *size), -20.0)
    logits = torch.full((queries, len(one.target.texts)), -12.0)
    logits[:, -1] += 1  # of a name that is nowhere
    return RawPrediction(logits, torch.zeros(queries, 4), masks, size, size, size, 4)


def measure(task, predict, given=None):
    metric = load_metric(task)
    images = [make_ground_truth(task, sample) for sample in given or drawn_samples()]
    compared = [metric.compare(one, getattr(postprocess, metric.TAKES)(predict(one))) for one in images]
    return metric.scores(compared), compared


@pytest.mark.parametrize("task", TASKS)
def test_the_truth_is_100(task):
    found, compared = measure(task, perfect_prediction)
    errors = found.values.pop("MAE", 0.0)
    assert errors == pytest.approx(0, abs=1e-6)
    if "AR1" in found.values:
        assert found.values.pop("AR1") == pytest.approx(87.5), "one of the two cats of an image"
    every = [*found.values.values(), *found.by_name.values()]
    assert every == pytest.approx([100] * len(every)) and load_metric(task).MAIN in found.values
    objects = sum(len(make_ground_truth(task, sample).target.labels) for sample in drawn_samples())
    assert task == "foreground" or sum(len(one.true_positives) for one in compared) == objects
    if task in ("panoptic", "semantic"):
        assert {is_thing for one in compared for is_thing, _ in one.true_positives} == {True, False}


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_0(task):
    found, compared = measure(task, blind)
    assert found.values[load_metric(task).MAIN] == pytest.approx(0)
    assert not any(one.true_positives for one in compared)
    for name, value in found.values.items():
        assert value == pytest.approx(0) or name == "MAE", name


@pytest.mark.parametrize("task", TASKS)
def test_order_is_nothing_and_what_is_kept_travels(task):
    def noisy(one):
        seen = perfect_prediction(one)
        rng = torch.Generator().manual_seed(one.sample.image_id)
        seen.logits.add_(torch.randn(seen.logits.shape, generator=rng) * 10)
        seen.mask_logits.add_(torch.randn(seen.mask_logits.shape, generator=rng) * 15)
        seen.boxes.add_(torch.randn(seen.boxes.shape, generator=rng) * 0.05)
        return seen

    found, compared = measure(task, noisy)
    assert 1 < found.values[load_metric(task).MAIN] < 99
    text = pickle.dumps(compared[::-1])
    again = load_metric(task).scores(pickle.loads(text))
    assert again.values == pytest.approx(found.values, abs=1e-9) and again.by_name == pytest.approx(found.by_name)
    other, _ = measure(task, noisy, drawn_samples()[::-1])
    assert other.values == pytest.approx(found.values, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_of_no_image_there_is_no_value(task):
    assert load_metric(task).scores([]).values == {}


PLACES = "aaaa..cc aaaa..cc ....wwww ....wwww"


def of_instances(task, annotations, found, **fields):
    """AP of one image with one cat and what else is in it; `found` by letters, all of them said to be cats."""
    sample = ascii_sample(PLACES, [masked_annotation(PLACES, "a", 1, "cat"), *annotations], **fields)
    one = make_ground_truth(task, sample)
    label = one.target.texts.index("cat")
    every = [detection_at(PLACES, letter, label, score) for letter, score in found.items()]
    return load_metric(task).scores([load_metric(task).compare(one, every)]).values["AP"]


@pytest.mark.parametrize("task", ["instance", "detection"])
def test_what_is_there_unknown_is_neither_right_nor_wrong(task):
    wrong = {"c": 0.99, "a": 0.5}
    assert of_instances(task, [], wrong) == pytest.approx(50, abs=1)
    crowd = masked_annotation(PLACES, "c", 2, "cat", iscrowd=True)
    assert of_instances(task, [crowd], wrong) == pytest.approx(100)
    assert of_instances(task, [replace(crowd, category="dog")], wrong) == pytest.approx(50, abs=1), "another's crowd"
    assert of_instances(task, [replace(crowd, category="", iscrowd=False)], wrong) == pytest.approx(100), "unnamed"
    stuff = replace(crowd, iscrowd=False, isthing=False)
    assert of_instances(task, [stuff], wrong) == pytest.approx(100), "stuff of the name"
    lvis = {"neg_categories": ("dog",), "not_exhaustive_categories": ("cat",)}
    assert of_instances(task, [], wrong, **lvis) == pytest.approx(100), "not all cats are annotated"
    assert of_instances(task, [], wrong, neg_categories=("dog",)) == pytest.approx(50, abs=1)


def test_an_object_without_a_mask_is_asked_for_only_where_boxes_are():
    bare = boxed_annotation(2, (6.0, 0.0, 2.0, 2.0), "cat")
    for found in ({"a": 0.5}, {"c": 0.99, "a": 0.5}):
        assert of_instances("instance", [bare], found) == pytest.approx(100)
    assert of_instances("detection", [bare], {"a": 0.5}) == pytest.approx(50, abs=1)
    assert of_instances("detection", [bare], {"c": 0.99, "a": 0.5}) == pytest.approx(100)


def test_areas_of_boxes_are_those_of_masks_where_there_are_some():
    """As in COCO, whose small objects are those of small masks."""
    mask = np.zeros((80, 80), np.bool_)
    mask[::4, ::4] = True  # 400 pixels in a box of 77 x 77
    sample = ascii_sample("." * 80 + (" " + "." * 80) * 79, [
        boxed_annotation(1, (0.0, 0.0, 77.0, 77.0), "cat", segmentation=encode_mask(mask), mask_source="human")
    ])  # fmt: skip
    one = make_ground_truth("detection", sample)
    label = one.target.texts.index("cat")
    compared = load_metric("detection").compare(one, [Detection(label, 0.9, (0.0, 0.0, 77.0, 77.0), None, 0)])
    values = load_metric("detection").scores([compared]).values
    assert values["APs"] == pytest.approx(100) and "APl" not in values


def test_a_region_that_was_found_in_void_or_in_a_crowd_is_not_wrong():
    drawing = "aaaaaa.... aaaaaa.... cccccc.... SSSSSSSSSS SSSSSSSSSS"
    annotations = [masked_annotation(drawing, "a", 1, "cat"), masked_annotation(drawing, "S", 2, "sky", isthing=False)]
    crowd = masked_annotation(drawing, "c", 3, "cat", iscrowd=True)
    metric = load_metric("panoptic")
    for given, letter, name, wrong in (
        (annotations, ".", "cow", 0),
        ([*annotations, crowd], "c", "cat", 0),
        ([*annotations, crowd], "c", "cow", 1),
        ([*annotations, replace(crowd, category="")], "c", "cow", 0),
        ([*annotations, replace(crowd, flags=("part",), iscrowd=False)], "c", "cow", 0),
    ):
        one = make_ground_truth("panoptic", ascii_sample(drawing, given))
        seen = perfect_prediction(one)
        other = ascii_sample(drawing, [masked_annotation(drawing, letter, 9, name)]).annotations[0]
        free = next(q for q in range(8) if seen.logits[q].max() < 0)
        seen.logits[free, one.target.texts.index(name)] = 12.0
        seen.mask_logits[free][torch.from_numpy(decode_mask(other.segmentation))] = 20.0
        compared = metric.compare(one, postprocess.panoptic(seen))
        assert sum(row[3] for row in compared.stats.values()) == wrong, (letter, name)


def test_masks_of_the_truth_that_overlap_lie_small_on_large():
    drawing, over = "aaaaaaaa aaaaaaaa aaaaaaaa", "........ ..bb.... ........"
    sample = ascii_sample(drawing, [masked_annotation(over, "b", 1, "dog"), masked_annotation(drawing, "a", 2, "cat")])
    covered = ascii_sample(
        drawing, [masked_annotation(drawing, "a", 1, "dog"), masked_annotation(drawing, "a", 2, "cat")]
    )
    for task in ("panoptic", "semantic"):
        one = make_ground_truth(task, sample)
        seen = perfect_prediction(one)
        cat = next(q for q in range(8) if seen.logits[q].max() > 0 and (seen.mask_logits[q] > 0).sum() > 2)
        seen.mask_logits[cat, 1, 2:4] = -20.0
        compared = load_metric(task).compare(one, getattr(postprocess, load_metric(task).TAKES)(seen))
        assert load_metric(task).scores([compared]).values[load_metric(task).MAIN] == pytest.approx(100)
    _, (compared,) = measure("panoptic", blind, [covered])
    assert len(compared.stats) == 1, "what is covered wholly is not missed"


def test_pixels_without_a_label_are_ignored():
    drawing = "SSSS....GG SSSS....GG"
    one = make_ground_truth(
        "semantic",
        ascii_sample(drawing, [masked_annotation(drawing, "S", 1, "sky"), masked_annotation(drawing, "G", 2, "grass")]),
    )
    seen = perfect_prediction(one)
    for query in range(8):
        seen.mask_logits[query, :, 4:8] = torch.randn(2, 4, generator=torch.Generator().manual_seed(query))
    compared = load_metric("semantic").compare(one, postprocess.semantic(seen))
    assert load_metric("semantic").scores([compared]).values["mIoU"] == pytest.approx(100)


def test_every_phrase_of_an_object_is_asked_for():
    sample = drawn_samples()[0]
    one = make_ground_truth("referring", sample)
    assert [one.target.texts[i] for i in one.target.labels] == ["the first one", "a cat", "the dog"]
    assert one.target.annotation_ids == ((2,), (2,), (3,)) or len(set(one.target.annotation_ids)) == 2
    crowd = replace(sample, annotations=tuple(replace(a, iscrowd=True) for a in sample.annotations))
    assert _with_all_phrases(crowd, one.target) is one.target
