"""COCO's own files: the same numbers from pycocotools and from shards, tasks and our metrics."""

from __future__ import annotations

import contextlib
import io
import json
import random

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from synthgen import plugins
from synthgen.dataloading.eval_loader import _empty_target
from synthgen.evaluation.metrics import Detection, GroundTruth, PanopticMap, PanopticSegment, ap, box_ap, pq
from synthgen.evaluation.metrics._coco import COCO_METRICS
from synthgen.formats.readers import coco_json, coco_panoptic
from synthgen.ingest.ingest import ingest
from synthgen.records.rle import decode_mask, encode_mask, rle_bbox_xyxy
from synthgen.storage.shard_store import ShardStore


def layer(folder, dataset, files):
    store = ShardStore(folder)
    ingest(store, dataset, files, name="real", split="val", layer="human")
    shards = store.list_shards("real", "val", "human")
    names = sorted({name for shard in shards for name in store.read_footer(shard)["categories"]})
    return [sample for shard in shards for sample in store.read_samples(shard)], names


def guesses(sample, names, rng):
    """What a mediocre network would say: objects and crowds shifted, twice or never, some under another name."""
    for annotation in sample.annotations:
        mask = decode_mask(annotation.segmentation)
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            side = max(1, int(annotation.bbox[2] * 0.12))
            moved = np.roll(mask, (rng.randint(-side, side), rng.randint(-side, side)), (0, 1))
            if moved.any():
                name = annotation.category if rng.random() < 0.85 else rng.choice(names)
                yield name, round(rng.random(), 2), encode_mask(moved)
    for _ in range(3):
        mask = np.zeros((sample.height, sample.width), np.bool_)
        y, x = rng.randrange(sample.height - 20), rng.randrange(sample.width - 20)
        mask[y : y + rng.randint(5, 200), x : x + rng.randint(5, 200)] = True
        yield rng.choice(names), round(rng.random(), 2), encode_mask(mask)


@pytest.mark.parametrize(("metric", "task", "kind"), [(ap, "instance", "segm"), (box_ap, "detection", "bbox")])
def test_coco_is_measured_as_pycocotools_measures_it(shared, tmp_path, metric, task, kind):
    root = shared("data/coco_tiny")
    path = root / "annotations" / "instances_val2017.json"
    samples, names = layer(tmp_path, coco_json, coco_json.files(root, "val", path))
    rng, compared, results = random.Random(0), [], []
    ids = {category["name"]: category["id"] for category in json.loads(path.read_text())["categories"]}
    for sample in samples:
        target = plugins.load_plugin("dataloading.tasks", task).target(sample, names, random.Random(0))
        target = target or _empty_target(sample, tuple(names), random.Random(0))
        found = []
        for name, score, mask in guesses(sample, names, rng):
            box = rle_bbox_xyxy(mask)
            found.append(Detection(target.texts.index(name), score, box, mask if kind == "segm" else None, 0))
            own = {"image_id": sample.image_id, "category_id": ids[name], "score": score}
            x1, y1, x2, y2 = box
            results.append({**own, "bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "bbox" else
                           {**own, "segmentation": {"size": list(mask.size), "counts": mask.counts}})  # fmt: skip
        compared.append((sample.image_id, metric.compare(GroundTruth(sample, target), found)))
    # Equal scores are told apart by the order of images: pycocotools' is by number.
    values = metric.scores([one for _, one in sorted(compared, key=lambda pair: pair[0])]).values
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        truth.dataset.setdefault("info", {})  # older versions copy it
        judge = COCOeval(truth, truth.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    expected = dict(zip(COCO_METRICS, (100 * judge.stats).tolist(), strict=True))
    assert 10 < expected["AP"] < 60 and any(a.iscrowd for sample in samples for a in sample.annotations)
    for (
        name
    ) in COCO_METRICS:  # areas in the file are those of polygons, ours of their pixels: a few objects change sides
        assert values[name] == pytest.approx(expected[name], abs=2.0 if name[-1] in "sml" else 1e-9), name


def test_the_segments_of_coco_are_wholly_right(shared, tmp_path):
    root = shared("data/coco_panoptic_sample")
    files = coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    samples, names = layer(tmp_path, coco_panoptic, files)
    stuff = frozenset(a.category for sample in samples for a in sample.annotations if not a.isthing)
    compared = []
    for sample in samples:
        target = plugins.load_plugin("dataloading.tasks", "panoptic").target(sample, names, random.Random(0))
        regions, segments = np.zeros((sample.height, sample.width), np.int32), []
        for label, mask in zip(target.labels, target.masks, strict=True):
            segments.append(PanopticSegment(int(label), 1.0, (0,)))
            regions[decode_mask(mask)] = len(segments)
        compared.append(pq.compare(GroundTruth(sample, target, stuff), PanopticMap(regions, tuple(segments))))
    scores = pq.scores(compared)
    assert set(scores.values.values()) == {100.0} and len(scores.values) == 9
    assert scores.by_name.keys() == {a.category for s in samples for a in s.annotations if not a.iscrowd}
