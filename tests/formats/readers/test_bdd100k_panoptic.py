"""BDD100K's panoptic bitmasks: the real sample, attributes, the release's layout, unusable files.

The format: https://doc.bdd100k.com/format.html#bitmask; the names: bdd100k/label/label.py in
https://github.com/bdd100k/bdd100k.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.label_map_folders import all_annotations, ingest_both_layers, write_photograph
from PIL import Image

from synthgen.dataloading.tasks import panoptic
from synthgen.errors import SynthgenError
from synthgen.formats.readers import bdd100k_panoptic
from synthgen.formats.recognition import recognize_dataset
from synthgen.records.rle import decode_mask, encode_mask, rle_area
from synthgen.records.sample import Sample

Shared = Callable[[str], Path]

CAR, SKY = 35, 30


def write_bitmask(path: Path, pixels: Sequence[tuple[Any, tuple[int, int, int]]]) -> None:
    """A bitmask of 8 x 6 pixels: place -> (class, attributes, object)."""
    values = np.zeros((6, 8, 4), np.uint8)
    for place, (label, attributes, number) in pixels:
        values[place] = (label, attributes, number >> 8, number & 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def release(root: Path, pixels: Sequence[tuple[Any, tuple[int, int, int]]], split: str = "val") -> Path:
    """A release of one image; the path of its bitmask."""
    write_photograph(root / "images" / "10k" / split / "7d2f7975-e0c1c5a7.jpg")
    path = root / "labels" / "pan_seg" / "bitmasks" / split / "7d2f7975-e0c1c5a7.png"
    write_bitmask(path, pixels)
    return path


def ingest_split(root: Path, store: Path, split: str = "val") -> list[Sample]:
    return ingest_both_layers(store, bdd100k_panoptic, bdd100k_panoptic.files(root, split, None))


def test_the_segments_of_the_real_bitmask_are_those_of_the_releases_own_conversion(
    tmp_path: Path, shared: Shared
) -> None:
    folder = shared("data/formats/bdd100k-panoptic__bdd-tests")
    write_photograph(tmp_path / "images" / "10k" / "val" / "panseg_mask.jpg", (1280, 720))
    (tmp_path / "labels" / "pan_seg" / "bitmasks" / "val").mkdir(parents=True)
    shutil.copyfile(folder / "panseg_mask.png", tmp_path / "labels/pan_seg/bitmasks/val/panseg_mask.png")
    [sample] = ingest_split(tmp_path, tmp_path)
    theirs = json.loads((folder / "panseg_coco" / "panseg_coco.json").read_text())["segments_info"]
    names = bdd100k_panoptic.CATEGORY_NAMES
    assert [(a.category, rle_area(a.segmentation)) for a in sample.annotations if a.segmentation] == [
        (names[one["category_id"] - 1], one["area"]) for one in theirs
    ]
    assert len(theirs) == 14 and not any(a.iscrowd or a.flags for a in sample.annotations)
    assert [a.category for a in sample.annotations if a.isthing] == ["car", "car"]
    pixels = np.asarray(Image.open(folder / "panseg_mask.png")).astype(int)
    numbers = pixels[..., 2] * 256 + pixels[..., 3]
    for annotation, one in zip(sample.annotations, theirs, strict=True):
        assert annotation.segmentation == encode_mask(numbers == one["id"])


def test_the_names_are_those_of_the_documentation() -> None:
    names = bdd100k_panoptic.CATEGORY_NAMES
    assert len(names) == len(set(names)) == 40
    assert {names[i - 1]: i for i in (1, 7, 30, 31, 35, 40)} == {
        **{"dynamic": 1, "road": 7, "sky": 30, "person": 31},
        **{"car": 35, "truck": 40},
    }
    assert [i for i in range(1, 41) if i not in bdd100k_panoptic.STUFF_LABELS] == list(range(31, 41))


@pytest.mark.parametrize(
    ("attributes", "crowd", "flags"),
    [
        (0, False, ()),
        (0b1100, False, ()),  # truncated and occluded
        (0b0010, True, ("crowd",)),
        (0b0001, True, ("crowd", "ignored")),
        (0b0011, True, ("crowd", "ignored")),
    ],
)
def test_crowds_and_ignored_objects_are_marked(
    tmp_path: Path, attributes: int, crowd: bool, flags: tuple[str, ...]
) -> None:
    release(tmp_path, [(np.s_[1:3, 2:6], (CAR, attributes, 300)), (np.s_[4:, :], (SKY, 0, 30))])
    [sample] = ingest_split(tmp_path, tmp_path)
    sky, car = sample.annotations
    assert (car.category, car.iscrowd, car.flags, car.bbox) == ("car", crowd, flags, (2, 1, 4, 2))
    assert (sky.category, sky.isthing, sky.iscrowd, sky.bbox) == ("sky", False, False, (0, 4, 8, 2))
    assert sample.image_key == "bdd100k/7d2f7975-e0c1c5a7"


def test_objects_of_one_class_stay_apart_and_large_numbers_count(tmp_path: Path) -> None:
    release(tmp_path, [(np.s_[:, :3], (CAR, 0, 255)), (np.s_[:, 3:6], (CAR, 0, 256)), (np.s_[:, 6:], (CAR, 0, 65_535))])
    [sample] = ingest_split(tmp_path, tmp_path)
    assert [a.bbox for a in sample.annotations] == [(0, 0, 3, 6), (3, 0, 3, 6), (6, 0, 2, 6)]
    masks = [decode_mask(a.segmentation) for a in sample.annotations if a.segmentation]
    assert sum(mask.astype(int) for mask in masks).tolist() == [[1] * 8] * 6


def test_background_gives_no_object_and_an_unknown_class_a_flag(tmp_path: Path) -> None:
    release(tmp_path, [(np.s_[0], (0, 0, 5)), (np.s_[1], (CAR, 0, 0)), (np.s_[2], (41, 0, 9))])
    [sample] = ingest_split(tmp_path, tmp_path)
    assert [(a.category, a.flags, a.bbox) for a in sample.annotations] == [("", ("unknown_category",), (0, 2, 8, 1))]


@pytest.mark.parametrize("how", ["gone", "cut", "text", "RGB", "palette", "JPEG", "other size"])
def test_an_unusable_bitmask_is_an_error_of_its_image(tmp_path: Path, how: str) -> None:
    path = release(tmp_path, [(np.s_[:, :], (CAR, 0, 1))])
    write_photograph(tmp_path / "images" / "10k" / "val" / "b.jpg")
    write_bitmask(path.with_name("b.png"), [(np.s_[:, :], (SKY, 0, 30))])
    if how == "gone":
        path.unlink()
    elif how in ("cut", "text"):
        path.write_bytes(path.read_bytes()[:-30] if how == "cut" else b"<html>")
    elif how == "JPEG":
        Image.new("RGB", (8, 6)).save(path, "JPEG")
    else:
        mode = {"RGB": "RGB", "palette": "P"}.get(how, "RGBA")
        Image.new(mode, (9, 6) if how == "other size" else (8, 6)).save(path)
    first, second = ingest_split(tmp_path, tmp_path)
    assert first.error and first.annotations == () and str(tmp_path) not in first.error
    assert second.error is None and [a.category for a in second.annotations] == ["sky"]


def test_the_releases_folder_is_recognised_with_its_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        release(tmp_path / "bdd100k", [(np.s_[:, :], (CAR, 0, 1))], split)
    found = recognize_dataset(tmp_path / "bdd100k")
    assert (found.plugin, found.splits, found.is_release) == ("bdd100k_panoptic", ("train", "val"), True)
    assert len(all_annotations(ingest_split(tmp_path, tmp_path / "store", "train"))) == 1, "a folder above works, too"
    with pytest.raises(SynthgenError, match="no folders images/10k/test and labels/pan_seg/bitmasks/test"):
        bdd100k_panoptic.files(tmp_path, "test", None)


def test_two_folders_elsewhere(tmp_path: Path) -> None:
    path = release(tmp_path, [(np.s_[:, :], (CAR, 0, 1))])
    files = bdd100k_panoptic.files(tmp_path, "val", path.parent).with_image_folder(tmp_path / "images" / "10k" / "val")
    [sample] = ingest_both_layers(tmp_path, bdd100k_panoptic, files)
    assert [a.category for a in sample.annotations] == ["car"]
    with pytest.raises(SynthgenError, match="no folder; --annotations should name the folder of the bitmasks"):
        bdd100k_panoptic.files(tmp_path, "val", tmp_path / "nowhere")


def test_the_panoptic_task_ignores_what_the_benchmark_leaves_out(tmp_path: Path) -> None:
    release(tmp_path, [(np.s_[:2], (SKY, 0, 30)), (np.s_[2:4], (CAR, 0, 31)), (np.s_[4:5], (CAR, 0b0001, 32))])
    [sample] = ingest_split(tmp_path, tmp_path)
    target = panoptic.target(sample, ("car", "sky"), random.Random(1))
    assert target is not None and target.ignore is not None
    assert [target.texts[label] for label in target.labels.tolist()] == ["car", "sky"]
    assert decode_mask(target.ignore)[:, 0].tolist() == [0, 0, 0, 0, 1, 0]
