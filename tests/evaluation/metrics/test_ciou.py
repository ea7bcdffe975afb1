"""Cumulative IoU of referring expressions."""

from __future__ import annotations

import pytest
from fakes.ascii_samples import ascii_sample, human_captions, masked_annotation
from fakes.metric_inputs import detection_at, make_ground_truth

from synthgen.evaluation.evaluator import load_metric


def test_referring_weighs_phrases_alike_and_pixels_alike():
    """An object of 8 pixels found whole, one of 4 of which half is found: mIoU 75, cIoU 10 of 12."""
    drawing, half = "aaaa..bb aaaa..bb", "......bb ........"
    sample = ascii_sample(drawing, [
        masked_annotation(drawing, "a", 1, "x", captions=human_captions("one")),
        masked_annotation(drawing, "b", 2, "x", captions=human_captions("two")),
    ])  # fmt: skip
    one, metric = make_ground_truth("referring", sample), load_metric("referring")
    labels = {text: i for i, text in enumerate(one.target.texts)}
    found = [detection_at(drawing, "a", labels["one"]), detection_at(half, "b", labels["two"])]
    values = metric.scores([metric.compare(one, found)]).values
    assert values == pytest.approx(
        {"mIoU": 75, "cIoU": 100 * 10 / 12, "P@50": 50, "P@60": 50, "P@70": 50, "P@80": 50, "P@90": 50}
    )
    values = metric.scores([metric.compare(one, found[:1])]).values
    assert values["mIoU"] == pytest.approx(50) and values["cIoU"] == pytest.approx(100 * 8 / 12)
