"""Metrics equal those of pycocotools, panopticapi and detectron2."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from synthgen import plugins
from synthgen.evaluation.metrics import (
    Detection,
    GroundTruth,
    PanopticMap,
    PanopticSegment,
    SemanticMap,
    ap,
    box_ap,
    miou,
    pq,
)
from synthgen.images.decode import load_label_map
from synthgen.records.rle import encode_mask, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Rle, Sample

GOLDEN = Path(__file__).parents[2] / "golden" / "eval"


def read(name):
    return json.loads((GOLDEN / name).read_text())


def asked(task: str, number: int, size, annotations, names, stuff=()) -> GroundTruth:
    sample = Sample(number, f"golden/{number}", f"{number}.png", *size, tuple(annotations))
    target = plugins.load_plugin("dataloading.tasks", task).target(sample, names, random.Random(0))
    return GroundTruth(sample, target, frozenset(stuff))


def rle(given) -> Rle:
    return Rle(tuple(given["size"]), given["counts"].encode())


@pytest.mark.parametrize(("metric", "task", "said"), [(ap, "instance", "segm"), (box_ap, "detection", "bbox")])
@pytest.mark.parametrize("order", [1, -1], ids=["", "reversed"])
def test_average_precision_is_that_of_pycocotools(metric, task, said, order):
    truth, predicted = read("instances_gt.json"), read("instances_pred.json")
    names = {category["id"]: category["name"] for category in truth["categories"]}
    compared = []
    for image in truth["images"]:
        annotations = [
            Annotation(a["id"], tuple(a["bbox"]), names[a["category_id"]], iscrowd=bool(a["iscrowd"]),
                       segmentation=rle(a["segmentation"]))
            for a in truth["annotations"] if a["image_id"] == image["id"]
        ]  # fmt: skip
        one = asked(task, image["id"], (image["height"], image["width"]), annotations, list(names.values()))
        found = []
        for p in predicted:
            if p["image_id"] == image["id"]:
                x, y, w, h = p["bbox"]
                label = one.target.texts.index(names[p["category_id"]])
                mask = rle(p["segmentation"]) if said == "segm" else None
                found.append(Detection(label, p["score"], (x, y, x + w, y + h), mask, 0))
        compared.append(metric.compare(one, found))
    scores = metric.scores(compared[::order])
    expected = dict(read("instances_expected.json")[f"pycocotools_{said}"])
    by_id = expected.pop("per_class_AP")
    there = {name: 100 * value for name, value in expected.items() if value > -1}
    assert scores.values == pytest.approx(there, abs=1e-12) and list(scores.values) == list(there)
    assert scores.by_name == pytest.approx({names[int(i)]: 100 * value for i, value in by_id.items()}, abs=1e-12)


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


def test_mean_iou_is_that_of_detectron2():
    expected, names = read("semantic_expected.json"), list("abcde")
    compared = []
    for number in (1, 2):
        truth, said = (load_label_map(GOLDEN / folder / f"{number}.png") for folder in ("sem_gt", "sem_pred"))
        assert (truth == 255).any(), "nothing is ignored here"
        annotations = [
            Annotation(i + 1, (0.0, 0.0, *map(float, truth.shape[::-1])), name, isthing=False,
                       segmentation=encode_mask(truth == i))
            for i, name in enumerate(names) if (truth == i).any()
        ]  # fmt: skip
        one = asked("semantic", number, truth.shape, annotations, names, names)
        places = np.array([one.target.texts.index(name) for name in names], np.int32)
        compared.append(miou.compare(one, SemanticMap(places[said], {})))
    scores = miou.scores(compared)
    told = {"mIoU": "mIoU", "fwIoU": "fwIoU", "mAcc": "mACC", "pAcc": "pACC"}
    assert scores.values == pytest.approx({ours: expected[theirs] for ours, theirs in told.items()}, abs=1e-12)
    assert list(scores.by_name.values()) == pytest.approx([100 * iou for iou in expected["numpy_iou"]], abs=1e-12)
