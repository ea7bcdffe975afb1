"""The train loader: exact resume, epochs over several processes, small state, errors of readers."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import train_layers
from fakes.batch_examples import small_manifest

from synthgen.dataloading import size_groups
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.mixture import Mixture
from synthgen.dataloading.train_loader import TrainLoader, merge_states
from synthgen.errors import SynthgenError


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    left = multiprocessing.active_children()
    assert not left, "reader processes outlive their loader"


def same(a: Any, b: Any) -> bool:
    """Whether two batches, or parts of them, are the same to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no memory to lock for a GPU")
def test_pinned_batches_are_the_same(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    with (
        TrainLoader(manifest, batch_size=3, num_workers=1) as plain,
        TrainLoader(manifest, batch_size=3, num_workers=1, pin_memory=True) as pinned,
    ):
        for a, b in zip(islice(plain, 5), pinned, strict=False):
            assert same(a, b) and b.images.is_pinned() and b.targets[0]["masks"].is_pinned()


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_stream_goes_on_exactly_with_its_readers(tmp_path: Path, workers: int) -> None:
    """Broken off behind k batches, k no multiple of the readers, what was made ahead is made again."""
    manifest = small_manifest(tmp_path)
    with TrainLoader(manifest, batch_size=3, num_workers=workers) as loader:
        whole = list(islice(loader, 17))
        seen = loader.stats.state_dict()
    assert not same(whole[0], whole[1])
    for k in (0, 1, 4, 7):
        with TrainLoader(manifest, batch_size=3, num_workers=workers) as first:
            assert same(list(islice(first, k)), whole[:k])
            state = json.loads(json.dumps(first.state_dict()))
        with TrainLoader(manifest, batch_size=3, num_workers=workers, state=state) as again:
            assert same(list(islice(again, 10)), whole[k : k + 10])
            assert again.state_dict()["batches"] == k + 10
            if k == 7:
                assert again.stats.state_dict() == seen


def test_one_reader_is_the_same_in_this_process_and_in_another(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    with (
        TrainLoader(manifest, batch_size=4, num_workers=0) as here,
        TrainLoader(manifest, batch_size=4, num_workers=1) as there,
    ):
        assert same(list(islice(here, 8)), list(islice(there, 8)))
        assert here.state_dict() == there.state_dict()


def test_a_closed_loader_goes_on(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    with (
        TrainLoader(manifest, batch_size=3, num_workers=2) as loader,
        TrainLoader(manifest, batch_size=3, num_workers=2) as other,
    ):
        whole = list(islice(loader, 6))
        begun = list(islice(other, 3))
        other.close()
        assert len(multiprocessing.active_children()) == 2
        assert same(begun + list(islice(other, 3)), whole)
        for batch in loader:  # a second loop goes on as well, and does not begin again
            assert not any(same(batch, b) for b in whole)
            break


@pytest.mark.parametrize(("world", "workers"), [(1, 3), (2, 0), (2, 2), (3, 1)])
def test_all_readers_of_all_processes_see_an_epoch_once(tmp_path: Path, world: int, workers: int) -> None:
    train_layers.commit(tmp_path, 240)
    manifest = train_layers.manifest(tmp_path, train_layers.source(tmp_path))
    keys: list[list[str]] = []
    for rank in range(world):
        with TrainLoader(manifest, rank=rank, world_size=world, batch_size=1, num_workers=workers) as loader:
            own: list[str] = []
            while any(place["sources"][0][0] == 0 for place in loader.state_dict()["positions"].values()):
                before = loader.state_dict()["positions"]
                batch = next(loader)
                reader = next(r for r, place in loader.state_dict()["positions"].items() if place != before[r])
                if loader.state_dict()["positions"][reader]["sources"][0][0] == 0:
                    own.append(batch.targets[0]["image_key"])
        keys.append(own)
    together = Counter(key for own in keys for key in own)
    assert together == Counter(f"toy/{i}" for i in range(240))
    assert all(len(own) > 240 / world / 2 for own in keys)


def test_processes_are_resumed_from_their_joined_states(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)

    def two(state: dict | None) -> tuple[list[Batch], dict[str, Any]]:
        batches, states = [], []
        for rank in (0, 1):
            with TrainLoader(manifest, rank=rank, world_size=2, batch_size=3, num_workers=2, state=state) as loader:
                batches.append(list(islice(loader, 5)))
                states.append(loader.state_dict())
        return batches, json.loads(json.dumps(merge_states(states)))

    _, state = two(None)
    on, end = two(state)
    for rank in (0, 1):
        with TrainLoader(manifest, rank=rank, world_size=2, batch_size=3, num_workers=2) as loader:
            assert same(list(islice(loader, 10))[5:], on[rank])
    assert sum(n.get("images", 0) for seen in end["seen"].values() for n in seen["counts"]) == 60
    alone = {**state, "positions": {reader: state["positions"][reader] for reader in ("0", "1")}}
    with pytest.raises(SynthgenError, match="no place for reader 2; join the states of all training processes"):
        TrainLoader(manifest, rank=1, world_size=2, batch_size=3, num_workers=2, state=alone)


def test_with_another_number_of_readers_the_next_epoch_begins_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = small_manifest(tmp_path)
    with TrainLoader(manifest, batch_size=3, num_workers=2) as loader:
        list(islice(loader, 25))  # beyond an epoch of the first source
        state = json.loads(json.dumps(loader.state_dict()))
        images = sum(n["images"] for n in loader.stats.counts)
    with caplog.at_level(logging.WARNING), TrainLoader(manifest, batch_size=3, num_workers=1, state=state) as other:
        epoch = 1 + max(e for place in state["positions"].values() for e, *_ in place["sources"])
        assert other.state_dict()["positions"]["0"]["sources"] == [[epoch, 0, 0]] * 2 and epoch >= 1
        next(other)
        assert sum(n["images"] for n in other.stats.counts) == images + 3 == 78
    assert caplog.messages == [
        f"not resumed where it stopped (readers 2 then and 1 now): every source starts its next epoch, {epoch}"
    ]
    with caplog.at_level(logging.WARNING), TrainLoader(manifest, batch_size=5, num_workers=2, state=state) as other:
        assert len(caplog.messages) == 1 and len(next(other).targets) == 5, "the batch size may change"
    grown = small_manifest(tmp_path, rows=100)
    with caplog.at_level(logging.WARNING), TrainLoader(grown, batch_size=3, num_workers=2, state=state):
        assert "(other sources)" in caplog.messages[-1]
    with pytest.raises(SynthgenError, match=r"is of version 0, this synthgen reads 1"):
        TrainLoader(manifest, batch_size=3, num_workers=2, state={**state, "version": 0})


def test_a_state_is_plain_and_small(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    with TrainLoader(manifest, batch_size=2, num_workers=2) as loader:
        fresh = loader.state_dict()
        assert fresh["positions"] == {str(r): {"draws": 0, "sources": [[0, 0, 0], [0, 0, 0]]} for r in range(2)}
        next(loader)
        state = loader.state_dict()
    assert json.loads(json.dumps(state)) == state and len(json.dumps(state)) < 1000
    assert state["positions"]["0"]["draws"] == 2 and state["positions"]["1"]["draws"] == 0, "what is made ahead is not"


def test_the_draws_of_the_training_are_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with TrainLoader(small_manifest(tmp_path), batch_size=2, num_workers=1) as loader:
        next(loader)
        assert torch.equal(torch.rand(3), expected)


def test_what_the_model_saw_comes_with_the_batches_that_were_taken(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    with TrainLoader(manifest, batch_size=2, num_workers=2) as loader:
        batches = list(islice(loader, 9))
        images = Counter(source for batch in batches for source in batch.source_ids)
        assert [count["images"] for count in loader.stats.counts] == [images[0], images[1]]
        objects = sum(len(target["labels"]) for batch in batches for target in batch.targets)
        assert sum(count["objects"] for count in loader.stats.counts) == objects
        assert loader.stats.counts[1]["captions"] == loader.stats.counts[1]["objects"] > 0
        assert loader.stats.counts[0]["captions"] == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_reader_cannot_go_on_from_is_the_same_sentence_here(tmp_path: Path, workers: int) -> None:
    train_layers.commit(tmp_path, 10)
    manifest = train_layers.manifest(tmp_path, train_layers.source(tmp_path, task="referring"))
    with pytest.raises(SynthgenError) as there:
        next(Mixture(manifest, reader_id=0, num_readers=1))
    with TrainLoader(manifest, batch_size=2, num_workers=workers) as loader, pytest.raises(SynthgenError) as here:
        next(loader)
    assert str(here.value) == str(there.value) and "does this layer have captions?" in str(here.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_our_own_mistakes_keep_their_traceback(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("synthgen.dataloading.mixture.make_train_example", mistaken)
    with (
        TrainLoader(small_manifest(tmp_path), batch_size=2, num_workers=workers) as loader,
        pytest.raises(RuntimeError) as why,
    ):
        next(loader)
    assert "a mistake of ours" in str(why.value)


def mixed_sizes(root: Path) -> Manifest:
    """Two sources whose views have 25 to 256 pixels, and 64 pixels."""
    train_layers.commit(root, 60, shards=2)
    sources = [train_layers.source(root, ratio=2), train_layers.source(root, task="semantic")]
    manifest = train_layers.manifest(root, *sources)
    augment = replace(manifest.augment, size=256, scale=(0.1, 1.5), semantic_crop_size=64)
    return manifest.model_copy(update={"augment": augment})


def image_contents(batch: Batch) -> dict[str, Any]:
    """What a batch has of each image, without padding, by its key and source."""
    found = {}
    for i, (target, source) in enumerate(zip(batch.targets, batch.source_ids, strict=True)):
        height, width = target["size"]
        masks, ignore = target["masks"][:, :height, :width], target["ignore"][:height, :width]
        pixels, padding = batch.images[i, :, :height, :width], batch.padding_mask[i, :height, :width]
        found[f"{target['image_key']} {source}"] = [pixels, padding, {**target, "masks": masks, "ignore": ignore}]
    return found


def join_contents(batches: list[Batch]) -> dict[str, Any]:
    joined = [pair for batch in batches for pair in image_contents(batch).items()]
    assert len({key for key, _ in joined}) == len(joined), "an image is twice in a step"
    return dict(joined)


@pytest.fixture
def small_batch_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of views of 256 pixels are cut as those of 1024 would be."""
    monkeypatch.setattr(size_groups, "BATCH_COST_PIXELS", size_groups.BATCH_COST_PIXELS // 16)


@pytest.mark.usefixtures("small_batch_cost")
@pytest.mark.parametrize(
    ("workers", "batches_per_step", "batch_size"), [(0, 1, 8), (1, 3, 2), (2, 1, 4), (2, 3, 3), (3, 2, 4)]
)
def test_a_step_by_size_has_the_images_of_the_plain_step(
    tmp_path: Path, workers: int, batches_per_step: int, batch_size: int
) -> None:
    manifest, padded, regrouped = mixed_sizes(tmp_path), [0, 0], 0
    options: dict[str, Any] = {
        "batch_size": batch_size, "batches_per_step": batches_per_step, "num_workers": workers
    }  # fmt: skip
    for rank in (0, 1):
        with (
            TrainLoader(manifest, rank=rank, world_size=2, **options) as plain,
            TrainLoader(manifest, rank=rank, world_size=2, group_by_size=True, **options) as by_size,
        ):
            for _ in range(3):
                steps = plain.next_step(), by_size.next_step()
                assert same(*map(join_contents, steps))
                assert plain.state_dict() == by_size.state_dict()
                assert len(steps[0]) == batches_per_step
                assert all(len(batch.targets) <= batch_size for batch in steps[1])
                regrouped += not same(*steps)
                for i, step in enumerate(steps):
                    padded[i] += sum(batch.padding_mask.numel() for batch in step)
    assert regrouped == 6 and padded[1] < 0.8 * padded[0]


@pytest.mark.usefixtures("small_batch_cost")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_by_size_goes_on_after_any_step(tmp_path: Path, workers: int) -> None:
    manifest = mixed_sizes(tmp_path)
    options: dict[str, Any] = {"batch_size": 4, "batches_per_step": 2, "num_workers": workers, "group_by_size": True}
    with TrainLoader(manifest, **options) as loader:
        whole = [loader.next_step() for _ in range(5)]
        end = loader.state_dict()
    assert {len(step) for step in whole} != {2}, "some steps have another number of parts"
    for k in range(1, 5):
        with TrainLoader(manifest, **options) as first:
            assert same([first.next_step() for _ in range(k)], whole[:k])
            state = json.loads(json.dumps(first.state_dict()))
            next(first)  # a part of the next step
            assert len(whole[k]) == 1 or first.state_dict() == state, "a part is no step"
        with TrainLoader(manifest, state=state, **options) as again:
            assert same([again.next_step() for _ in range(5 - k)], whole[k:])
            assert again.state_dict() == end


def test_one_reader_by_size_is_the_same_in_this_process_and_in_another(tmp_path: Path) -> None:
    manifest = mixed_sizes(tmp_path)
    options: dict[str, Any] = {"batch_size": 4, "batches_per_step": 2, "group_by_size": True}
    with (
        TrainLoader(manifest, num_workers=0, **options) as here,
        TrainLoader(manifest, num_workers=1, **options) as there,
    ):
        assert same([here.next_step() for _ in range(4)], [there.next_step() for _ in range(4)])


def test_views_of_one_padded_size_make_the_plain_batches(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)  # its views have 32 pixels at most
    options: dict[str, Any] = {"batch_size": 3, "batches_per_step": 2, "num_workers": 2}
    with TrainLoader(manifest, **options) as plain, TrainLoader(manifest, group_by_size=True, **options) as by_size:
        assert same([plain.next_step() for _ in range(6)], [by_size.next_step() for _ in range(6)])
        assert plain.state_dict() == by_size.state_dict()


@pytest.mark.usefixtures("small_batch_cost")
def test_grouping_keeps_the_ratios_of_the_sources(tmp_path: Path) -> None:
    with TrainLoader(
        mixed_sizes(tmp_path), batch_size=6, batches_per_step=2, num_workers=0, group_by_size=True
    ) as loader:
        for step in range(1, 16):
            loader.next_step()
            counts = [count["images"] for count in loader.stats.counts]
            assert sum(counts) == 12 * step and abs(counts[0] - 8 * step) <= 2
