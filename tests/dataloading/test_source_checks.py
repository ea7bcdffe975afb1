"""Checks of sources against their layers: synthetic labels, ground truth, missing labels, names that forbid a flip.

`test_manifest_check.py` has every message, as `synthgen check` prints it.
"""

from __future__ import annotations

import pytest
from fakes import layer_kinds

from synthgen.dataloading.layer_stats import load_layer_stats
from synthgen.dataloading.source_checks import (
    check_eval_source,
    check_flip,
    check_train_source,
    describe_synthetic_labels,
)
from synthgen.dataloading.source_config import EvalSource, TrainSource
from synthgen.storage.shard_store import Shard, ShardStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ShardStore:
    return ShardStore(layer_kinds.write_store(tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize(
    ("layer", "metric", "labels"),
    [
        ("coco/val2017/human", "ap", []),
        ("coco/train2017/masks", "ap", ["masks by grabcut"]),
        ("coco/train2017/masks", "box_ap", []),  # reads no masks
        ("coco/train2017/scored", "ciou", ["masks by sam vit_b", "captions by ofa base"]),
        ("coco/train2017/scored", "cider", ["captions by ofa base"]),
        ("coco/train2017/scored", "ap", ["masks by sam vit_b"]),
        ("vg/train/regions", "ciou", []),
    ],
)
def test_synthetic_labels_are_those_that_the_metric_reads(store, layer, metric, labels):
    source = EvalSource(shards=layer, task="instance")
    assert describe_synthetic_labels(source, load_layer_stats(store, source), metric) == labels


def test_captions_that_are_not_drawn_are_not_synthetic_labels(tmp_path):
    store = ShardStore(tmp_path)
    both = [layer_kinds.region, layer_kinds.scored]
    layer_kinds.write_layer(store, "d/s/l", ["a"], lambda i: both[i % 2](i))
    for sources, labels in (
        (None, ["captions by human and ofa base"]),
        (("human",), []),
        (("human", "ofa base"), ["captions by human and ofa base"]),
    ):
        source = TrainSource(shards="d/s/l", task="referring", caption_sources=sources)
        found = describe_synthetic_labels(source, load_layer_stats(store, source), "cider")
        assert found == labels


@pytest.mark.parametrize(
    ("layer", "metric", "errors"),
    [
        ("coco/val2017/human", "ap", []),
        ("coco/train2017/annotations", "box_ap", []),
        ("coco/train2017/annotations", "ap", ["has no masks, and 'instance' is measured by them"]),
        ("coco/val2017/masks", "ap", ["its masks are by grabcut, and ground truth is by people"]),
        ("coco/train2017/scored", "ciou", ["its masks are by sam vit_b", "its captions are by ofa base"]),
        ("vg/train/regions", "miou", ["tells names apart, and no object of this layer has one", "has no masks"]),
        ("no/such/layer", "cider", ["without a single annotation", "has no captions"]),
    ],
)
def test_ground_truth_is_by_people(store, layer, metric, errors):
    source = EvalSource(shards=layer, task="instance")
    found = list(check_eval_source(source, load_layer_stats(store, source), metric, ["human", "panoptic"]))
    assert len(found) == len(errors) and all(issue.is_error for issue in found)
    for issue, text in zip(found, errors, strict=True):
        assert text in issue.message
        assert ("human, panoptic" in issue.message) == (issue.message.startswith(("has no", "its")))


@pytest.mark.parametrize(
    ("layer", "metric", "issues"),
    [
        ("coco/train2017/human", "ap", []),
        ("coco/val2017/panoptic", "pq", []),
        ("coco/train2017/human", "pq", [("no stuff in this layer", False)]),
        ("coco/train2017/annotations", "miou", [("learns from masks, and this layer has none", True)]),
        ("coco/train2017/annotations", "ap", [("learns where, not which pixels", False)]),
        ("coco/train2017/masks", "cider", [("learns from captions, and this layer has none", True)]),
        ("vg/train/regions", "box_ap", [("tells names apart, and no object of this layer has one", True)]),
    ],
)
def test_missing_labels_are_an_error_where_the_task_needs_them(store, layer, metric, issues):
    source = TrainSource(shards=layer, task="instance")
    found = list(check_train_source(store, source, load_layer_stats(store, source), metric, []))
    assert len(found) == len(issues)
    for issue, (text, is_error) in zip(found, issues, strict=True):
        assert text in issue.message
        assert issue.is_error == is_error


@pytest.mark.parametrize(
    ("names", "metric", "text"),
    [
        (["dog"], "ap", None),
        (["left hand"], "ap", None),  # becomes "right hand"
        (["dog", "right whale"], "ap", "no image of 'right whale' is mirrored"),
        (["right whale", "left behind"], "miou", "no image of 'right whale' and 1 other name is mirrored"),
        (["right whale"], "ciou", None),  # reads no names of categories
    ],
)
def test_names_that_forbid_a_flip(tmp_path, names, metric, text):
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/l", ["a"], layer_kinds.human)
    shard = Shard("d", "s", "l", 0, 1)
    store.commit(shard, list(store.read_samples(shard)), {**store.read_footer(shard), "categories": names})
    found = list(check_flip(load_layer_stats(store, EvalSource(shards="d/s/l", task="instance")), metric))
    assert [issue.is_error for issue in found] == [False] * (text is not None)
    assert text is None or text in found[0].message
