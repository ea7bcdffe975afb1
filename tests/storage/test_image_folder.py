"""The image folder of a layer: the newest that exists, of the layer itself or of another layer of the same images."""

from __future__ import annotations

import pytest

from synthgen.storage.image_folder import find_image_folder, record_image_folder
from synthgen.storage.run_log import RunLog, log_folder
from synthgen.storage.shard_store import ShardStore

PLACE = ("d", "train", "masks")


@pytest.fixture
def store(tmp_path):
    store = ShardStore(tmp_path / "store")
    store.create_root()
    for layer in (PLACE, ("d", "train", "annotations"), ("d", "val", "masks")):
        store.create_layer(*layer)
    return store


def test_it_is_found_where_it_was_recorded(store, tmp_path, monkeypatch):
    assert find_image_folder(store, *PLACE) is None
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    record_image_folder(store, *PLACE, (tmp_path / "photos").relative_to(tmp_path))
    monkeypatch.chdir("/")
    assert find_image_folder(store, *PLACE) == tmp_path / "photos"


def test_a_status_of_a_run_knows_it_too(store, tmp_path):
    RunLog(log_folder(store, *PLACE), (1, 3)).write_status({"images_folder": str(tmp_path)})
    assert find_image_folder(store, *PLACE) == tmp_path


def test_other_layers_of_the_same_split_are_asked_after_its_own(store, tmp_path):
    for name in ("of-annotations", "of-masks"):
        (tmp_path / name).mkdir()
    record_image_folder(store, "d", "train", "annotations", tmp_path / "of-annotations")
    record_image_folder(store, "d", "val", "masks", tmp_path)
    assert find_image_folder(store, *PLACE) == tmp_path / "of-annotations"
    record_image_folder(store, *PLACE, tmp_path / "of-masks")
    assert find_image_folder(store, *PLACE) == tmp_path / "of-masks"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1", "[]", "3", "null", "{}", '{"images_folder": 3}', '{"images_folder": "/no"}'),
        *("[" * 100_000, "9" * 5_000, '{"images_folder": "' + "d" * 70_000 + '"}'),
    ],
    ids=lambda text: text[:30],
)
def test_a_log_that_does_not_help_is_passed_over(store, tmp_path, text):
    folder = log_folder(store, *PLACE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.json").write_text(text)
    (folder / "b.json").write_bytes(b"\xff")
    assert find_image_folder(store, *PLACE) is None
    record_image_folder(store, *PLACE, tmp_path)
    assert find_image_folder(store, *PLACE) == tmp_path
