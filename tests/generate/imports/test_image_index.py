"""Images by id and by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthgen.generate.imports.image_index import ImageIndex
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore

NAMES = ("a/1.jpg", "a/2.jpg", "b/2.jpg", "b/3.v2.jpg", "4.jpg")


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    store = ShardStore(tmp_path)
    samples = [Sample(10 * n, f"d/{n}", name, 20, 30) for n, name in enumerate(NAMES)]
    for index, part in enumerate((samples[:3], samples[3:])):
        store.commit(Shard("d", "s", "annotations", index, 2), part, {"categories": []})
    return store


def make_index(store: ShardStore, *, stems: bool = False) -> ImageIndex:
    return ImageIndex(store, store.list_shards("d", "s", "annotations"), stems=stems)


def test_ids_and_names(store: ShardStore) -> None:
    index = make_index(store)
    assert len(index) == 5 and index.starts.tolist() == [0, 3, 5]
    assert index.find_ids(np.array([40, 5, 0])).tolist() == [4, -1, 0]
    names = ["a/2.jpg", "b\\2.jpg", "./a/1.jpg", "elsewhere/4.jpg", "2.jpg", "5.jpg", ""]
    assert index.find_names(names).tolist() == [1, 2, 0, 4, -1, -1, -1]


def test_names_without_suffix(store: ShardStore) -> None:
    index = make_index(store, stems=True)
    names = ["a/2.png", "x/1.png", "b/3.v2.png", "b/3.png", "..", "/", "."]
    assert index.find_names(names).tolist() == [1, 0, 3, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("image_id", "name", "found"),
    [
        (10, "a/2.jpg", 1),
        (10, "x/2.jpg", 1),
        (10, "", 1),
        (10, "4.jpg", 4),
        (99, "a/2.jpg", 1),
        (99, "", -1),
        (99, "2.jpg", -1),
        (10, "9.jpg", -1),
    ],
)
def test_an_id_counts_only_with_its_name(store: ShardStore, image_id: int, name: str, found: int) -> None:
    """Programs number images anew: the same number may be another photograph."""
    assert make_index(store).find_images(np.array([image_id]), [name]).tolist() == [found]


def test_no_images(store: ShardStore) -> None:
    index = ImageIndex(store, [])
    assert len(index) == 0
    assert index.find_images(np.array([1, 2]), ["a", ""]).tolist() == [-1, -1]
