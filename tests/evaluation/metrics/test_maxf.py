"""The maximal F-measure of foreground masks."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.ascii_samples import ascii_sample, boxed_annotation, masked_annotation
from fakes.metric_inputs import drawn_samples, make_ground_truth, perfect_prediction

from synthgen.evaluation import postprocess
from synthgen.evaluation.evaluator import load_metric
from synthgen.records.rle import decode_mask


def f_measure(likely, truth):
    """Written as it is defined: 255 thresholds, beta^2 = 0.3."""
    best = []
    for level in range(1, 256):
        told = np.rint(likely * 255) >= level
        both = (told & truth).sum()
        p, r = both / max(told.sum(), 1), both / truth.sum()
        best.append(1.3 * p * r / (0.3 * p + r) if both else 0.0)
    return best


def test_maxf_is_as_it_is_defined():
    rng, metric = np.random.default_rng(0), load_metric("foreground")
    curves, errors, compared = [], [], []
    for drawing in ("..aaaa.. ..aaaa..", "aa...... aa......"):
        one = make_ground_truth("foreground", ascii_sample(drawing, [masked_annotation(drawing, "a", 1, "x")]))
        truth = decode_mask(one.target.masks[0])
        likely = (0.5 * truth + 0.5 * rng.random(truth.shape)).astype(np.float32)
        curves.append(f_measure(likely, truth))
        errors.append(np.abs(likely - truth).mean())
        compared.append(metric.compare(one, postprocess.ForegroundMap(likely)))
    mean = 100 * np.mean(curves, axis=0)
    values = metric.scores(compared).values
    assert values == pytest.approx({"maxF": mean.max(), "meanF": mean.mean(), "MAE": 100 * np.mean(errors)}, abs=1e-4)


def test_an_image_without_foreground_counts_by_its_error_alone():
    metric = load_metric("foreground")
    full = make_ground_truth("foreground", drawn_samples()[0])
    empty = make_ground_truth("foreground", ascii_sample("....", [masked_annotation("....", "a", 1, "x")]))
    found = [metric.compare(full, postprocess.foreground(perfect_prediction(full))),
             metric.compare(empty, postprocess.ForegroundMap(np.full((1, 4), 0.5, np.float32)))]  # fmt: skip
    values = metric.scores(found).values
    assert values["maxF"] == pytest.approx(100) and values["MAE"] == pytest.approx(25)
    assert metric.scores(found[1:]).values == {"MAE": 50}


def test_a_region_whose_foreground_is_unknown_counts_nowhere():
    """A box without a mask is ignored."""
    drawing = "aa...... aa......"
    one = make_ground_truth(
        "foreground",
        ascii_sample(
            drawing, [masked_annotation(drawing, "a", 1, "x"), boxed_annotation(2, (4.0, 0.0, 4.0, 2.0), "y")]
        ),
    )
    seen = perfect_prediction(one)
    seen.mask_logits[:, :, 4:] = 20.0
    values = (
        load_metric("foreground").scores([load_metric("foreground").compare(one, postprocess.foreground(seen))]).values
    )
    assert values["maxF"] == pytest.approx(100) and values["MAE"] == pytest.approx(0, abs=1e-4)
