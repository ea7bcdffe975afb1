"""PASCAL Context with 459 classes: the release's MATLAB files, prepared TIFFs, lists of splits, unusable files.

The release: https://cs.stanford.edu/~roozbeh/pascal-context/. The names are those of its labels.txt, as in
https://github.com/NVlabs/ODISE/blob/main/odise/data/datasets/openseg_labels/pascal_context_459.txt. The layouts of
prepared maps: https://github.com/NVlabs/ODISE/blob/main/datasets/prepare_pascal_ctx_full_sem_seg.py and
https://github.com/cvlab-kaist/CAT-Seg/blob/main/datasets/prepare_pascal_context_459.py and
https://github.com/MendelXu/SAN/blob/main/datasets/prepare_pcontext_sem_seg_459cls.py
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from fakes.label_map_folders import all_annotations, ingest_both_layers, write_label_map, write_photograph

from synthgen.dataloading.tasks import semantic
from synthgen.errors import SynthgenError
from synthgen.formats.readers import pascal_context_59, pascal_context_459
from synthgen.formats.readers._pascal_context import CONTEXT_459_NAMES
from synthgen.formats.recognition import recognize_as
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Sample

NAMES = ("2008_000002", "2008_000003", "2010_000001")
ACCORDION, AEROPLANE, BAG, WOOL = 1, 2, 9, 459


def write_mat(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"LabelMap": np.asarray(values, np.uint16)}, do_compression=True)


def voc2010(root: Path, *lists: tuple[str, str]) -> Path:
    """The photographs of VOC2010, and lists (file, names)."""
    folder = root / "VOCdevkit" / "VOC2010"
    for name in NAMES:
        write_photograph(folder / "JPEGImages" / f"{name}.jpg")
    for name, content in lists:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def ingest_split(root: Path, store: Path, split: str = "val") -> list[Sample]:
    return ingest_both_layers(store, pascal_context_459, pascal_context_459.files(root, split, None))


def test_the_names_are_those_of_the_releases_list() -> None:
    some = {1: "accordion", 2: "aeroplane", 63: "casette recorder", 208: "horse-drawn carriage", 284: "person"}
    some |= {397: "table", 431: "unknown", 459: "wool"}
    assert {number: CONTEXT_459_NAMES[number - 1] for number in some} == some
    assert len(CONTEXT_459_NAMES) == len(set(CONTEXT_459_NAMES)) == 459


def test_the_releases_matlab_files(tmp_path: Path) -> None:
    folder = voc2010(tmp_path, ("ImageSets/Main/val.txt", "2008_000002\n2010_000001\n"))
    rows = [[AEROPLANE] * 3 + [0] * 3 + [WOOL] * 2] * 5 + [[ACCORDION] * 8]
    for name in ("2008_000002", "2010_000001"):
        write_mat(folder / "trainval" / f"{name}.mat", rows)
    write_mat(folder / "trainval" / "2008_000003.mat", [[BAG] * 8] * 6)  # of another split
    samples = ingest_split(tmp_path, tmp_path)
    assert [(s.image_id, s.image_key, s.error) for s in samples] == [
        (2008000002, "pascal_voc/2008_000002", None),
        (2010000001, "pascal_voc/2010_000001", None),
    ]
    assert [(a.category, a.bbox, a.isthing, a.flags) for a in samples[0].annotations] == [
        ("accordion", (0, 5, 8, 1), False, ()),
        ("aeroplane", (0, 0, 3, 5), False, ()),
        ("wool", (6, 0, 2, 5), False, ()),
    ]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2010/annotations_detectron2/pc459_val"),
        ("pascal_ctx_d2/images/validation", "pascal_ctx_d2/annotations_ctx459/validation"),
        ("pcontext_full/val/image", "pcontext_full/val/label"),
    ],
)
def test_prepared_maps_count_from_zero(tmp_path: Path, images: str, labels: str) -> None:
    for name in ("2008_000002", "2008_000003"):
        write_photograph(tmp_path / images / f"{name}.jpg")
    values = [[AEROPLANE - 1] * 4 + [65_535] * 2 + [255] * 2] * 6
    write_label_map(tmp_path / labels / "2008_000003.tif", values, np.uint16)
    [sample] = ingest_split(tmp_path, tmp_path)
    assert sample.file_name == "2008_000003.jpg", "most photographs of VOC have no label map"
    assert [(a.category, a.bbox) for a in sample.annotations] == [
        ("aeroplane", (0, 0, 4, 6)),
        (CONTEXT_459_NAMES[255], (6, 0, 2, 6)),
    ]


def test_a_number_beyond_the_names_is_an_unknown_category(tmp_path: Path) -> None:
    folder = voc2010(tmp_path, ("pascalcontext_val.txt", "2008_000002"))
    write_mat(folder / "trainval" / "2008_000002.mat", [[460] * 8] * 6)
    [annotation] = all_annotations(ingest_split(tmp_path, tmp_path))
    assert (annotation.category, annotation.flags) == ("", ("unknown_category",))


@pytest.mark.parametrize("how", ["gone", "cut", "text", "other size", "no photograph"])
def test_an_image_without_a_usable_map_is_an_error(tmp_path: Path, how: str) -> None:
    folder = voc2010(tmp_path, ("pascalcontext_val.txt", "2008_000002\n2008_000003\n"))
    path = folder / "trainval" / "2008_000002.mat"
    for name in ("2008_000002", "2008_000003"):
        write_mat(path.with_stem(name), [[BAG] * (9 if how == "other size" and name == path.stem else 8)] * 6)
    if how == "gone":
        path.unlink()
    elif how == "no photograph":
        (folder / "JPEGImages" / "2008_000002.jpg").unlink()
    elif how in ("cut", "text"):
        path.write_bytes(path.read_bytes()[:-30] if how == "cut" else b"<html>")
    first, second = ingest_split(tmp_path, tmp_path)
    assert first.error and first.annotations == () and str(tmp_path) not in first.error
    assert second.error is None and [a.category for a in second.annotations] == ["bag"]


def test_both_benchmarks_recognise_the_release_and_share_ids_and_keys(tmp_path: Path) -> None:
    lists = [
        (f"ImageSets/SegmentationContext/{split}.txt", name)
        for split, name in zip(("train", "val"), NAMES[:2], strict=True)
    ]
    folder = voc2010(tmp_path, *lists)
    for name in NAMES:
        write_mat(folder / "trainval" / f"{name}.mat", [[BAG] * 4 + [ACCORDION] * 4] * 6)
    found = recognize_as("pascal_context_459", tmp_path)
    assert found is not None and (found.splits, found.is_release) == (("train", "val"), True)
    assert recognize_as("pascal_context_59", folder) is not None
    [of_459] = ingest_split(tmp_path, tmp_path / "459")
    [of_59] = ingest_both_layers(tmp_path / "59", pascal_context_59, pascal_context_59.files(tmp_path, "val", None))
    assert (of_459.image_id, of_459.image_key) == (of_59.image_id, of_59.image_key)
    assert ([a.category for a in of_459.annotations], [a.category for a in of_59.annotations]) == (
        ["accordion", "bag"],
        ["bag"],
    )


def test_a_folder_of_maps_elsewhere_is_read_by_its_suffix(tmp_path: Path) -> None:
    folder = voc2010(tmp_path)
    write_mat(tmp_path / "maps" / "2008_000003.mat", [[BAG] * 8] * 6)
    write_mat(tmp_path / "maps" / "2008_000002.mat", [[AEROPLANE] * 8] * 6)  # of another split
    with pytest.raises(
        SynthgenError, match=r"maps holds the label maps of all splits, .* no list of 'val'; put one of Im"
    ):
        pascal_context_459.files(tmp_path, "val", tmp_path / "maps")
    (tmp_path / "pascalcontext_val.txt").write_text("2008_000003\n")
    files = pascal_context_459.files(tmp_path, "val", tmp_path / "maps").with_image_folder(folder / "JPEGImages")
    [sample] = ingest_both_layers(tmp_path, pascal_context_459, files)
    assert [a.category for a in sample.annotations] == ["bag"]


def test_without_a_list_of_the_split_the_error_names_the_lists(tmp_path: Path) -> None:
    folder = voc2010(tmp_path)
    write_mat(folder / "trainval" / "2008_000003.mat", [[BAG] * 8] * 6)
    with pytest.raises(
        SynthgenError, match=r"no label maps of 'val' .*one of the lists ImageSets/SegmentationContext/val"
    ):
        pascal_context_459.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="no folder; --annotations should name the folder of the label maps"):
        pascal_context_459.files(tmp_path, "val", tmp_path / "nowhere")


def test_the_semantic_task_ignores_pixels_without_a_class(tmp_path: Path) -> None:
    folder = voc2010(tmp_path, ("pascalcontext_val.txt", "2008_000002"))
    write_mat(folder / "trainval" / "2008_000002.mat", [[BAG] * 8] * 4 + [[0] * 8] * 2)
    [sample] = ingest_split(tmp_path, tmp_path)
    target = semantic.target(sample, CONTEXT_459_NAMES, random.Random(1))
    assert target is not None and target.ignore is not None
    assert [target.texts[label] for label in target.labels.tolist()] == ["bag"]
    assert decode_mask(target.ignore)[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
