"""Targets of COCO's instances and panoptic segments, and of label maps of the reference evaluations."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from synthgen.dataloading.tasks import Target, detection, foreground, instance, panoptic, semantic
from synthgen.formats.readers import coco_json, coco_panoptic, lvis
from synthgen.ingest.ingest import ingest
from synthgen.records.rle import decode_mask, encode_mask, rle_area
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]
GOLDEN = Path(__file__).parents[2] / "golden" / "eval"


def layer(store: Path, dataset: object, files: object) -> tuple[list[Sample], list[str]]:
    """The human masks of a dataset, and its categories."""
    shard_store = ShardStore(store)
    ingest(shard_store, dataset, files, name="real", split="train", layer="human")
    shards = shard_store.list_shards("real", "train", "human")
    names = {name for shard in shards for name in shard_store.read_footer(shard)["categories"]}
    return [sample for shard in shards for sample in shard_store.read_samples(shard)], sorted(names)


def segment_ids(png: Path) -> NDArray[np.int64]:
    return np.asarray(Image.open(png).convert("RGB"), np.int64) @ np.array([1, 256, 65536])


def drawn(target: Target) -> NDArray[np.int64]:
    """How many masks cover each pixel: int64 [H, W]."""
    return np.sum([decode_mask(mask) for mask in target.masks if mask is not None], axis=0)


# --- label maps of the reference evaluations -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_semantic_targets_are_the_label_map_again(number):
    """The ground truth of the mIoU golden: five classes, 255 = ignored."""
    given = np.asarray(Image.open(GOLDEN / "sem_gt" / f"{number}.png"))
    names = "abcde"
    boxes = (0.0, 0.0, float(given.shape[1]), float(given.shape[0]))
    annotations = tuple(
        Annotation(label, boxes, names[label], segmentation=encode_mask(given == label), mask_source="human")
        for label in np.unique(given[given != 255]).tolist()
    )
    target = semantic.target(Sample(number, "k", "f", *given.shape, annotations), names, random.Random(0))
    again = np.full(given.shape, 99)
    for label, mask in zip(target.labels, target.masks, strict=True):
        again[decode_mask(mask)] = names.index(target.texts[label])
    again[decode_mask(target.ignore)] = 255
    assert (given == 255).any() and np.array_equal(again, given)
    assert drawn(target).max() == 1 and target.texts == tuple(names)


def golden_panoptic() -> list[tuple[Sample, NDArray[np.int64], dict[int, dict[str, int]], dict[int, str]]]:
    content = json.loads((GOLDEN / "panoptic_gt.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    stuff = {c["id"] for c in content["categories"] if not c["isthing"]}
    found = []
    for image in content["annotations"]:
        ids = segment_ids(GOLDEN / "panoptic_gt" / image["file_name"])
        segments = {segment["id"]: segment for segment in image["segments_info"]}
        annotations = tuple(
            Annotation(
                i, tuple(map(float, segment["bbox"])), names[segment["category_id"]], iscrowd=bool(segment["iscrowd"]),
                isthing=segment["category_id"] not in stuff, segmentation=encode_mask(ids == i), mask_source="human",
            )
            for i, segment in segments.items()
        )  # fmt: skip
        found.append((Sample(image["image_id"], "k", "f", *ids.shape, annotations), ids, segments, names))
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_panoptic_targets_are_the_segments_again(number):
    """The ground truth of the PQ golden, with a crowd of an id of 17 bits, and void pixels."""
    sample, ids, segments, names = golden_panoptic()[number]
    target = panoptic.target(sample, tuple(names.values()), random.Random(0))
    again = np.zeros_like(ids)
    for label, mask, own in zip(target.labels, target.masks, target.annotation_ids, strict=True):
        assert len(own) == 1 and target.texts[label] == names[segments[own[0]]["category_id"]]
        again[decode_mask(mask)] = own[0]
    crowd = np.isin(ids, [i for i, segment in segments.items() if segment["iscrowd"]])
    assert np.array_equal(again, np.where(crowd, 0, ids))
    assert np.array_equal(np.zeros_like(crowd) if target.ignore is None else decode_mask(target.ignore), crowd)
    assert crowd.any() == (number == 0)
    both = semantic.target(sample, tuple(names.values()), random.Random(0))
    assert np.array_equal(drawn(both), ids > 0), "crowds are labelled pixels, void is not"
    assert np.array_equal(np.zeros_like(crowd) if both.ignore is None else decode_mask(both.ignore), ids == 0)


# --- COCO ------------------------------------------------------------------------------------------------------------


def test_every_segment_of_coco_panoptic_is_learned(shared: Shared, tmp_path: Path) -> None:
    root = shared("data/coco_panoptic_sample")
    samples, names = layer(
        tmp_path, coco_panoptic, coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    )
    assert [len(sample.annotations) for sample in samples] == [18, 32]
    for sample in samples:
        ids = segment_ids(root / "panoptic_examples" / f"{sample.image_id:012d}.png")
        crowds = {a.id for a in sample.annotations if a.iscrowd}
        target = panoptic.target(sample, names, random.Random(0))
        assert sorted(i for own in target.annotation_ids for i in own) == sorted(set(np.unique(ids)) - {0} - crowds)
        assert target.texts == tuple(names)
        assert None not in target.masks and np.array_equal(drawn(target), (ids > 0) & ~np.isin(ids, list(crowds)))
        for label, mask, own in zip(target.labels, target.masks, target.annotation_ids, strict=True):
            assert np.array_equal(decode_mask(mask), np.isin(ids, own))
            assert {a.category for a in sample.annotations if a.id in own} == {target.texts[label]}

        things = instance.target(sample, names, random.Random(0))
        stuff = {a.category for a in sample.annotations if not a.isthing}
        countable = {a.id for a in sample.annotations if a.isthing and not a.iscrowd}
        assert {i for own in things.annotation_ids for i in own} == countable
        assert stuff and set(things.texts) == set(names) - stuff

        whole = semantic.target(sample, names, random.Random(0))
        assert len(whole.labels) == len({a.category for a in sample.annotations})
        assert np.array_equal(drawn(whole), ids > 0)
        assert np.array_equal(decode_mask(whole.ignore), ids == 0)
        assert np.array_equal(drawn(foreground.target(sample, names, random.Random(0))), ids > 0)


@pytest.mark.parametrize(("split", "count", "crowds"), [("train2017", 705, 6), ("val2017", 815, 11)])
def test_every_instance_of_coco_is_learned_and_crowds_ignored(
    shared: Shared, tmp_path: Path, split: str, count: int, crowds: int
) -> None:
    root = shared("data/coco_tiny")
    files = coco_json.files(root, "train", root / "annotations" / f"instances_{split}.json")
    samples, names = layer(tmp_path, coco_json, files)
    assert len(samples) == 80 and len(names) == 80
    learned = ignored = 0
    for sample in samples:
        target = instance.target(sample, names, random.Random(0))
        own = {a.id: a for a in sample.annotations}
        assert target.texts == tuple(names)
        for label, mask, (first,) in zip(target.labels, target.masks, target.annotation_ids, strict=True):
            assert own[first].category == target.texts[label] and own[first].segmentation == mask
        learned += len(target.labels)
        crowd = [a for a in sample.annotations if a.iscrowd]
        ignored += len(crowd)
        assert (target.ignore is not None) == bool(crowd)
        if crowd:
            union = np.logical_or.reduce([decode_mask(a.segmentation) for a in crowd])
            assert np.array_equal(decode_mask(target.ignore), union & (drawn(target) == 0))
        boxes = detection.target(sample, names, random.Random(0))
        assert np.array_equal(boxes.boxes_xyxy, target.boxes_xyxy) and set(boxes.masks) == {None}
        regions = semantic.target(sample, names, random.Random(0))
        assert rle_area(regions.ignore) == (drawn(regions) == 0).sum()
    assert (learned, ignored) == (count - crowds, crowds)


def test_negatives_of_lvis_are_what_was_looked_for(shared: Shared, tmp_path: Path) -> None:
    path = shared("data/lvis_excerpt") / "lvis_val_100.json"
    content = json.loads(path.read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    given = {image["id"]: image for image in content["images"]}
    samples, categories = layer(tmp_path, lvis, lvis.files(path.parent, "val", path))
    negatives = 0
    for sample in samples:
        target = instance.target(sample, categories, random.Random(0))
        positives = {a.category for a in sample.annotations}
        if target is None:
            assert not positives
            continue
        absent = {names[i] for i in given[sample.image_id]["neg_category_ids"]}
        unsure = {names[i] for i in given[sample.image_id]["not_exhaustive_category_ids"]}
        assert set(target.texts) == positives | (absent - unsure), "not a thousand names that nobody looked for"
        negatives += len(set(target.texts) - positives)
    assert negatives > 0
