"""Batches by hand; and reader processes: a stream broken off anywhere goes on exactly, and nothing of them is left."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fakes import train_layers
from fakes.train_layers import annotation, phrase, row

from synthgen.dataloading.collate import PIXEL_MEAN, PIXEL_STD, Batch, PackedBatch, collate, unpack_batch
from synthgen.dataloading.eval_loader import EvalLoader
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.mixture import Mixture, StreamItem
from synthgen.dataloading.source_config import EvalSource
from synthgen.dataloading.train_loader import TrainLoader, merge_states
from synthgen.dataloading.transforms import Example
from synthgen.dataloading.worker_processes import BatchStream, ReaderPool, describe_worker_death
from synthgen.errors import SynthgenError

TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


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


# --- by hand ---------------------------------------------------------------------------------------------------------


def example(size: tuple[int, int], canvas: tuple[int, int], has_mask: list[bool]) -> Example:
    rng = np.random.default_rng(0)
    n, inside = len(has_mask), (slice(None, size[0]), slice(None, size[1]))
    image = np.full((*canvas, 3), 128, np.uint8)
    image[inside] = rng.integers(0, 256, (*size, 3))
    masks, ignore = np.zeros((sum(has_mask), *canvas), np.bool_), np.zeros(canvas, np.bool_)
    masks[(slice(None), *inside)] = rng.random((sum(has_mask), *size)) < 0.5
    ignore[inside] = rng.random(size) < 0.1
    return Example(
        image=image,
        texts=("a", "b"),
        labels=np.arange(n) % 2,
        boxes_xyxy=np.tile(np.array([[1, 2, 5, 4]], np.float32), (n, 1)),
        has_mask=np.array(has_mask, np.bool_),
        masks=masks,
        mask_weights=np.full(n, 0.5, np.float32),
        ignore=ignore,
        size=size,
        orig_size=(99, 98),
        annotation_ids=tuple((i,) for i in range(n)),
    )


def test_a_batch_is_as_large_as_its_largest_image_and_padded_right_and_bottom() -> None:
    examples = [example((10, 20), (24, 24), [True, False, True]), example((33, 8), (33, 40), []),
                example((4, 8), (4, 8), [False])]  # fmt: skip
    batch = unpack_batch(collate([StreamItem(one, i, f"toy/{i}") for i, one in enumerate(examples)]))
    assert batch.images.shape == (3, 3, 64, 64) and batch.images.dtype == torch.float32
    assert batch.padding_mask.shape == (3, 64, 64) and batch.padding_mask.dtype == torch.bool
    assert batch.source_ids == [0, 1, 2]
    for i, one in enumerate(examples):
        h, w = one.size
        target = batch.targets[i]
        expected = (one.image[:h, :w].astype(np.float64) - PIXEL_MEAN) / PIXEL_STD
        assert np.allclose(batch.images[i, :, :h, :w], expected.transpose(2, 0, 1), atol=1e-5)
        seen = torch.zeros(64, 64, dtype=torch.bool)
        seen[:h, :w] = True
        assert torch.equal(batch.padding_mask[i], ~seen)
        assert not batch.images[i][:, ~seen].any() and not target["ignore"][~seen].any()
        assert not target["masks"][:, ~seen].any()
        assert np.array_equal(target["masks"][:, :h, :w], one.masks[:, :h, :w])
        assert np.array_equal(target["ignore"][:h, :w], one.ignore[:h, :w])
        n = len(one.labels)
        assert target["masks"].shape == (int(one.has_mask.sum()), 64, 64) and target["masks"].dtype == torch.bool
        assert torch.equal(target["boxes"], torch.tensor([[3 / w, 3 / h, 4 / w, 2 / h]]).expand(n, 4))
        assert target["boxes"].shape == (n, 4) and target["boxes"].dtype == torch.float32
        assert target["labels"].dtype == torch.int64 and target["has_mask"].tolist() == one.has_mask.tolist()
        assert target["mask_weights"].tolist() == [0.5] * n
        kept = {key: target[key] for key in ("texts", "size", "orig_size", "annotation_ids", "image_key")}
        assert kept == {
            "texts": one.texts, "size": one.size, "orig_size": (99, 98),
            "annotation_ids": one.annotation_ids, "image_key": f"toy/{i}",
        }  # fmt: skip


def test_an_image_is_the_same_in_any_batch() -> None:
    """But for padding: so a result does not depend on what is beside it."""
    small, large = (StreamItem(example(s, s, [True]), 0, "k") for s in ((10, 20), (70, 50)))
    alone, together = unpack_batch(collate([small])), unpack_batch(collate([small, large]))
    assert torch.equal(alone.images[0], together.images[0][:, :32, :32]) and not together.images[0][:, 32:].any()
    assert torch.equal(alone.targets[0]["masks"][0], together.targets[0]["masks"][0][:32, :32])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no memory to lock for a GPU")
def test_pinned_batches_are_the_same(tmp_path: Path) -> None:
    manifest = small(tmp_path)
    with (
        TrainLoader(manifest, batch_size=3, num_workers=1) as plain,
        TrainLoader(manifest, batch_size=3, num_workers=1, pin_memory=True) as pinned,
    ):
        for a, b in zip(islice(plain, 5), pinned, strict=False):
            assert same(a, b) and b.images.is_pinned() and b.targets[0]["masks"].is_pinned()


# --- goes on exactly -------------------------------------------------------------------------------------------------


def small(root: Path, rows: int = 90, **more: Any) -> Manifest:
    """Two sources of a few rows, so that ten batches are more than an epoch of one of them."""
    samples = [row(i, annotation(i, captions=(phrase(f"cat {i}"), phrase("left one")))) for i in range(rows)]
    train_layers.commit(root, samples, shards=2)
    sources = [train_layers.source(root, ratio=2), train_layers.source(root, task="referring")]
    return train_layers.manifest(root, *sources, **more)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_stream_goes_on_exactly_with_its_readers(tmp_path: Path, workers: int) -> None:
    """Broken off behind k batches, k no multiple of the readers, what was made ahead is made again."""
    manifest = small(tmp_path)
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
    manifest = small(tmp_path)
    with (
        TrainLoader(manifest, batch_size=4, num_workers=0) as here,
        TrainLoader(manifest, batch_size=4, num_workers=1) as there,
    ):
        assert same(list(islice(here, 8)), list(islice(there, 8)))
        assert here.state_dict() == there.state_dict()


def test_a_closed_loader_goes_on(tmp_path: Path) -> None:
    manifest = small(tmp_path)
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
    manifest = small(tmp_path)

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
    manifest = small(tmp_path)
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
    grown = small(tmp_path, rows=100)
    with caplog.at_level(logging.WARNING), TrainLoader(grown, batch_size=3, num_workers=2, state=state):
        assert "(other sources)" in caplog.messages[-1]
    with pytest.raises(SynthgenError, match=r"is of version 0, this synthgen reads 1"):
        TrainLoader(manifest, batch_size=3, num_workers=2, state={**state, "version": 0})


def test_a_state_is_plain_and_small(tmp_path: Path) -> None:
    manifest = small(tmp_path)
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
    with TrainLoader(small(tmp_path), batch_size=2, num_workers=1) as loader:
        next(loader)
        assert torch.equal(torch.rand(3), expected)


def test_what_the_model_saw_comes_with_the_batches_that_were_taken(tmp_path: Path) -> None:
    manifest = small(tmp_path)
    with TrainLoader(manifest, batch_size=2, num_workers=2) as loader:
        batches = list(islice(loader, 9))
        images = Counter(source for batch in batches for source in batch.source_ids)
        assert [count["images"] for count in loader.stats.counts] == [images[0], images[1]]
        objects = sum(len(target["labels"]) for batch in batches for target in batch.targets)
        assert sum(count["objects"] for count in loader.stats.counts) == objects
        assert loader.stats.counts[1]["captions"] == loader.stats.counts[1]["objects"] > 0
        assert loader.stats.counts[0]["captions"] == 0


# --- what goes wrong -------------------------------------------------------------------------------------------------


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
    with TrainLoader(small(tmp_path), batch_size=2, num_workers=workers) as loader, pytest.raises(RuntimeError) as why:
        next(loader)
    assert "a mistake of ours" in str(why.value)


def test_a_killed_reader_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError) as why, TrainLoader(small(tmp_path), batch_size=2, num_workers=2) as loader:
        next(loader)
        victim = multiprocessing.active_children()[0].pid
        os.kill(victim, signal.SIGKILL)
        while True:  # torch tells of it here, or in whatever its host does
            next(loader)
    assert re.fullmatch(
        rf"the reader process {victim} died( \(Killed\))?, most likely for want of memory; lower readers.workers, "
        r"readers.cache_mib or the batch size",
        str(why.value),
    )


def test_a_reader_that_dies_while_its_host_does_something_else_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(SynthgenError, match=r"died \(Killed\)"),
        TrainLoader(small(tmp_path), batch_size=2, num_workers=1) as loader,
    ):
        next(loader)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(10)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out "
         "of shared memory. Please try to raise your shared memory limit.", "12 ran out of shared memory; enlarge"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "12, 13 died, most"),
        ("DataLoader worker (pid 12) exited unexpectedly with exit code 1. Details are lost", "12 died, most"),
        ("CUDA out of memory", None),
        ("Caught ValueError in DataLoader worker process 0.", None),
    ],
)  # fmt: skip
def test_what_torch_says_of_a_dead_reader(said: str, told: str | None) -> None:
    sentence = describe_worker_death(RuntimeError(said))
    assert (sentence is None) == (told is None) and (told or "") in (sentence or "")


def test_a_reader_is_one_thread_deaf_to_ctrl_c_and_unpacks_nothing() -> None:
    class Telling(BatchStream):
        def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
            packed = collate([StreamItem(example((3, 4), (3, 4), [True]), 0, "k")])
            deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            packed.position = {
                "worker": worker_id, "opencv": cv2.getNumThreads(), "torch": torch.get_num_threads(), "deaf": deaf,
                "shared": packed.images.is_shared() and packed.masks.is_shared(),
            }  # fmt: skip
            yield packed

    readers = ReaderPool(Telling(), num_workers=2)
    sent = list(readers)
    readers.close()
    assert [p.position for p in sent] == [
        {"worker": i, "opencv": 1, "torch": 1, "deaf": True, "shared": True} for i in (0, 1)
    ]
    assert all(p.batch is None for p in sent)


CTRL_C = """
    import multiprocessing, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from fakes import train_layers
    from synthgen.dataloading.train_loader import TrainLoader
    root = Path({root!r})
    loader = TrainLoader(train_layers.manifest(root, train_layers.source(root)), batch_size=2, num_workers=2)
    try:
        for number, batch in enumerate(loader):
            if number == 3:
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("how", ["ctrl-c", pytest.param("killed", marks=pytest.mark.slow)])
def test_readers_end_with_their_host(tmp_path: Path, how: str) -> None:
    train_layers.commit(tmp_path, 90)
    program = textwrap.dedent(CTRL_C.format(tests=str(TESTS), root=str(tmp_path)))
    host = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    readers = [int(pid) for pid in host.stdout.readline().split()]
    assert len(readers) == 2
    if how == "ctrl-c":
        os.killpg(host.pid, signal.SIGINT)  # the terminal tells all of them
    else:
        host.kill()
    _, errors = host.communicate(timeout=60)
    assert host.returncode == (130 if how == "ctrl-c" else -signal.SIGKILL)
    if how == "ctrl-c":
        assert "Traceback" not in errors, errors
    until = time.monotonic() + 30
    while any(map(alive, readers)):
        assert time.monotonic() < until, "readers outlive their host"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- once through ----------------------------------------------------------------------------------------------------


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
