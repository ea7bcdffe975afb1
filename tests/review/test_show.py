"""`show`: the same images for a seed, images by name or id, file names that leave the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import coco_dataset
from fakes.reviewed_store import write_store_with_failures

from synthgen.errors import SynthgenError
from synthgen.records.sample import Sample
from synthgen.review.show import draw_layer
from synthgen.storage.shard_store import Shard, ShardStore


def test_show_draws_the_same_images_for_the_same_seed(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    write_store_with_failures(tmp_path / "store")
    images = tmp_path / "photos"
    first = draw_layer("w/train/masks", tmp_path / "store", images=images, out=tmp_path / "a", num_images=3)[1]
    again = draw_layer("w/train/masks", tmp_path / "store", images=images, out=tmp_path / "b", num_images=3)[1]
    assert [p.name for p in first] == [p.name for p in again]
    assert len(first) == 3
    every = draw_layer("w/train/masks", tmp_path / "store", images=images, out=tmp_path / "c", num_images=99)[1]
    assert [p.name for p in every] == [f"{n}-{n:04d}.png" for n in range(1, 9)]


def test_show_finds_images_by_name_or_id(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    write_store_with_failures(tmp_path / "store")
    only = ("0003.png", "6")
    _, found = draw_layer(
        "w/train/masks", tmp_path / "store", images=tmp_path / "photos", out=tmp_path / "a", only_images=only
    )
    assert [p.name for p in found] == ["3-0003.png", "6-0006.png"]
    with pytest.raises(SynthgenError, match=r"no image 0099\.png"):
        draw_layer(
            "w/train/masks",
            tmp_path / "store",
            images=tmp_path / "photos",
            out=tmp_path / "b",
            only_images=["0099.png"],
        )


def test_show_asks_where_the_images_are(tmp_path: Path) -> None:
    write_store_with_failures(tmp_path)
    with pytest.raises(SynthgenError, match="--images FOLDER"):
        draw_layer("w/train/masks", tmp_path, out=tmp_path / "a")


def test_a_file_name_cannot_climb_out_of_the_folder_of_pictures(tmp_path: Path) -> None:
    evil = Sample(1, "w/1", "../../../evil.png", 72, 96, ())
    footer = {"fingerprint": "f", "recipe": {}, "counts": {}}
    ShardStore(tmp_path).commit(Shard("w", "train", "masks", 0, 1), [evil], footer)
    (tmp_path / "photos").mkdir()
    _, found = draw_layer("w/train/masks", tmp_path, images=tmp_path / "photos", out=tmp_path / "out")
    assert [p.parent for p in found] == [tmp_path / "out"]
    assert found[0].exists()
