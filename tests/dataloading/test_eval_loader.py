"""The eval loader: each row once in order, whole images, sizes, images that cannot be evaluated."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from fakes import train_layers
from fakes.train_layers import annotation, phrase, row

from synthgen.dataloading.eval_loader import EvalLoader
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.source_config import EvalSource


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    left = multiprocessing.active_children()
    assert not left, "reader processes outlive their loader"


def evaluated(root: Path, task: str = "instance") -> Manifest:
    described = [(annotation(i, captions=(phrase("a cat"),)),) for i in range(70)]
    samples = [row(i, annotations=own if i % 5 else ()) for i, own in enumerate(described)]
    samples[7] = row(7, error="truncated")
    samples[8] = replace(samples[8], file_name="gone.png")
    train_layers.commit(root, samples)
    return train_layers.manifest(root, eval=(EvalSource(shards="toy/train/human", task=task, images=root / "photos"),))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize(("world", "batch_size"), [(1, 1), (2, 3), (3, 100)])
def test_every_row_once_in_order(tmp_path: Path, workers: int, world: int, batch_size: int) -> None:
    manifest = evaluated(tmp_path)
    found, counts = [], Counter()
    for rank in range(world):
        once = EvalLoader(
            manifest,
            0,
            rank=rank,
            world_size=world,
            batch_size=batch_size,
            num_workers=workers,
            short_side=24,
            long_side=64,
        )
        for batch in once:
            assert 1 <= len(batch.targets) <= batch_size and batch.images.shape[2:] == (32, 32)
            found += [target["sample"].image_id for target in batch.targets]
        counts.update(once.stats.counts[0])
        once.close()
    assert found == [i for i in range(70) if i not in (7, 8)]
    assert counts["images"] == 68 and counts["skipped/error"] == counts["skipped/unreadable"] == 1


def test_an_evaluation_sees_whole_images_all_names_and_what_it_is_measured_by(tmp_path: Path) -> None:
    first, second = islice(EvalLoader(evaluated(tmp_path), 0, short_side=24, long_side=64), 2)
    (nothing,), (target,) = first.targets, second.targets
    assert nothing["texts"] == target["texts"] == train_layers.CATEGORIES
    assert len(nothing["labels"]) == 0 and nothing["masks"].shape == (0, 32, 32), "predictions there are wrong"
    assert target["size"] == (24, 32) and target["orig_size"] == (train_layers.HEIGHT, train_layers.WIDTH)
    assert target["original"].masks[0].size == target["orig_size"] and target["sample"].annotations[0].id == 1
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[6:14, 4:16] = True
    assert torch.equal(target["masks"][0], expected) and target["image_key"] == "toy/1"


def test_an_evaluation_finds_the_size_where_the_source_says_none(tmp_path: Path) -> None:
    train_layers.commit(tmp_path, [row(i, height=0, width=0) for i in range(3)])
    entry = EvalSource(shards="toy/train/human", task="detection", images=tmp_path / "photos")
    once = EvalLoader(train_layers.manifest(tmp_path, eval=(entry,)), 0, short_side=24, long_side=64)
    found = [target for batch in once for target in batch.targets]
    assert [target["orig_size"] for target in found] == [(train_layers.HEIGHT, train_layers.WIDTH)] * 3


def test_where_there_is_no_object_crowds_are_ignored_and_only_what_was_looked_for_is_asked(tmp_path: Path) -> None:
    crowd = row(0, annotation(0, iscrowd=True))
    federated = row(1, annotations=(), neg_categories=("cup",))
    nobody = row(2, annotations=(), neg_categories=())
    train_layers.commit(tmp_path, [crowd, federated, nobody])
    entry = EvalSource(shards="toy/train/human", task="instance", images=tmp_path / "photos")
    once = EvalLoader(train_layers.manifest(tmp_path, eval=(entry,)), 0, short_side=24, long_side=64)
    first, second = (target for batch in once for target in batch.targets)
    assert first["ignore"].any() and len(first["labels"]) == 0
    assert second["texts"] == ("cup",) and not second["ignore"].any()
    assert once.stats.counts[0]["skipped/nothing"] == 1


def test_where_nothing_can_be_measured_an_image_is_passed_over(tmp_path: Path) -> None:
    once = EvalLoader(evaluated(tmp_path, "referring"), 0, short_side=24, long_side=64)
    assert [b.targets[0]["sample"].image_id for b in once] == [i for i in range(70) if i % 5 and i not in (7, 8)]
    assert once.stats.counts[0]["skipped/nothing"] == 14
