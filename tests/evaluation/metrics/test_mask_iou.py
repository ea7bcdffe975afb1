"""Mean IoU of box-prompted masks, by size and category, and the rank correlation of their scores."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from fakes.ascii_samples import ascii_sample, masked_annotation
from fakes.metric_inputs import detection_at

from synthgen.dataloading.tasks import box_prompt
from synthgen.evaluation.evaluator import load_metric
from synthgen.evaluation.metrics import Detection, GroundTruth, mask_iou
from synthgen.records.rle import encode_mask
from synthgen.records.sample import Annotation, Sample


def ground_truth(sample: Sample) -> GroundTruth:
    target = box_prompt.target(sample, (), random.Random(0))
    assert target is not None
    return GroundTruth(sample, target)


def square(side: int, number: int = 1) -> Annotation:
    mask = np.zeros((120, 120), np.bool_)
    mask[:side, :side] = True
    box = (0.0, 0.0, float(side), float(side))
    return Annotation(number, box, f"of {side}", segmentation=encode_mask(mask), mask_source="human")


def detect(one: Annotation, score: float) -> Detection:
    return Detection(0, score, (0.0, 0.0, 1.0, 1.0), one.segmentation, 0)


def test_the_metric_of_the_task_is_this_one() -> None:
    assert load_metric("box_prompt") is mask_iou


def test_each_object_counts_the_same() -> None:
    drawing = "aaaa..bb aaaa..bb"
    sample = ascii_sample(drawing, [masked_annotation(drawing, "a", 1, "x"), masked_annotation(drawing, "b", 2, "y")])
    found = [detection_at(drawing, "a", 0, 0.9), detection_at("......bb ........", "b", 0, 0.3)]
    scores = mask_iou.scores([mask_iou.compare(ground_truth(sample), found)])
    assert scores.values["mIoU"] == pytest.approx(75)
    assert scores.by_name == pytest.approx({"x": 100, "y": 50})
    assert scores.values["score_correlation"] == pytest.approx(100)


def test_sizes_are_those_of_coco() -> None:
    sides = (10, 31, 32, 95, 96, 120)
    sample = Sample(1, "k", "f", 120, 120, tuple(square(side, i) for i, side in enumerate(sides)))
    found = [detect(square(side if i % 2 else side // 2), 0.5) for i, side in enumerate(sides)]
    values = mask_iou.scores([mask_iou.compare(ground_truth(sample), found)]).values
    assert values["mIoU_small"] == pytest.approx((25 + 100) / 2)
    assert values["mIoU_medium"] == pytest.approx((25 + 100) / 2)
    assert values["mIoU_large"] == pytest.approx((25 + 100) / 2)
    assert "score_correlation" not in values, "all scores are equal"


def test_the_rank_correlation_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    score, iou = rng.integers(0, 10, 200) / 10, rng.random(200).round(1)
    rows = [(float(i), 5, float(s), "x") for s, i in zip(score, iou, strict=True)]
    results = [replace(mask_iou.compare(ground_truth(drawn()), [detect(square(10), 1.0)]), stats=rows)]
    expected = 100 * stats.spearmanr(score, iou).statistic
    assert mask_iou.scores(results).values["score_correlation"] == pytest.approx(expected)


def drawn() -> Sample:
    return Sample(1, "k", "f", 120, 120, (square(10),))


def test_nothing_to_compare_gives_no_value() -> None:
    assert mask_iou.scores([]).values == {}
