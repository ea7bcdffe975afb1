"""The full ADE20K release: objects, parts, hidden masks, unreadable JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.label_map_folders import (
    all_annotations,
    filled_labels,
    ingest_both_layers,
    write_label_map,
    write_photograph,
)

from synthgen.formats.readers import (
    DatasetFiles,
    ade20k_full,
)
from synthgen.images.decode import load_rgb
from synthgen.records.rle import decode_mask

Shared = Callable[[str], Path]


def test_ade20k_full_excerpt(tmp_path: Path, shared: Shared) -> None:
    root = shared("data/ade20k_sample/full/ADE20K_2021_17_01")
    files = ade20k_full.files(root, "training", None)
    samples = ingest_both_layers(tmp_path, ade20k_full, files)
    assert [(s.image_id, s.image_key, len(s.annotations)) for s in samples] == [
        (16869, "ade20k/ADE_train_00016869", 70),
        (16900, "ade20k/ADE_train_00016900", 37),
        (16964, "ade20k/ADE_train_00016964", 32),
    ]
    everything = all_annotations(samples)
    assert len(everything) == 139 and all(a.segmentation for a in everything)
    assert Counter(flag for a in everything for flag in a.flags) == {"part": 30}
    names = Counter(a.category for a in samples[0].annotations)
    assert (names["car"], names["person"], names["traffic light"]) == (11, 9, 7)
    assert {a.category for a in everything if not a.isthing} >= {"sky", "road", "tree"}
    # What is seen of an object that is no part is, but for its rim, one colour of the release's map of the instances.
    colours = load_rgb(files.image_folder / "urban" / "street" / "ADE_train_00016964_seg.png")[..., 2]
    for annotation in samples[2].annotations:
        if "part" not in annotation.flags and annotation.segmentation is not None:
            mask = decode_mask(annotation.segmentation)
            own_colour = np.bincount(colours[mask]).argmax()
            assert (mask ^ (colours == own_colour)).sum() < 0.02 * mask.sum()


def full(folder: Path, objects: Any, *, size: tuple[int, int] = (8, 6), text: bytes | None = None) -> DatasetFiles:
    """A release of one photograph."""
    place = folder / "images" / "ADE" / "training" / "a" / "b"
    write_photograph(place / "ADE_train_00000007.jpg", size)
    content = json.dumps({"annotation": {"object": objects}}).encode() if text is None else text
    (place / "ADE_train_00000007.json").write_bytes(content)
    return ade20k_full.files(folder, "training", None)


def test_what_is_hidden_is_not_in_the_mask(tmp_path: Path) -> None:
    one = {"id": 4, "name": "cat, true cat", "parts": {"part_level": 0, "hasparts": []}, "instance_mask": "ADE/i.png"}
    files = full(tmp_path, one)  # as MATLAB writes a list of one
    write_label_map(files.image_folder / "a" / "b" / "ADE" / "i.png", [[0, 128, 255, 255, 0, 0, 0, 0]] * 6)
    [sample] = ingest_both_layers(tmp_path, ade20k_full, files)
    [cat] = sample.annotations
    assert (cat.id, cat.category, cat.bbox, cat.flags) == (4, "cat", (2, 0, 2, 6), ())


@pytest.mark.parametrize(
    "png", ["gone", "climbs", "absolute", "link", "truncated", "colour", "size", "hidden", "number"]
)
def test_an_object_without_a_usable_png_keeps_the_box_of_its_polygon(tmp_path: Path, png: str) -> None:
    name: Any = "i.png"
    if png in ("climbs", "absolute"):
        write_label_map(tmp_path / "secret.png", filled_labels(255))
        name = "../../../../../secret.png" if png == "climbs" else str(tmp_path / "secret.png")
    polygon = {"x": [1, 4, 4], "y": [2, 2, 5]}
    files = full(
        tmp_path, [{"id": 1, "name": "cat", "instance_mask": 5 if png == "number" else name, "polygon": polygon}]
    )
    path = files.image_folder / "a" / "b" / "i.png"
    if png == "truncated":
        write_label_map(path, np.random.default_rng(0).integers(0, 255, (600, 800)))
        path.write_bytes(path.read_bytes()[:2000])
    if png == "colour":
        write_photograph(path)
    if png in ("size", "hidden"):
        write_label_map(path, filled_labels(255, (9, 6)) if png == "size" else filled_labels(128))
    if png == "link":
        (tmp_path / "secret.txt").write_text("a secret")
        path.symlink_to(tmp_path / "secret.txt")
    [sample] = ingest_both_layers(tmp_path, ade20k_full, files)
    assert [(a.bbox, a.flags, a.segmentation) for a in sample.annotations] == [
        ((1, 2, 3, 3), ("bad_segmentation",), None)
    ]


def test_an_object_without_anything(tmp_path: Path) -> None:
    [sample] = ingest_both_layers(
        tmp_path, ade20k_full, full(tmp_path, [{}, {"id": "x", "name": 5, "parts": [], "polygon": {"x": [1]}}])
    )
    assert [a.id for a in sample.annotations] == [0, 1]
    for annotation in sample.annotations:
        assert {"bad_segmentation", "no_box", "degenerate", "unknown_category"} <= set(annotation.flags)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'{"annotation": {"object": 7}}', b"[" * 100_000, b'{"annotation": null}', b"\xff\xfe\x00"],
)
def test_a_json_that_cannot_be_read_is_the_rows_error(tmp_path: Path, text: bytes) -> None:
    [sample] = ingest_both_layers(tmp_path, ade20k_full, full(tmp_path, None, text=text))
    assert sample.error == "its JSON cannot be read as the release's"
    assert (sample.height, sample.width, sample.annotations) == (6, 8, ())


def test_a_photograph_without_a_json_and_one_in_latin_1(tmp_path: Path) -> None:
    files = full(tmp_path, None, text='{"annotation": {"object": [{"id": 1, "name": "caf\xe9"}]}}'.encode("latin-1"))
    write_photograph(files.image_folder / "a" / "b" / "ADE_train_00000008.jpg")
    first, second = ingest_both_layers(tmp_path, ade20k_full, files)
    assert first.annotations[0].category == "café"
    assert (second.error, second.image_id) == ("its JSON is not there", 8)
