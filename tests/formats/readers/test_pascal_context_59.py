"""PASCAL Context with 59 classes: maps of mmsegmentation, ODISE, SAN and CAT-Seg, and the release's MATLAB files.

The layouts and the classes (CAT-Seg and SAN: see `_pascal_context`):
https://github.com/open-mmlab/mmsegmentation/blob/main/tools/dataset_converters/pascal_context.py and
https://github.com/NVlabs/ODISE/blob/main/datasets/prepare_pascal_ctx_sem_seg.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from fakes.label_map_folders import ingest_both_layers, write_label_map, write_photograph

from synthgen.errors import SynthgenError
from synthgen.formats.readers import pascal_context_59
from synthgen.formats.readers._pascal_context import CONTEXT_59_NAMES, CONTEXT_459_NAMES
from synthgen.formats.recognition import recognize_dataset
from synthgen.records.sample import Sample

AEROPLANE, TABLE, WOOD = 1, 50, 59


def ingest_split(root: Path, store: Path, split: str = "val") -> list[Sample]:
    return ingest_both_layers(store, pascal_context_59, pascal_context_59.files(root, split, None))


def test_the_names_are_those_of_mmsegmentation() -> None:
    """Alphabetical, as the classes are in the order of the 459; ODISE calls class 50 "diningtable"."""
    some = {1: "aeroplane", 2: "bag", 37: "person", 40: "pottedplant", 48: "snow", 49: "sofa", 50: "table", 59: "wood"}
    assert {number: CONTEXT_59_NAMES[number - 1] for number in some} == some
    assert len(CONTEXT_59_NAMES) == 59 and list(CONTEXT_59_NAMES) == sorted(CONTEXT_59_NAMES)


def test_mmsegmentations_maps_count_from_one(tmp_path: Path) -> None:
    for name in ("2008_000002", "2008_000003"):
        write_photograph(tmp_path / "JPEGImages" / f"{name}.jpg")
        values = [[0] * 2 + [AEROPLANE] * 3 + [WOOD] * 3] * 6
        write_label_map(tmp_path / "SegmentationClassContext" / f"{name}.png", values)
    lists = tmp_path / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    for split, name in (("train", "2008_000002"), ("val", "2008_000003")):
        (lists / f"{split}.txt").write_text(f"{name}\n")
    assert recognize_dataset(tmp_path).plugin == "pascal_context_59"
    for split, number in (("train", 2008000002), ("val", 2008000003)):
        [sample] = ingest_split(tmp_path, tmp_path / split, split)
        assert sample.image_id == number
        assert [(a.category, a.bbox, a.isthing) for a in sample.annotations] == [
            ("aeroplane", (2, 0, 3, 6), False),
            ("wood", (5, 0, 3, 6), False),
        ]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("VOC2010/JPEGImages", "VOC2010/annotations_detectron2/pc59_val"),
        ("pascal_ctx_d2/images/validation", "pascal_ctx_d2/annotations_ctx59/validation"),
        ("pcontext/val/image", "pcontext/val/label"),
    ],
)
def test_other_prepared_maps_count_from_zero(tmp_path: Path, images: str, labels: str) -> None:
    for name in ("2008_000002", "2008_000003"):
        write_photograph(tmp_path / images / f"{name}.jpg")
    write_label_map(tmp_path / labels / "2008_000003.png", [[TABLE - 1] * 4 + [255] * 4] * 6)
    [sample] = ingest_split(tmp_path, tmp_path)
    assert [(a.category, a.bbox) for a in sample.annotations] == [("table", (0, 0, 4, 6))]
    with pytest.raises(SynthgenError, match="no label maps of 'train'"):
        pascal_context_59.files(tmp_path, "train", None)


def test_the_matlab_files_give_each_of_the_59_its_own_pixels_and_no_other(tmp_path: Path) -> None:
    write_photograph(tmp_path / "VOC2010" / "JPEGImages" / "2008_000002.jpg", (23, 20))
    (tmp_path / "VOC2010" / "pascalcontext_val.txt").write_text("2008_000002\n")
    (tmp_path / "VOC2010" / "trainval").mkdir()
    labels = np.arange(460, dtype=np.uint16).reshape(20, 23)
    scipy.io.savemat(tmp_path / "VOC2010" / "trainval" / "2008_000002.mat", {"LabelMap": labels})
    [sample] = ingest_split(tmp_path, tmp_path)
    assert [a.category for a in sample.annotations] == list(CONTEXT_59_NAMES)
    for annotation in sample.annotations:
        number = CONTEXT_459_NAMES.index(annotation.category) + 1
        assert annotation.bbox == (number % 23, number // 23, 1, 1)


def test_maps_that_may_have_ovsegs_order_are_not_taken_for_those_of_cat_seg(tmp_path: Path) -> None:
    """OVSeg writes its maps into CAT-Seg's folder, with the classes in the order of the release's 59_labels.txt

    (datasets/prepare_pascal_context.py in https://github.com/facebookresearch/ov-seg).
    """
    write_photograph(tmp_path / "JPEGImages" / "2008_000002.jpg")
    write_label_map(tmp_path / "annotations_detectron2" / "pc59_val" / "2008_000002.png", [[7] * 8] * 6)
    (tmp_path / "59_labels.txt").write_text("1: aeroplane\n")
    with pytest.raises(SynthgenError, match=r"pc59_val may be of OVSeg, which counts the classes as .*59_labels\.txt"):
        pascal_context_59.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="may be of OVSeg"):
        pascal_context_59.files(tmp_path, "val", tmp_path / "annotations_detectron2" / "pc59_val")
    (tmp_path / "trainval").mkdir()
    scipy.io.savemat(tmp_path / "trainval" / "2008_000002.mat", {"LabelMap": np.full((6, 8), 2, np.uint16)})
    (tmp_path / "pascalcontext_val.txt").write_text("2008_000002\n")
    [sample] = ingest_split(tmp_path, tmp_path)
    assert [a.category for a in sample.annotations] == ["aeroplane"]


def test_mmsegmentations_maps_precede_the_matlab_files(tmp_path: Path) -> None:
    write_photograph(tmp_path / "JPEGImages" / "2008_000002.jpg")
    (tmp_path / "pascalcontext_val.txt").write_text("2008_000002\n")
    (tmp_path / "trainval").mkdir()
    scipy.io.savemat(tmp_path / "trainval" / "2008_000002.mat", {"LabelMap": np.full((6, 8), 2, np.uint16)})
    assert pascal_context_59.files(tmp_path, "val", None).sources["labels"].name == "trainval"
    write_label_map(tmp_path / "SegmentationClassContext" / "2008_000002.png", [[WOOD] * 8] * 6)
    assert pascal_context_59.files(tmp_path, "val", None).sources["labels"].name == "SegmentationClassContext"
    chosen = pascal_context_59.files(tmp_path, "val", tmp_path / "trainval")
    [sample] = ingest_both_layers(tmp_path, pascal_context_59, chosen)
    assert [a.category for a in sample.annotations] == ["aeroplane"], "--annotations chooses"


def test_a_number_that_tells_of_the_other_convention_is_an_error_of_its_image(tmp_path: Path) -> None:
    """Maps of mmsegmentation in a folder for maps that count from 0: background would be aeroplane."""
    labels = tmp_path / "annotations_detectron2" / "pc59_val"
    for name, values in (("2008_000002", [0, AEROPLANE, WOOD, 255]), ("2008_000003", [0, AEROPLANE, WOOD - 1, 255])):
        write_photograph(tmp_path / "JPEGImages" / f"{name}.jpg")
        write_label_map(labels / f"{name}.png", [values * 2] * 6)
    first, second = ingest_split(tmp_path, tmp_path)
    assert first.annotations == () and first.error is not None
    assert "has the number 59, but maps of its folder count 59 classes from 0; if these count from 1" in first.error
    assert [a.category for a in second.annotations] == ["aeroplane", "bag", "wood"]


@pytest.mark.parametrize("folder", ["maps", "annotations_detectron2/pc59_train"])
def test_a_folder_whose_name_does_not_tell_the_convention_is_refused(tmp_path: Path, folder: str) -> None:
    write_label_map(tmp_path / folder / "2008_000002.png", [[0] * 8] * 6)
    with pytest.raises(
        SynthgenError, match=r"does not tell how .* 'val' count .* from 0.*pc59_val; .* from 1, with 0 for"
    ):
        pascal_context_59.files(tmp_path, "val", tmp_path / folder)


@pytest.mark.parametrize("folder", ["SegmentationClassContext", "trainval"])
def test_a_folder_of_all_splits_elsewhere_needs_a_list(tmp_path: Path, folder: str) -> None:
    labels = tmp_path / "labels" / folder
    for name in ("2008_000002", "2008_000003"):
        write_photograph(tmp_path / "photos" / f"{name}.jpg")
        write_label_map(labels / f"{name}.png", [[AEROPLANE] * 8] * 6)
        if folder == "trainval":
            scipy.io.savemat(labels / f"{name}.mat", {"LabelMap": np.full((6, 8), 2, np.uint16)})
    with pytest.raises(
        SynthgenError, match=r"holds the label maps of all splits.*ImageSets/SegmentationContext/val\.txt"
    ):
        pascal_context_59.files(tmp_path, "val", labels)
    (tmp_path / "pascalcontext_val.txt").write_text("2008_000003\n")
    files = pascal_context_59.files(tmp_path, "val", labels).with_image_folder(tmp_path / "photos")
    [sample] = ingest_both_layers(tmp_path, pascal_context_59, files)
    assert (sample.image_id, [a.category for a in sample.annotations]) == (2008000003, ["aeroplane"])


def test_an_empty_folder_of_label_maps_is_not_recognised_and_boxes_beside_maps_are_a_choice(tmp_path: Path) -> None:
    write_photograph(tmp_path / "JPEGImages" / "2008_000002.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "2008_000002.xml").write_text(
        "<annotation><filename>2008_000002.jpg</filename><object><name>dog</name></object></annotation>"
    )
    for name in ("SegmentationContext", "Main"):
        (tmp_path / "ImageSets" / name).mkdir(parents=True)
        (tmp_path / "ImageSets" / name / "val.txt").write_text("2008_000002\n")
    (tmp_path / "SegmentationClassContext").mkdir()
    assert recognize_dataset(tmp_path).plugin == "voc"
    write_label_map(tmp_path / "SegmentationClassContext" / "2008_000002.png", [[WOOD] * 8] * 6)
    with pytest.raises(
        SynthgenError, match=r"--dataset pascal-context-59\), .*--dataset voc\); choose one with --dataset"
    ):
        recognize_dataset(tmp_path)
