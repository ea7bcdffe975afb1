"""The train loader: exact resume, epochs over several processes, small state, errors of readers."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import train_layers
from fakes.batch_examples import small_manifest

from synthgen.dataloading.collate import Batch
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
