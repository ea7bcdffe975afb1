"""Statistics of a source's layer: counts, who made the labels, missing shards, the effect of filters."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import layer_kinds

from synthgen.dataloading.layer_stats import LayerStats, estimate_kept_shares, load_layer_stats
from synthgen.dataloading.source_config import EvalSource, TrainSource
from synthgen.storage.shard_store import Shard, ShardStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ShardStore:
    return ShardStore(layer_kinds.write_store(tmp_path_factory.mktemp("store")))


def stats_of(store: ShardStore, layer: str, **given: object) -> LayerStats:
    return load_layer_stats(store, TrainSource(shards=layer, task="instance", **given))


@pytest.mark.parametrize(
    ("layer", "counts"),
    [
        ("coco/train2017/annotations", (8, 0, 16, 0, 0)),
        ("coco/train2017/scored", (8, 0, 16, 16, 16)),
        ("coco/train2017/errors", (8, 3, 16, 16, 0)),
        ("vg/train/regions", (8, 0, 16, 0, 16)),
    ],
)
def test_labels_are_counted_over_all_shards(store, layer, counts):
    stats = stats_of(store, layer)
    assert tuple(stats.count(what) for what in ("images", "errors", "objects", "masks", "captions")) == counts
    assert stats.category_names == ("dog", "sky")


def test_a_share_counts_its_own_shards_only(store):
    stats = stats_of(store, "coco/train2017/masks", share=0.5)
    assert [shard.index for shard in stats.shards] == [0, 1]
    assert (stats.count("images"), stats.num_missing_shards) == (4, 0)


def test_shards_that_are_not_committed_are_missing(store):
    assert stats_of(store, "coco/train2017/part").num_missing_shards == 2
    assert stats_of(store, "coco/train2017/part", share=0.3).num_missing_shards == 0
    evaluated = load_layer_stats(store, EvalSource(shards="coco/train2017/part", task="instance"))
    assert (len(evaluated.shards), evaluated.num_missing_shards) == (1, 2)


@pytest.mark.timeout(30)
def test_a_file_name_may_claim_any_number_of_shards(store):
    """The number comes from a file name, so nothing may be as large as it."""
    store.commit(Shard("claims", "train", "human", 0, 99_999_999), [], {})
    assert stats_of(store, "claims/train/human").num_missing_shards == 99_999_998
    assert stats_of(store, "claims/train/human", share=0.5).num_missing_shards == 49_999_999


def test_an_empty_layer_has_no_values(store):
    stats = stats_of(store, "no/such/layer")
    assert (stats.shards, stats.num_missing_shards, stats.category_names) == ((), 0, ())
    assert not stats.is_all_human("mask_source") and stats.has_no_human("mask_source")


@pytest.mark.parametrize(
    ("layer", "all_human", "no_human"),
    [
        ("coco/val2017/human", True, False),
        ("coco/train2017/scored", False, True),
        ("coco/train2017/masks", False, True),
        ("coco/mixed/masks", False, False),
    ],
)
def test_who_made_the_masks(tmp_path, layer, all_human, no_human):
    store = ShardStore(layer_kinds.write_store(tmp_path))
    both = [layer_kinds.human, layer_kinds.machine_masked]
    layer_kinds.write_layer(store, "coco/mixed/masks", layer_kinds.coco_keys(1), lambda i: both[i % 2](i))
    stats = stats_of(store, layer)
    assert stats.is_all_human("mask_source") == all_human
    assert stats.has_no_human("mask_source") == no_human


def test_a_value_between_the_bounds_may_occur(store):
    stats = stats_of(store, "coco/train2017/scored")
    assert stats.may_contain("caption_source", "ofa base")
    assert not stats.may_contain("caption_source", "attributes")
    assert not stats_of(store, "coco/val2017/human").may_contain("caption_source", "human")


@pytest.mark.parametrize(
    ("filters", "shares"),
    [
        ({}, {}),
        ({"min_predicted_iou": 0.7}, {"mask": 0.5}),
        ({"min_predicted_iou": 0.95}, {"mask": 0.0}),
        ({"min_caption_score": -1}, {"caption": 0.5}),
        ({"min_predicted_iou": 0.1, "min_caption_score": -9}, {"mask": 1.0, "caption": 1.0}),
    ],
)
def test_the_effect_of_filters_is_estimated_for_the_labels_that_they_filter(store, filters, shares):
    source = TrainSource(shards="coco/train2017/scored", task="referring", **filters)
    assert estimate_kept_shares(store, source, load_layer_stats(store, source)) == shares


def test_a_few_images_of_three_shards_are_read(tmp_path: Path, monkeypatch):
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/l", layer_kinds.coco_keys(*range(700)), layer_kinds.scored, shards=7)
    read = []

    def read_samples(shard):
        for sample in ShardStore(tmp_path).read_samples(shard):
            read.append(shard.index)
            yield sample

    source = TrainSource(shards="d/s/l", task="referring", min_predicted_iou=0.7)
    stats = load_layer_stats(store, source)
    monkeypatch.setattr(store, "read_samples", read_samples)
    assert estimate_kept_shares(store, source, stats) == {"mask": 0.5}
    assert {index: read.count(index) for index in read} == {0: 64, 3: 64, 6: 64}
