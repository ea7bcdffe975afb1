"""Semantic folders: CamVid, VOC, Cityscapes, label names in every form, unusable label maps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.label_map_folders import (
    all_annotations,
    filled_labels,
    ingest_both_layers,
    write_label_map,
    write_photograph,
)
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import (
    semantic_folder,
)
from synthgen.formats.readers._label_names import cityscapes_labels
from synthgen.records.rle import encode_mask

Shared = Callable[[str], Path]


def test_keys_of_label_maps_have_the_folder_in_them(tmp_path: Path) -> None:
    (tmp_path / "class_names.txt").write_text("void\nroad\n")
    for split in ("train", "val"):
        write_photograph(tmp_path / "images" / split / "1.jpg")
        write_label_map(tmp_path / "labels" / split / "1.png", filled_labels(255))
        [sample] = ingest_both_layers(tmp_path / split, semantic_folder, semantic_folder.files(tmp_path, split, None))
        assert (sample.image_key, sample.file_name) == (f"given/images/{split}/1.jpg", "1.jpg")


def test_camvid(tmp_path: Path, shared: Shared) -> None:
    files = semantic_folder.files(shared("data/camvid"), "train", None)
    samples = ingest_both_layers(tmp_path, semantic_folder, files)
    assert len(samples) == 74 and all(s.error is None for s in samples)
    names = json.loads((shared("data/camvid") / "class_names.json").read_text())
    counts: Counter[str] = Counter()
    for sample in samples:
        theirs = np.asarray(Image.open(files.sources["labels"] / sample.file_name))
        counts.update(names[label] for label in np.unique(theirs))
        for annotation in sample.annotations:
            assert annotation.segmentation == encode_mask(theirs == names.index(annotation.category))
    assert counts.pop("Unlabelled") == 74
    assert Counter(a.category for a in all_annotations(samples)) == counts
    assert counts.total() == 713 and len(counts) == 11
    with pytest.raises(SynthgenError, match="no photographs with label maps of 'val'"):
        semantic_folder.files(shared("data/camvid"), "val", None)


def test_voc_sample(tmp_path: Path, shared: Shared) -> None:
    root = shared("data/voc_labelme_sample")
    files = semantic_folder.files(root, "train", None)
    elsewhere = semantic_folder.files(tmp_path, "train", root / "SegmentationClass")
    assert elsewhere == replace(files, image_key_prefix=f"{root.name}/{files.image_key_prefix}")
    samples = ingest_both_layers(tmp_path, semantic_folder, files)
    assert [sorted(a.category for a in s.annotations) for s in samples] == [
        ["bottle", "person"], ["chair", "person", "sofa"], ["bus", "car"]
    ]  # fmt: skip
    coco = json.loads((root / "coco_annotations.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    used = {names[a["category_id"]] for a in coco["annotations"]}
    assert {a.category for a in all_annotations(samples)} == used


def test_voc_as_it_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    for name in ("a", "b", "c", "d"):
        write_photograph(root / "JPEGImages" / f"{name}.jpg")
    for name in ("a", "b"):
        write_label_map(root / "SegmentationClass" / f"{name}.png", [[0] * 8] * 2 + [[15] * 8] * 2 + [[255] * 8] * 2)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\n")
    (lists / "val.txt").write_text("a\nc\n../../../etc/passwd\n")
    [b] = ingest_both_layers(tmp_path / "1", semantic_folder, semantic_folder.files(root, "train", None))
    assert (b.file_name, [(a.category, a.bbox) for a in b.annotations]) == ("b.jpg", [("person", (0, 2, 8, 2))])
    errors = {
        s.file_name: s.error
        for s in ingest_both_layers(tmp_path / "2", semantic_folder, semantic_folder.files(root, "val", None))
    }
    assert errors.pop("a.jpg") is None
    assert set(errors) == {"c.jpg", "../../../etc/passwd"} and all(errors.values())


def test_cityscapes_as_it_unpacks(tmp_path: Path) -> None:
    stem = "aachen_000000_000019"
    write_photograph(tmp_path / "leftImg8bit" / "train" / "aachen" / f"{stem}_leftImg8bit.png")
    maps = tmp_path / "gtFine" / "train" / "aachen"
    write_label_map(maps / f"{stem}_gtFine_labelIds.png", [[0] * 8, [4] * 8, [7] * 8, [9] * 8, [26] * 8, [33] * 8])
    write_label_map(maps / f"{stem}_gtFine_instanceIds.png", [[26001] * 8] * 6, np.uint16)
    write_photograph(maps / f"{stem}_gtFine_color.png")
    [sample] = ingest_both_layers(tmp_path / "1", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert sample.file_name == f"aachen/{stem}_leftImg8bit.png"
    assert [(a.category, a.isthing) for a in sample.annotations] == [
        ("road", False), ("parking", False), ("car", True), ("bicycle", True)
    ]  # fmt: skip
    (maps / f"{stem}_gtFine_labelIds.png").unlink()
    write_label_map(
        maps / f"{stem}_gtFine_labelTrainIds.png", [[0] * 8, [255] * 8, [13] * 8, [18] * 8, [18] * 8, [255] * 8]
    )
    [sample] = ingest_both_layers(tmp_path / "2", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert [a.category for a in sample.annotations] == ["road", "car", "bicycle"]
    assert len(cityscapes_labels(train_ids=True).categories.names) == 19


def test_labels_that_nobody_names_are_refused(tmp_path: Path) -> None:
    write_photograph(tmp_path / "images" / "train" / "a.jpg")
    write_label_map(tmp_path / "labels" / "train" / "a.png", filled_labels(1))
    with pytest.raises(
        SynthgenError, match=r"nothing says what the labels in .* mean; lay a file class_names.json there"
    ):
        list(semantic_folder.read(semantic_folder.files(tmp_path, "train", None), "annotations"))
    (tmp_path / "class_names.json").write_text('["a", "b"]')
    [sample] = ingest_both_layers(tmp_path, semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert [(a.category, a.isthing) for a in sample.annotations] == [("b", False)]


def test_label_maps_in_colour_need_colours(tmp_path: Path) -> None:
    write_photograph(tmp_path / "train" / "a.png")
    red_over_blue = np.array([[[255, 0, 0]] * 8] * 2 + [[[0, 0, 255]] * 8] * 3 + [[[1, 1, 1]] * 8], np.uint8)
    write_label_map(tmp_path / "trainannot" / "a.png", red_over_blue)
    (tmp_path / "class_names.txt").write_text("road\nsky\n")
    [sample] = ingest_both_layers(tmp_path / "1", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert sample.error == ("its mask or label map has colours (mode RGB), and a label map has one number a pixel")
    (tmp_path / "class_names.txt").write_text("255 0 0 road\n0 0 255 sky\n")
    [sample] = ingest_both_layers(tmp_path / "2", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    found = {a.category: (a.bbox, a.flags) for a in sample.annotations}
    assert found == {
        "road": ((0, 0, 8, 2), ()), "sky": ((0, 2, 8, 3), ()), "": ((0, 5, 8, 1), ("unknown_category",))
    }  # fmt: skip


def test_a_photograph_as_label_map_is_the_rows_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_photograph(tmp_path / "train" / "a.png", (80, 80))
    write_label_map(tmp_path / "trainannot" / "a.png", rng.integers(0, 2**16, (80, 80)), np.uint16)
    (tmp_path / "class_names.txt").write_text("road\n")
    [sample] = ingest_both_layers(tmp_path, semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert sample.error is not None and "labels, more than the limit of 4,096: is it a photograph?" in sample.error
