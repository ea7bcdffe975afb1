"""Panoptic quality equals that of panopticapi."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.golden_eval import GOLDEN, asked, read

from synthgen.evaluation.metrics import (
    PanopticMap,
    PanopticSegment,
    pq,
)
from synthgen.images.decode import load_label_map
from synthgen.records.rle import encode_mask, rle_bbox_xyxy
from synthgen.records.sample import Annotation


def test_panoptic_quality_is_that_of_panopticapi():
    truth, predicted, expected = (read(f"panoptic_{name}.json") for name in ("gt", "pred", "expected"))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    stuff = {category["name"] for category in truth["categories"] if not category["isthing"]}
    compared = []
    for own, theirs in zip(truth["annotations"], predicted["annotations"], strict=True):
        pixels, said = (  # 65536 * red + 256 * green + blue -> red + 256 * green + 65536 * blue
            (ids >> 16) + (ids & 0xFF00) + ((ids & 0xFF) << 16)
            for ids in (
                load_label_map(GOLDEN / folder / own["file_name"], color_coded=True)
                for folder in ("panoptic_gt", "panoptic_pred")
            )
        )
        annotations = []
        for number, segment in enumerate(own["segments_info"]):
            mask, name = encode_mask(pixels == segment["id"]), names[segment["category_id"]]
            x1, y1, x2, y2 = rle_bbox_xyxy(mask)
            annotations.append(
                Annotation(number, (x1, y1, x2 - x1, y2 - y1), name, iscrowd=bool(segment["iscrowd"]),
                           isthing=name not in stuff, segmentation=mask)
            )  # fmt: skip
        one = asked("panoptic", own["image_id"], pixels.shape, annotations, list(names.values()), stuff)
        regions, segments = np.zeros(said.shape, np.int32), []
        for place, segment in enumerate(theirs["segments_info"], 1):
            regions[said == segment["id"]] = place
            segments.append(PanopticSegment(one.target.texts.index(names[segment["category_id"]]), 1.0, (0,)))
        compared.append(pq.compare(one, PanopticMap(regions, tuple(segments))))
    scores = pq.scores(compared)
    for ending, kind in (("", "All"), ("_things", "Things"), ("_stuff", "Stuff")):
        for key in ("pq", "sq", "rq"):
            assert scores.values[f"{key.upper()}{ending}"] == pytest.approx(100 * expected[kind][key], abs=1e-12)
    per_class = {names[int(i)]: 100 * one["pq"] for i, one in expected["per_class"].items()}
    assert scores.by_name == pytest.approx(per_class, abs=1e-12)
    counts = {name: np.sum([c.stats[name][1:] for c in compared if name in c.stats], axis=0) for name in per_class}
    for i, count in expected["counts"].items():
        wanted = [count["iou_sum"], count["tp"], count["fp"], count["fn"]]
        assert counts[names[int(i)]].tolist() == pytest.approx(wanted, abs=1e-12)
