"""ADE20K panoptic: both maps are joined as the published preparation does it; missing and unusable maps.

The preparation: https://github.com/facebookresearch/Mask2Former/blob/main/datasets/prepare_ade20k_pan_seg.py
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.label_map_folders import ingest_both_layers, write_instance_map, write_label_map, write_photograph
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import ade20k_panoptic
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS
from synthgen.formats.readers._ade20k_instances import LABEL_OF_CLASS
from synthgen.formats.recognition import recognize_dataset
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Sample

Shared = Callable[[str], Path]

WALL, SKY, BED_LABEL = 1, 3, 8  # of SceneParse150
BED, CHAIR = 1, 8  # of the 100 classes
NAME = "ADE_val_00000012"


def release(
    root: Path, labels: object, objects: Sequence[tuple[Any, tuple[int, int]]], name: str = NAME
) -> tuple[Path, Path]:
    """A release of one image; the paths of its label map and instance map."""
    write_photograph(root / "images" / "validation" / f"{name}.jpg")
    label_map, instance_map = (
        root / one / "validation" / f"{name}.png" for one in ("annotations", "annotations_instance")
    )
    write_label_map(label_map, labels)
    write_instance_map(instance_map, objects)
    return label_map, instance_map


def ingest_validation(root: Path, store: Path) -> list[Sample]:
    return ingest_both_layers(store, ade20k_panoptic, ade20k_panoptic.files(root, "validation", None))


def prepare(labels: np.ndarray, instances: np.ndarray) -> list[tuple[str, list[list[bool]]]]:
    """The segments of the published preparation: stuff first, things over it; sorted."""
    segment = np.zeros(labels.shape, int)
    found = {}
    for label in np.unique(labels).tolist():
        if label in STUFF_LABELS:
            found[len(found) + 1] = CATEGORY_NAMES[label - 1]
            segment[labels == label] = len(found)
    for number in np.unique(instances[..., 1]).tolist():
        if number:
            mask = instances[..., 1] == number
            [its] = np.unique(instances[..., 0][mask]).tolist()
            found[len(found) + 1] = CATEGORY_NAMES[LABEL_OF_CLASS[its] - 1]
            segment[mask] = len(found)
    return sorted((name, (segment == i).tolist()) for i, name in found.items() if (segment == i).any())


def segments(sample: Sample) -> list[tuple[str, list[list[bool]]]]:
    return sorted(
        (a.category, decode_mask(a.segmentation).astype(bool).tolist()) for a in sample.annotations if a.segmentation
    )


def test_things_lie_over_stuff_and_things_of_the_label_map_are_no_segments(tmp_path: Path) -> None:
    labels = [[WALL] * 4 + [SKY] * 2 + [BED_LABEL] * 2] * 6
    release(tmp_path, labels, [(np.s_[:2, :2], (BED, 1)), (np.s_[2:4, 4:7], (CHAIR, 2))])
    [sample] = ingest_validation(tmp_path, tmp_path)
    assert [(a.category, a.bbox, a.isthing) for a in sample.annotations] == [
        ("wall", (0, 0, 4, 6), False),
        ("sky", (4, 0, 2, 6), False),
        ("bed", (0, 0, 2, 2), True),
        ("chair", (4, 2, 3, 2), True),
    ]
    union = sum(decode_mask(a.segmentation).astype(int) for a in sample.annotations if a.segmentation)
    assert union.max() == 1 and union[:, 7].tolist() == [0] * 6 and union[:, 6].tolist() == [0, 0, 1, 1, 0, 0]
    assert (sample.image_id, sample.image_key) == (12, f"ade20k/{NAME}")


def test_the_segments_are_those_of_the_published_preparation(tmp_path: Path, shared: Shared) -> None:
    """Real label maps, and objects that are drawn over them."""
    rng = np.random.default_rng(7)
    source = shared("data/ade20k_sample") / "sceneparsing150"
    for path in sorted(source.rglob("ADE_val_*.png")):
        labels = np.asarray(Image.open(path))
        instances = np.zeros((*labels.shape, 3), np.uint8)
        for number in range(1, 6):
            y, x = (int(rng.integers(0, side - 60)) for side in labels.shape)
            instances[y : y + 60, x : x + 40] = (int(rng.integers(1, 101)), number, 0)
        write_photograph(tmp_path / "images" / "validation" / f"{path.stem}.jpg", labels.shape[::-1])
        for folder in ("annotations", "annotations_instance"):
            (tmp_path / folder / "validation").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / "annotations" / "validation" / path.name)
        Image.fromarray(instances).save(tmp_path / "annotations_instance" / "validation" / path.name)
    samples = ingest_validation(tmp_path, tmp_path)
    assert len(samples) == 3
    for sample in samples:
        pair = [
            tmp_path / one / "validation" / f"{Path(sample.file_name).stem}.png"
            for one in ("annotations", "annotations_instance")
        ]
        label_map, instance_map = (np.asarray(Image.open(path)) for path in pair)
        assert segments(sample) == prepare(label_map, instance_map)


def test_a_label_beyond_the_names_is_an_unknown_category(tmp_path: Path) -> None:
    release(tmp_path, [[151] * 8] * 6, [])
    [sample] = ingest_validation(tmp_path, tmp_path)
    assert [(a.category, a.flags) for a in sample.annotations] == [("", ("unknown_category",))]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("gone", "its mask or label map has no instance map of its name"),
        ("cut", "its mask or label map has an instance map that cannot be decoded"),
        ("other size", "its mask or label map is 8 x 6 pixels, its instance map 9 x 6"),
        ("no label map", "no mask or label map has this image's name"),
    ],
)
def test_an_image_without_both_maps_is_an_error(tmp_path: Path, how: str, why: str) -> None:
    label_map, instance_map = release(tmp_path, [[WALL] * 8] * 6, [(np.s_[:, :2], (BED, 1))])
    release(tmp_path, [[WALL] * 8] * 6, [], "ADE_val_00000013")
    if how == "gone":
        instance_map.unlink()
    elif how == "cut":
        instance_map.write_bytes(instance_map.read_bytes()[:-30])
    elif how == "other size":
        Image.new("RGB", (9, 6)).save(instance_map)
    else:
        label_map.unlink()
    first, second = ingest_validation(tmp_path, tmp_path)
    assert first.error and first.error.startswith(why) and first.annotations == ()
    assert second.error is None and len(second.annotations) == 1


def test_the_release_is_recognised_as_each_task_that_it_has_files_for(tmp_path: Path) -> None:
    release(tmp_path, [[WALL] * 8] * 6, [])
    with pytest.raises(SynthgenError) as why:
        recognize_dataset(tmp_path)
    assert all(f"--dataset {name})" in str(why.value) for name in ("ade20k", "ade20k-instance", "ade20k-panoptic"))
    shutil.rmtree(tmp_path / "annotations_instance")
    assert recognize_dataset(tmp_path).plugin == "ade20k"
    with pytest.raises(
        SynthgenError, match=r"no folders images/validation, annotations/validation and annotations_inst"
    ):
        ade20k_panoptic.files(tmp_path, "validation", None)


def test_a_folder_of_instance_maps_elsewhere_needs_the_label_maps_beside_it(tmp_path: Path) -> None:
    _, instance_map = release(tmp_path, [[WALL] * 8] * 6, [])
    assert ade20k_panoptic.files(tmp_path / "x", "validation", instance_map.parent).sources.keys() == {
        *("images", "instances", "labels")
    }
    shutil.rmtree(tmp_path / "annotations")
    with pytest.raises(SynthgenError, match=r"no folder .*annotations/validation; unpack ADEChallengeData2016.zip"):
        ade20k_panoptic.files(tmp_path / "x", "validation", instance_map.parent)
