"""Average precision of masks and of boxes equals that of pycocotools."""

from __future__ import annotations

import pytest
from fakes.golden_eval import asked, read, rle

from synthgen.evaluation.metrics import (
    Detection,
    ap,
    box_ap,
)
from synthgen.records.sample import Annotation


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
