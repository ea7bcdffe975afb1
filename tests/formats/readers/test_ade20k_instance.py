"""ADE20K's instance maps: the 100 classes, objects, the release's layout, unusable files.

The files are drawn as Mask2Former's preparation reads them: red is the class, green the number of the object
(https://github.com/facebookresearch/Mask2Former/blob/main/datasets/prepare_ade20k_ins_seg.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.label_map_folders import ingest_both_layers, write_instance_map, write_label_map, write_photograph
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import ade20k, ade20k_instance
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS
from synthgen.formats.readers._ade20k_instances import LABEL_OF_CLASS
from synthgen.formats.recognition import recognize_as
from synthgen.records.sample import Sample

BED, CHAIR = 1, 8  # of the 100 classes


def release(root: Path, pixels: Sequence[tuple[Any, tuple[int, int]]], name: str = "ADE_val_00000012") -> Path:
    """A release of one image; the path of its instance map."""
    write_photograph(root / "images" / "validation" / f"{name}.jpg")
    path = root / "annotations_instance" / "validation" / f"{name}.png"
    write_instance_map(path, pixels)
    return path


def ingest_validation(root: Path, store: Path) -> list[Sample]:
    return ingest_both_layers(store, ade20k_instance, ade20k_instance.files(root, "validation", None))


def test_the_classes_are_those_of_the_published_table() -> None:
    """Some lines of Mask2Former's datasets/ade20k_instance_catid_mapping.txt."""
    table = {1: 8, 2: 9, 3: 11, 4: 13, 9: 21, 18: 36, 30: 51, 50: 81, 57: 89, 65: 103, 75: 119, 93: 140, 100: 150}
    assert {number: int(LABEL_OF_CLASS[number]) for number in table} == table
    assert len(LABEL_OF_CLASS) == 101 and not STUFF_LABELS.intersection(LABEL_OF_CLASS.tolist())
    assert [CATEGORY_NAMES[LABEL_OF_CLASS[one] - 1] for one in (BED, CHAIR, 100)] == ["bed", "chair", "flag"]


def test_each_object_is_an_annotation_of_its_own(tmp_path: Path) -> None:
    release(tmp_path, [(np.s_[:, :2], (CHAIR, 1)), (np.s_[:, 2:5], (CHAIR, 2)), (np.s_[:3, 5:], (BED, 255))])
    [sample] = ingest_validation(tmp_path, tmp_path)
    assert [(a.category, a.bbox, a.isthing, a.flags) for a in sample.annotations] == [
        ("bed", (5, 0, 3, 3), True, ()),
        ("chair", (0, 0, 2, 6), True, ()),
        ("chair", (2, 0, 3, 6), True, ()),
    ]
    assert (sample.image_id, sample.image_key) == (12, "ade20k/ADE_val_00000012")


def test_the_images_and_names_are_those_of_the_semantic_task(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    release(root, [(np.s_[:, :], (BED, 1))])
    write_label_map(root / "annotations" / "validation" / "ADE_val_00000012.png", [[8] * 8] * 6)
    [thing] = ingest_validation(tmp_path, tmp_path / "instance")
    [region] = ingest_both_layers(tmp_path / "semantic", ade20k, ade20k.files(tmp_path, "validation", None))
    assert (thing.image_id, thing.image_key, thing.file_name) == (region.image_id, region.image_key, region.file_name)
    assert [(a.category, a.segmentation) for a in thing.annotations] == [
        (a.category, a.segmentation) for a in region.annotations
    ]


def test_pixels_without_an_object_give_none_and_an_unknown_class_a_flag(tmp_path: Path) -> None:
    release(tmp_path, [(np.s_[0], (BED, 0)), (np.s_[1], (101, 3))])
    release(tmp_path, [], "ADE_val_00000013")
    with_unknown, empty = ingest_validation(tmp_path, tmp_path)
    assert [(a.category, a.flags, a.bbox) for a in with_unknown.annotations] == [
        ("", ("unknown_category",), (0, 1, 8, 1))
    ]
    assert empty.annotations == () and empty.error is None


@pytest.mark.parametrize("how", ["gone", "cut", "JPEG", "other size"])
def test_an_unusable_map_is_an_error_of_its_image(tmp_path: Path, how: str) -> None:
    path = release(tmp_path, [(np.s_[:, :], (BED, 1))])
    release(tmp_path, [(np.s_[:, :], (BED, 1))], "ADE_val_00000013")
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        Image.new("RGB", (9, 6) if how == "other size" else (8, 6)).save(path, "PNG" if how == "other size" else "JPEG")
    first, second = ingest_validation(tmp_path, tmp_path)
    assert first.error and first.annotations == () and len(second.annotations) == 1


def test_the_release_is_recognised_and_found_beside_the_readers_own_folder(tmp_path: Path) -> None:
    release(tmp_path / "ade20k" / "ADEChallengeData2016", [(np.s_[:, :], (BED, 1))])
    found = recognize_as("ade20k_instance", tmp_path / "ade20k")
    assert found is not None and found.splits == ("validation",) and found.is_release
    assert recognize_as("ade20k_instance", tmp_path) is None, "the folders of others are not its own"
    files = ade20k_instance.files(tmp_path / "ade20k_instance", "validation", None)
    assert files.image_folder == tmp_path / "ade20k" / "ADEChallengeData2016" / "images" / "validation"
    with pytest.raises(
        SynthgenError, match=r"no folders images/training and annotations_instance/training in .*unpack"
    ):
        ade20k_instance.files(tmp_path / "ade20k", "training", None)


def test_a_folder_of_maps_elsewhere(tmp_path: Path) -> None:
    path = release(tmp_path, [(np.s_[:, :], (BED, 1))])
    files = ade20k_instance.files(tmp_path / "x", "training", path.parent)
    assert files.image_folder == tmp_path / "images" / "validation"
    assert len(ingest_both_layers(tmp_path, ade20k_instance, files)[0].annotations) == 1
    with pytest.raises(SynthgenError, match="no folder; --annotations should name ADE20K's instance maps"):
        ade20k_instance.files(tmp_path, "training", tmp_path / "nowhere")
