"""Rows of a layer: disjoint parts per reader, orders per epoch and seed, bounded memory."""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import older_shards, train_layers
from fakes.train_layers import annotation, row
from PIL import Image

from synthgen.dataloading.row_stream import (
    UNITS_PER_READER,
    Cursor,
    ImageCache,
    SequentialRows,
    ShuffledRows,
    SourceIndex,
    build_source_index,
    select_reader_units,
    split_into_units,
)
from synthgen.dataloading.source_config import EvalSource
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import ROW_GROUP_SIZE, Shard, ShardStore

ROWS, SHARDS = 300, 3  # row groups of 64 and of 36


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reading")
    train_layers.commit(root, ROWS, shards=SHARDS)
    train_layers.commit(root, 5, name="toy/few/human")
    return root


def taken(root: Path, name: str = "toy/train/human") -> tuple[ShardStore, SourceIndex]:
    store = ShardStore(root / "store")
    return store, build_source_index(store, train_layers.source(root, name))


def epoch(
    root: Path, reader: int, readers: int, number: int = 0, name: str = "toy/train/human"
) -> Iterator[tuple[str, random.Random]]:
    """The keys that a reader sees in one epoch, in its order."""
    store, found = taken(root, name)
    rows = ShuffledRows(store, found, seed_key="0/0", reader_id=reader, num_readers=readers, cursor=Cursor(number))
    for sample, rng in rows:
        if rows.cursor.epoch > number:
            return
        yield sample.image_key, rng


def keys(*which: Any) -> list[str]:
    return [key for key, _ in epoch(*which)]


@pytest.mark.parametrize("readers", [1, 2, 3, 7, 75, ROWS, 2 * ROWS])
@pytest.mark.parametrize("number", [0, 1])
def test_the_readers_parts_are_disjoint_and_their_union_is_the_epoch(root: Path, readers: int, number: int) -> None:
    _, found = taken(root)
    cut = split_into_units(found, readers)
    seen: Counter[str] = Counter()
    for reader in range(readers):
        for place, group, first, end in select_reader_units(cut, f"0/{number}", reader, readers).tolist():
            seen.update(f"{place}/{group}/{r}" for r in range(first, end))
    every = [f"{place}/{group}/{r}" for place, group, rows in found.row_groups.tolist() for r in range(rows)]
    assert len(every) == ROWS and seen == Counter(every)


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_every_row_is_given_once_an_epoch(root: Path, readers: int) -> None:
    given = [key for reader in range(readers) for key in keys(root, reader, readers)]
    assert sorted(given) == sorted(f"toy/{i}" for i in range(ROWS))


def test_more_readers_than_rows(root: Path) -> None:
    """In an epoch some readers have nothing; each goes on to one in which it has."""
    parts = [keys(root, reader, 8, 0, "toy/few/human") for reader in range(8)]
    assert sorted(map(len, parts)) == [0, 0, 0, 1, 1, 1, 1, 1]
    store, found = taken(root, "toy/few/human")
    for reader in range(8):
        rows = ShuffledRows(store, found, seed_key="0/0", reader_id=reader, num_readers=8)
        assert {sample.image_key for sample, _ in islice(rows, 60)} == {f"toy/{i}" for i in range(5)}


@pytest.mark.parametrize("readers", [1, 2, 5, 30, 75, 76, 1000])
def test_a_layer_of_few_row_groups_is_cut_finer(root: Path, readers: int) -> None:
    _, found = taken(root)
    cut = split_into_units(found, readers)
    assert len(cut) >= min(ROWS, UNITS_PER_READER * readers)
    assert (cut[:, 3] > cut[:, 2]).all() and (cut[:, 3] - cut[:, 2]).sum() == ROWS
    parts = [(cut[r::readers, 3] - cut[r::readers, 2]).sum() for r in range(readers)]
    if readers <= ROWS // UNITS_PER_READER:
        assert max(parts) <= 1.5 * ROWS / readers + 1, "an epoch is shared out nearly evenly"


def test_row_groups_stay_whole_where_there_are_many() -> None:
    groups = np.array([[s, g, 64] for s in range(100) for g in range(16)], np.int32)
    cut = split_into_units(SourceIndex("a/b/c", (), groups, (), Path()), 16)
    assert np.array_equal(cut, np.column_stack([groups[:, :2], np.zeros(1600, int), groups[:, 2]]))


def test_each_epoch_has_an_order_of_its_own_and_so_has_each_seed(root: Path) -> None:
    first, second = keys(root, 0, 1, 0), keys(root, 0, 1, 1)
    assert first == keys(root, 0, 1, 0)
    assert first != second and sorted(first) == sorted(second)
    store, found = taken(root)
    other = [
        sample.image_key
        for sample, _ in islice(ShuffledRows(store, found, seed_key="1/0", reader_id=0, num_readers=1), ROWS)
    ]
    assert other != first and sorted(other) == sorted(first)
    assert first != sorted(first, key=lambda key: int(key.split("/")[1])), "rows are shuffled"


@pytest.mark.parametrize("readers", [1, 3])
def test_a_reader_goes_on_where_it_was(root: Path, readers: int) -> None:
    store, found = taken(root)
    whole = ShuffledRows(store, found, seed_key="0/0", reader_id=readers - 1, num_readers=readers)
    places, given = [whole.cursor], []
    for sample, rng in islice(whole, 2 * ROWS // readers):
        given.append((sample.image_key, rng.random()))
        places.append(whole.cursor)
    for start in [0, 1, 63, 64, 65, ROWS // readers - 1, ROWS // readers, ROWS // readers + 1]:
        again = ShuffledRows(
            store, found, seed_key="0/0", reader_id=readers - 1, num_readers=readers, cursor=places[start]
        )
        assert [(s.image_key, rng.random()) for s, rng in islice(again, 20)] == given[start : start + 20]


def test_what_is_drawn_for_a_row_depends_on_the_epoch_and_on_nothing_else(root: Path) -> None:
    one = {key: rng.random() for key, rng in epoch(root, 0, 1)}
    five = {key: rng.random() for reader in range(5) for key, rng in epoch(root, reader, 5)}
    assert five == one and len(set(one.values())) == ROWS
    assert all(rng.random() != one[key] for key, rng in epoch(root, 0, 1, 1))


def test_share_takes_the_first_shards(root: Path) -> None:
    store = ShardStore(root / "store")
    assert [shard.index for shard in build_source_index(store, train_layers.source(root, share=0.6)).shards] == [0, 1]
    assert build_source_index(store, train_layers.source(root, share=0.01)).num_rows == 100
    assert build_source_index(store, train_layers.source(root)).num_rows == ROWS


def test_names_are_those_of_all_shards_without_repetition(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    for i, names in enumerate((["b", "a"], ["a", "c"])):
        store.commit(Shard("d", "s", "l", i, 2), [row(i)], {"categories": names})
    found = build_source_index(store, train_layers.source(tmp_path, "d/s/l"))
    assert found.categories == ("b", "a", "c") and found.name == "d/s/l"


def test_what_is_wrong_with_a_source_is_said_at_once(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    with pytest.raises(SynthgenError, match=r"no shards of d/s/l in .*; `synthgen status` lists"):
        build_source_index(store, train_layers.source(tmp_path, "d/s/l"))
    store.commit(Shard("d", "s", "l", 0, 1), [], {})
    with pytest.raises(SynthgenError, match=r"d/s/l holds no images; take it out"):
        build_source_index(store, train_layers.source(tmp_path, "d/s/l"))
    store.commit(Shard("d", "s", "l", 0, 1), [row(0)], {})
    nowhere = EvalSource(shards="d/s/l", task="instance")
    with pytest.raises(SynthgenError, match=r"where are the images of d/s/l\? Add images: FOLDER"):
        build_source_index(store, nowhere)
    record_image_folder(store, "d", "s", "l", tmp_path)
    assert build_source_index(store, nowhere).image_folder == tmp_path


def test_chosen_row_groups_of_a_shard(root: Path) -> None:
    store, found = taken(root)
    footer, rows = store.read_row_group_sizes(found.shards[0])
    assert rows == [ROW_GROUP_SIZE, 100 - ROW_GROUP_SIZE] and footer["categories"] == list(train_layers.CATEGORIES)
    whole = list(store.read_samples(found.shards[0]))
    assert list(store.read_samples(found.shards[0], [1])) == whole[64:]
    assert list(store.read_samples(found.shards[0], [1, 0])) == whole[64:] + whole[:64]
    assert list(store.read_samples(found.shards[0], [])) == []
    with pytest.raises(SynthgenError, match="is another one than a moment ago"):
        list(store.read_samples(found.shards[0], [2]))


def test_a_lost_bit_in_a_row_group_is_found_when_that_is_read(tmp_path: Path) -> None:
    train_layers.commit(tmp_path, 128)
    store, found = taken(tmp_path)
    path = store.root / found.shards[0].relative_path
    sound, whole = path.read_bytes(), list(store.read_samples(found.shards[0]))
    damaged = 0
    for place in range(4, len(sound) // 2, 97):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        for group, rows in ((0, whole[:64]), (1, whole[64:])):
            try:
                assert list(store.read_samples(found.shards[0], [group])) == rows
            except SynthgenError as why:
                damaged += 1
                assert "damaged" in str(why)
    assert damaged > 10


def test_one_row_group_is_in_memory_however_large_the_layer(tmp_path: Path) -> None:
    groups = 40
    boxes = [annotation(i, "x" * 500) for i in range(8)]
    samples = [row(i, *(replace(a, category=f"{a.category}{i}") for a in boxes)) for i in range(64 * groups)]
    train_layers.commit(tmp_path, samples)
    del samples
    store, found = taken(tmp_path)
    rows = ShuffledRows(store, found, seed_key="0/0", reader_id=0, num_readers=1)

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in islice(rows, count):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(64)
    few, many = peak(3 * 64), peak((groups - 4) * 64)
    assert few > 64 * 8 * 500, "the texts of a row group are in there"
    assert many < 1.3 * few


def test_objects365_is_looked_up_in_seconds(tmp_path: Path) -> None:
    """1,743 shards of 1,000 images: 27,888 row groups. All of them are one file here."""
    store = ShardStore(tmp_path / "store")
    first = Shard("o", "train", "masks", 0, 1743)
    names = [f"category {i}" for i in range(365)]
    store.commit(first, [row(i) for i in range(1000)], {"categories": names, "recipe": {"weights": "0" * 64}})
    older_shards.make_older(store, [first])  # which do not say which shard they are
    for i in range(1, first.num_shards):
        os.link(store.root / first.relative_path, store.root / replace(first, index=i).relative_path)
    begun = time.process_time()
    found = build_source_index(store, train_layers.source(tmp_path, "o/train/masks"))
    assert time.process_time() - begun < 10
    assert found.row_groups.shape == (27_888, 3) and found.num_rows == 1_743_000
    begun = time.process_time()
    ShuffledRows(store, found, seed_key="0/0", reader_id=3, num_readers=64)
    assert time.process_time() - begun < 1


def test_rows_by_their_number(root: Path) -> None:
    store, found = taken(root)
    rows = SequentialRows(store, found)
    assert [rows[i].image_id for i in range(len(rows))] == list(range(ROWS))
    assert [rows[i].image_id for i in (299, 0, 100, 99, 163, 164)] == [299, 0, 100, 99, 163, 164]


def test_images_last_used_are_kept_up_to_so_many_bytes(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (10, 10), (i, i, i)).save(tmp_path / f"{i}.png")
    a, b, c = (row(0, file_name=f"{i}.png", height=10, width=10) for i in range(3))
    pixels = ImageCache(cache_bytes=700)  # two images of 300
    kept = pixels.load(tmp_path, a)
    assert not kept.flags.writeable and kept.shape == (10, 10, 3)
    assert pixels.load(tmp_path, a) is kept
    pixels.load(tmp_path, b)
    assert pixels.load(tmp_path, a) is kept
    pixels.load(tmp_path, c)  # b has not been used for longest
    assert pixels.load(tmp_path, a) is kept
    (tmp_path / "b.png").unlink(missing_ok=True)
    (tmp_path / "1.png").unlink()
    with pytest.raises(ImageError):
        pixels.load(tmp_path, b)
    with pytest.raises(ImageError, match="10 x 10 pixels, the annotations say"):
        pixels.load(tmp_path, replace(a, height=11))
    for room in (0, 299):
        little = ImageCache(cache_bytes=room)
        assert little.load(tmp_path, a) is not little.load(tmp_path, a)
