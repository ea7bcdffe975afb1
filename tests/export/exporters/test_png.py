"""The exporter `png`: maps of objects, maps of categories that our reader reads, one file for each object."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.exporter_runs import (
    HOSTILE_NAMES,
    annotation,
    context,
    export,
    folder_bytes,
    human_samples,
    random_masks,
    rectangle,
    sample,
)
from fakes.label_map_folders import ingest_both_layers
from numpy.typing import NDArray
from PIL import Image

from synthgen.errors import ArgumentError, SynthgenError
from synthgen.export.exporters import png
from synthgen.formats.readers import semantic_folder
from synthgen.records.rle import decode_mask
from synthgen.records.rle_ops import rle_union
from synthgen.records.sample import Annotation, Caption


def pixels(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def texts(path: Path) -> dict[str, str]:
    with Image.open(path) as image:
        return {keyword: text for keyword, text in image.text.items() if keyword.startswith("synthgen:")}


def listed(path: Path) -> list[dict[str, Any]]:
    """The images of the list beside the masks."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["masks"]
    return found


def mask_of(one: Annotation) -> NDArray[np.bool_]:
    assert one.segmentation is not None
    return decode_mask(one.segmentation)


# --- instance ---------------------------------------------------------------------------------------------------------


def test_each_number_of_a_map_is_the_object_that_the_list_says(tmp_path: Path) -> None:
    drawn = [
        annotation(501, rectangle(1, 1, 5, 5), predicted_iou=0.5, captions=(Caption("a cat", "ofa"),)),
        annotation(502, rectangle(10, 10, 5, 5), "dog", 12, iscrowd=True, provenance="reviewed"),
    ]
    notes, written = export(png, context(tmp_path), [sample(7, *drawn, name="sub/a.jpg"), sample(8)])
    assert written == 2 and not notes.left_out and not notes.lines
    found = pixels(tmp_path / "instances" / "train" / "sub" / "a.png")
    assert found.dtype == np.uint16 and found.shape == (30, 40)
    first, second = listed(tmp_path / "instances" / "train.json")
    assert first["file_name"] == "images/train/sub/a.jpg" and (tmp_path / first["file_name"]).is_file()
    assert first["map"] == "instances/train/sub/a.png" and first["id"] == 7 and second["objects"] == []
    assert not pixels(tmp_path / second["map"]).any()
    for one, own in zip(drawn, first["objects"], strict=True):
        assert ((found == own["value"]) == mask_of(one)).all()
        assert (own["id"], own["category_id"], tuple(own["bbox"])) == (one.id, one.category_id, one.bbox)
    cat, dog = first["objects"]
    assert cat["predicted_iou"] == 0.5 and cat["captions"] == ["a cat"] and cat["provenance"] == "machine"
    assert dog["iscrowd"] == 1 and dog["provenance"] == "reviewed" and dog["mask_source"] == "lite"
    content = json.loads((tmp_path / "instances" / "train.json").read_text())
    assert content["classes"] == [{"id": 11, "name": "cat"}, {"id": 12, "name": "dog"}]
    assert content["synthgen"]["recipe"] == {"stage": "masks", "segmenter": "lite"}


def test_the_smaller_object_is_on_top_and_what_it_covers_is_counted(tmp_path: Path) -> None:
    large, small, hidden = rectangle(0, 0, 20, 20), rectangle(5, 5, 4, 4), rectangle(5, 5, 4, 4)
    drawn = [annotation(1, hidden), annotation(2, small), annotation(3, large)]
    notes, written = export(png, context(tmp_path), [sample(1, *drawn)])
    assert written == 2 and notes.left_out == {"hidden": 1}
    found = pixels(tmp_path / "instances" / "train" / "1.png")
    assert ((found == 2) == small).all() and ((found == 3) == (large & ~small)).all()
    [image] = listed(tmp_path / "instances" / "train.json")
    assert [(own["value"], own["visible_pixels"]) for own in image["objects"]] == [(2, 16), (3, 384)]
    assert notes.figures == {"overlapping_masks": 2, "covered_pixels": 32, "mask_pixels": 432}
    assert len(notes.lines) == 1


def test_visible_pixels_are_those_of_the_map(tmp_path: Path) -> None:
    samples = [sample(n, *(annotation(i, mask) for i, mask in enumerate(random_masks(6, seed=n)))) for n in range(5)]
    notes, written = export(png, context(tmp_path), samples)
    seen = 0
    for image, one in zip(listed(tmp_path / "instances" / "train.json"), samples, strict=True):
        found = pixels(tmp_path / image["map"])
        masks = {a.id: mask_of(a) for a in one.annotations}
        assert (found > 0).sum() == sum(own["visible_pixels"] for own in image["objects"])
        assert ((found > 0) == np.any(list(masks.values()), axis=0)).all()
        for own in image["objects"]:
            shown = found == own["value"]
            assert shown.sum() == own["visible_pixels"] > 0 and not (shown & ~masks[own["id"]]).any()
            seen += own["visible_pixels"]
    assert notes.figures["mask_pixels"] - notes.figures["covered_pixels"] == seen
    assert written + notes.left_out.get("hidden", 0) == 30


def test_more_objects_than_numbers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_MAX_NUMBER", 2)
    drawn = [annotation(i, rectangle(i, i, 1, 1)) for i in range(3)]
    notes, written = export(png, context(tmp_path), [sample(1, *drawn)])
    assert written == 2 and notes.left_out == {"too_many_objects": 1}


def test_annotations_without_a_mask_and_images_without_a_size_are_counted(tmp_path: Path) -> None:
    drawn = sample(1, annotation(1, None), annotation(2, rectangle(1, 1, 2, 2)))
    huge = sample(3, size=(2**20, 2**20))
    unknown = sample(2, annotation(3, None), size=(0, 0))
    notes, written = export(png, context(tmp_path), [drawn, unknown, huge], draw_images=False)
    assert written == 1 and notes.left_out == {"no_mask": 2} and len(notes.lines) == 1
    images = listed(tmp_path / "instances" / "train.json")
    assert ["map" in image for image in images] == [True, False, False]


# --- semantic ---------------------------------------------------------------------------------------------------------


def test_our_reader_gives_back_the_categories(tmp_path: Path) -> None:
    masks = random_masks(4)
    cats, dogs = masks[:2], masks[2:]
    drawn = [annotation(i, mask) for i, mask in enumerate(cats)]
    drawn += [annotation(i + 2, mask & ~cats[0] & ~cats[1], "dog", 12) for i, mask in enumerate(dogs)]
    drawn = [replace(one, mask_source="human") for one in drawn]
    given = {"train": [sample(1, *drawn)], "val": [sample(2, drawn[0], name="sub/b.jpg")]}
    notes, _ = export(png, context(tmp_path / "d", splits=("train", "val")), given, layout="semantic")
    assert notes.figures["covered_pixels"] == 0 and not notes.lines
    for split, [one] in given.items():
        files = semantic_folder.files(tmp_path / "d", split, None)
        [back] = ingest_both_layers(tmp_path / split, semantic_folder, files)
        assert back.file_name == one.file_name and back.error is None
        for found in back.annotations:
            of_category = [a.segmentation for a in one.annotations if a.category == found.category]
            assert found.segmentation == rle_union([mask for mask in of_category if mask is not None])
        assert {a.category for a in back.annotations} == {a.category for a in one.annotations}


def test_real_masks_come_back_where_no_smaller_object_covers_them(
    tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    root = shared("data/coco128")
    given, samples = human_samples(tmp_path / "d", root)
    images = tmp_path / "d" / "images"
    images.mkdir()
    (images / "train").symlink_to(root / "train2017")
    notes, written = export(png, given, samples, draw_images=False, layout="semantic")
    back = ingest_both_layers(tmp_path / "s", semantic_folder, semantic_folder.files(tmp_path / "d", "train", None))
    masks = {one.file_name: {a.category: mask_of(a) for a in one.annotations} for one in back}
    covered = 0
    for one in samples:
        for own in one.annotations:
            lost = mask_of(own) & ~masks[one.file_name].get(own.category, np.zeros((one.height, one.width), bool))
            covered += int(lost.sum())
    assert covered == notes.figures["covered_pixels"]
    assert written + notes.left_out.get("hidden", 0) == sum(len(one.annotations) for one in samples)


def test_overlaps_within_a_category_lose_nothing(tmp_path: Path) -> None:
    drawn = [annotation(1, rectangle(0, 0, 9, 9)), annotation(2, rectangle(2, 2, 3, 3))]
    notes, written = export(png, context(tmp_path), [sample(1, *drawn)], layout="semantic")
    assert written == 2 and not notes.left_out and not notes.lines


@pytest.mark.parametrize(("count", "dtype"), [(254, np.uint8), (255, np.uint16)])
def test_255_is_no_category_of_an_8_bit_map(tmp_path: Path, count: int, dtype: type) -> None:
    names = [f"c{i}" for i in range(count)]
    own = annotation(1, rectangle(1, 1, 3, 3), names[-1], 11 + count - 1, mask_source="human")
    export(png, context(tmp_path / "d", names), [sample(1, own)], layout="semantic")
    found = pixels(tmp_path / "d" / "labels" / "train" / "1.png")
    assert found.dtype == dtype and found.max() == count
    files = semantic_folder.files(tmp_path / "d", "train", None)
    [back] = ingest_both_layers(tmp_path / "s", semantic_folder, files)
    assert [a.category for a in back.annotations] == [names[-1]]


def test_more_categories_than_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_MAX_NUMBER", 1)
    with pytest.raises(SynthgenError, match="2 categories"):
        export(png, context(tmp_path), [], layout="semantic")


# --- binary -----------------------------------------------------------------------------------------------------------


def test_each_object_has_a_file(tmp_path: Path) -> None:
    masks = random_masks(6)
    drawn = [annotation(100 + i, mask) for i, mask in enumerate(masks[:5])]
    twin = annotation(104, masks[5])
    _, written = export(png, context(tmp_path), [sample(1, *drawn, twin), sample(2)], layout="binary")
    assert written == 6
    first, second = listed(tmp_path / "masks" / "train.json")
    assert first["objects"][0]["file"] == "masks/train/1/100.png" and not second["objects"]
    assert len({own["file"] for own in first["objects"]}) == 6
    for mask, own in zip(masks, first["objects"], strict=True):
        found = pixels(tmp_path / own["file"])
        assert found.dtype == np.uint8 and (found == np.where(mask, 255, 0)).all()


# --- all layouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["instance", "semantic"])
def test_the_text_of_a_map_names_all_who_drew_it(tmp_path: Path, layout: str) -> None:
    drawn = [
        annotation(1, rectangle(1, 1, 3, 3), mask_source="sam vit_h"),
        annotation(2, rectangle(10, 10, 3, 3), mask_source="human"),
        annotation(3, rectangle(20, 20, 3, 3), "dog", 12, provenance="reviewed", mask_source="mönch"),
    ]
    export(png, context(tmp_path), [sample(1, *drawn), sample(2)], layout=layout)
    folder = tmp_path / ("instances" if layout == "instance" else "labels") / "train"
    found = texts(folder / "1.png")
    assert found["synthgen:provenance"] == "human,machine,reviewed"
    assert json.loads(found["synthgen:models"]) == ["mönch", "sam vit_h"]
    assert texts(folder / "2.png") == {}


def test_the_text_of_a_mask_names_who_drew_it(tmp_path: Path) -> None:
    drawn = [annotation(1, rectangle(1, 1, 3, 3)), annotation(2, rectangle(1, 1, 3, 3), mask_source="human")]
    export(png, context(tmp_path), [sample(1, *drawn)], layout="binary")
    folder = tmp_path / "masks" / "train" / "1"
    assert texts(folder / "1.png") == {"synthgen:provenance": "machine", "synthgen:models": '["lite"]'}
    assert texts(folder / "2.png") == {"synthgen:provenance": "human"}


@pytest.mark.parametrize("layout", ["instance", "semantic", "binary"])
def test_names_of_strangers_neither_leave_the_folder_nor_meet(tmp_path: Path, layout: str) -> None:
    """Images that stay in their place have the source's own names."""
    names = ["../../evil.jpg", "/etc/passwd", "a.jpg", "a.png", "A.JPG", "b\0\n.jpg", "x" * 300 + ".jpg", ".."]
    given = context(tmp_path / "in" / "d", HOSTILE_NAMES, images="none")
    drawn = annotation(1, rectangle(1, 1, 3, 3), HOSTILE_NAMES[0])
    own = [sample(i, drawn, name=name) for i, name in enumerate(names)]
    _, written = export(png, given, own, layout=layout)
    assert written == len(names)
    written_files = list(tmp_path.rglob("*.png"))
    assert len(written_files) == len(names)
    assert all(path.is_relative_to(tmp_path / "in" / "d") for path in written_files)
    if layout != "semantic":
        folder = tmp_path / "in" / "d" / ("instances" if layout == "instance" else "masks")
        assert [image["file_name"] for image in listed(folder / "train.json")] == [one.file_name for one in own]
    else:
        content = json.loads((tmp_path / "in" / "d" / "class_names.json").read_text())
        assert [own["name"] for own in content[1:]] == list(HOSTILE_NAMES)


@pytest.mark.parametrize("layout", ["instance", "semantic", "binary"])
def test_the_same_samples_give_the_same_bytes(tmp_path: Path, layout: str) -> None:
    samples = [sample(1, *(annotation(i, mask, predicted_iou=0.1) for i, mask in enumerate(random_masks(4))))]
    for name in ("a", "b"):
        export(png, context(tmp_path / name), samples, layout=layout)
    first = folder_bytes(tmp_path / "a")
    assert first == folder_bytes(tmp_path / "b") and first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_invalid_options_are_refused() -> None:
    with pytest.raises(ArgumentError, match="layout='map'"):
        png.PngOptions(layout="map")
