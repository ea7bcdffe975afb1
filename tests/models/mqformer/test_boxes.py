"""Overlaps of boxes: the reference's values."""

from __future__ import annotations

from fakes.mqformer_parts import golden_part, is_close
from torchvision.ops import box_convert

from synthgen.models.mqformer.boxes import box_iou, generalized_iou


def test_overlaps_of_boxes(golden):
    g = golden_part(golden, "matcher_losses")
    a, b = g["box.a_xyxy"][:, None], g["box.b_xyxy"]
    assert is_close(box_convert(g["box.a_cxcywh"], "cxcywh", "xyxy"), g["box.a_xyxy"])
    assert is_close(box_iou(a, b)[0], g["box.iou"])
    assert is_close(generalized_iou(a, b), g["box.giou"])
