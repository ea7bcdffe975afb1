"""Polygons for tools, and what masks lose as polygons."""

from __future__ import annotations

import pytest
from fakes.exporter_runs import random_masks, rectangle

from synthgen.export.exporters._polygon_loss import PolygonLoss
from synthgen.export.polygons import polygon_iou_loss
from synthgen.records.rle import decode_mask_window, encode_mask


def test_exact_outlines_lose_nothing() -> None:
    loss = PolygonLoss()
    assert loss.figures() == {} and loss.lines() == ()
    for mask in random_masks(6):
        loss.draw(decode_mask_window(encode_mask(mask)), 0.0, single=False)
    assert loss.lines() == () and loss.figures()["polygon_iou_min"] == 1


def test_the_figures_are_those_of_the_masks() -> None:
    loss = PolygonLoss()
    lost = []
    for mask in [rectangle(2, 2, 9, 9), *random_masks(6)]:
        window = decode_mask_window(encode_mask(mask))
        lost.append(polygon_iou_loss(loss.draw(window, 1.5, single=True), window))
    figures = loss.figures()
    assert figures["polygons_changed"] == sum(one > 0 for one in lost) > 0
    assert figures["polygon_iou_mean"] == pytest.approx(1 - sum(lost) / len(lost))
    assert figures["polygon_iou_min"] == pytest.approx(1 - max(lost))
    assert len(loss.lines()) == 1
