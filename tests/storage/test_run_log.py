"""Where the images of a layer are: a log of a run, however damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.storage.run_log import find_image_folder, record_image_folder
from synthgen.storage.shard_store import ShardStore

LONG = '{"images_folder": "' + "d" * 70_000 + '"}'


def test_the_folder_of_any_layer_of_the_images_is_found(tmp_path: Path) -> None:
    store, images = ShardStore(tmp_path / "shards"), tmp_path / "images"
    assert find_image_folder(store, "d", "s", "masks") is None
    images.mkdir()
    record_image_folder(store, "d", "s", "annotations", images)
    assert find_image_folder(store, "d", "s", "masks") == images


@pytest.mark.parametrize(
    "rubbish", ["", "[]", '{"images_folder": 7}', '"x"', "[" * 100_000, "9" * 5_000, "\udc80", LONG]
)
def test_a_damaged_log_is_passed_over(tmp_path: Path, rubbish: str) -> None:
    store, images = ShardStore(tmp_path / "shards"), tmp_path / "images"
    images.mkdir()
    record_image_folder(store, "d", "s", "masks", images)
    damaged = store.layer_folder("d", "s", "masks") / "_log" / "a.json"  # the first by name
    damaged.write_bytes(rubbish.encode("utf-8", "surrogateescape"))
    assert find_image_folder(store, "d", "s", "masks") == images
