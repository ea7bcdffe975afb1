"""What a task can learn of a layer: the counts are those of the tasks' own targets."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from fakes import layer_kinds
from fakes.layer_kinds import BOX, MASK

from synthgen import plugins
from synthgen.dataloading.layer_stats import load_layer_stats
from synthgen.dataloading.learnable_counts import LearnableCounts, _have_flag, count_learnable
from synthgen.dataloading.source_checks import check_learnable
from synthgen.dataloading.source_config import TASKS_PACKAGE, TrainSource
from synthgen.records.sample import Annotation, Caption
from synthgen.storage.shard_store import ShardStore

TASKS = ("instance", "detection", "panoptic", "semantic", "foreground", "referring", "captioning")
PHRASE = (Caption("a dog on grass", "human"),)


def at(i: int, **more: object) -> Annotation:
    """A human mask with a phrase, at a place and in a category of its own, so that nothing is merged."""
    one = Annotation(i, (float(i % 3), 0.0, 4.0, 8.0), f"dog {i}", segmentation=MASK, mask_source="human")
    own = tuple(replace(caption, text=f"{caption.text} {i}") for caption in PHRASE)
    return replace(replace(one, captions=own), **more)  # type: ignore[arg-type]


KINDS: dict[str, Callable[[int], Annotation]] = {
    "plain": at,
    "crowd": lambda i: at(i, iscrowd=True, flags=("crowd",)),
    "stuff": lambda i: at(i, isthing=False),
    "no name": lambda i: at(i, category="", flags=("unknown_category",)),
    "part": lambda i: at(i, flags=("part",)),
    "box only": lambda i: at(i, segmentation=None, mask_source=None),
    "no place": lambda i: at(i, segmentation=None, mask_source=None, bbox=(0.0, 0.0, 0.0, 0.0), flags=("degenerate",)),
    "mask without a box": lambda i: at(i, bbox=(0.0, 0.0, 0.0, 0.0), flags=("degenerate", "no_box")),
    "no phrase": lambda i: at(i, captions=()),
}


def count(store: ShardStore, layer: str, task: str) -> LearnableCounts:
    source = TrainSource(shards=layer, task=task)
    return count_learnable(store, load_layer_stats(store, source), plugins.load_plugin(TASKS_PACKAGE, task).METRIC)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_counts_are_those_of_the_tasks_targets(tmp_path: Path, kind: str, task: str) -> None:
    """Of each pair, one annotation is plain and one of the kind."""
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/l", ["a", "b", "c"], lambda i: (at if i % 2 else KINDS[kind])(i), shards=2)
    module = plugins.load_plugin(TASKS_PACKAGE, task)
    objects = masks = 0
    for shard in store.list_shards("d", "s", "l"):
        for sample in store.read_samples(shard):
            target = module.target(sample, [], random.Random(0))
            ids = {one for ids in target.annotation_ids for one in ids}
            objects += len(ids)
            masks += sum(a.id in ids and a.segmentation is not None for a in sample.annotations)
    found = count(store, "d/s/l", task)
    assert (found.objects, found.masks) == (objects, masks)


def test_images_with_an_error_teach_nothing(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/l", ["a", "b", "c"], at, errors=2)
    found = count(store, "d/s/l", "instance")
    assert (found.objects, found.masks, found.captions) == (2, 2, 2)
    assert found.describe_reasons() == "4 are in images with an error"


def test_only_what_a_task_leaves_out_is_read(tmp_path: Path, monkeypatch) -> None:
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/plain", ["a"], at)
    layer_kinds.write_layer(store, "d/s/crowds", ["a"], KINDS["crowd"])
    monkeypatch.setattr(ShardStore, "read_columns", lambda *_: pytest.fail("a column was read"))
    assert count(store, "d/s/plain", "instance").objects == 2
    assert count(store, "d/s/crowds", "semantic").objects == 2


def test_an_empty_layer_counts_nothing(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/l", [], at)
    assert count(store, "d/s/l", "referring") == LearnableCounts(0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "task", "said"),
    [
        (
            "crowd",
            "instance",
            "2 are crowds; if they are objects, as in exports of RLE masks by CVAT, ingest them",
        ),
        ("crowd", "semantic", None),
        ("stuff", "instance", "2 are stuff"),
        ("no place", "detection", "2 have neither a usable box nor a mask"),
        ("part", "panoptic", "2 are parts of others"),
        ("plain", "instance", None),
    ],
)
def test_a_source_that_teaches_nothing_is_an_error(tmp_path: Path, kind: str, task: str, said: str | None) -> None:
    store = ShardStore(tmp_path)
    layer_kinds.write_layer(store, "d/s/l", ["a"], KINDS[kind])
    source = TrainSource(shards="d/s/l", task=task)
    stats = load_layer_stats(store, source)
    metric = plugins.load_plugin(TASKS_PACKAGE, task).METRIC
    issues = list(check_learnable(source, stats, count(store, "d/s/l", task), metric))
    assert len(issues) == bool(said) and all(said in issue.message and issue.is_error for issue in issues if said)


def test_masks_of_crowds_alone_are_no_masks_for_panoptic_segmentation(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    both = [KINDS["crowd"], lambda i: Annotation(i, BOX, "dog")]
    layer_kinds.write_layer(store, "d/s/l", ["a"], lambda i: both[i % 2](i))
    source = TrainSource(shards="d/s/l", task="panoptic")
    found = count(store, "d/s/l", "panoptic")
    assert (found.objects, found.masks) == (1, 0)
    (issue,) = check_learnable(source, load_layer_stats(store, source), found, "pq")
    assert "no object that it takes has one" in issue.message


@pytest.mark.parametrize("start", [0, 2])
def test_a_flag_is_found_in_its_own_list_beside_empty_and_missing_lists(start: int) -> None:
    rows = [["part"], [], ["a", "part"], None, ["a"], [], ["part", "b"], None]
    found = _have_flag(pa.array(rows, pa.list_(pa.string()))[start:], frozenset({"part"}))
    assert found.tolist() == [bool(row) and "part" in row for row in rows][start:]
