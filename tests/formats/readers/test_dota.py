"""DOTA: layouts of the releases and of tiles, upright prompts, flags, what is reported, the real sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.reader_output import ingest_layer
from fakes.reader_parts import ReadDataset, read_dataset
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _label_lines, dota

Shared = Callable[[str], Path]

UPRIGHT = "10 20 30 20 30 60 10 60 plane 0\n"
ROTATED = "20.0 10.0 30.0 20.0 20.0 30.0 10.0 20.0 small-vehicle 1\n"
HEADER = "imagesource:GoogleEarth\ngsd:0.146343590398\n"


def write(root: Path, files: dict[str, str | bytes | tuple[int, int]]) -> Path:
    """Files by name: texts, bytes, and images of (width, height)."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            Image.new("RGB", content).save(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, split: str = "train", annotations: Path | None = None) -> ReadDataset:
    return read_dataset(dota, dota.files(root, split, annotations))


def one_image(tmp_path: Path, labels: str | bytes) -> ReadDataset:
    """A dataset of one image of 100 by 80 pixels."""
    return read(write(tmp_path, {"images/P1.png": (100, 80), "labelTxt/P1.txt": labels}))


@pytest.mark.parametrize(
    ("images", "labels", "splits"),
    [
        ("images", "labelTxt", ("train",)),
        ("train/images", "train/labelTxt", ("train",)),
        ("val/images", "val/labelTxt-v1.5/DOTA-v1.5_val", ("val",)),
        ("trainval/images", "trainval/annfiles", ("trainval",)),
        ("train/images/part1", "train/labelTxt-v1.0/labelTxt", ("train",)),
    ],
)
def test_a_layout_is_recognised_and_read(images: str, labels: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, {f"{images}/P1.png": (100, 80), f"{labels}/P1.txt": HEADER + UPRIGHT})
    assert dota.recognize(tmp_path) == splits
    found = read(tmp_path, splits[0])
    assert list(found.images) == [f"{images}/P1.png"] and not found.findings
    [image] = found.images.values()
    assert (image.height, image.width, image.error) == (80, 100, None)
    [box] = image.annotations
    assert box.bbox == [10, 20, 20, 40] and box.category == "plane" and box.flags == set()


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"images/a.png": (9, 9), "labels/a.txt": "0 0.5 0.5 0.2 0.4\n"},
        {"images/a.png": (9, 9), "labelTxt/a.txt": "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n"},
        {"images/a.png": (9, 9), "labelTxt/a.txt": "nothing of the kind\n"},
        {"ships/images/a.png": (9, 9), "ships/labelTxt/a.txt": UPRIGHT},
    ],
)
def test_other_folders_are_not_claimed(files: dict[str, str | bytes | tuple[int, int]], tmp_path: Path) -> None:
    assert dota.recognize(write(tmp_path, files)) is None
    with pytest.raises(SynthgenError, match="labelTxt"):
        dota.files(tmp_path, "train", None)


def test_all_splits_are_found_and_their_ids_differ(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, {f"{split}/images/P1.png": (9, 9), f"{split}/labelTxt/P1.txt": UPRIGHT})
    write(tmp_path, {"test/images/P2.png": (9, 9)})
    assert dota.recognize(tmp_path) == ("train", "val")
    ids = {image.id for split in ("train", "val") for image in read(tmp_path, split).images.values()}
    assert len(ids) == 2


def test_of_several_versions_the_newest_with_rotated_boxes_is_read(tmp_path: Path) -> None:
    folders = {
        "labelTxt-v1.0/labelTxt": "plane", "labelTxt-v1.5/DOTA-v1.5_train": "ship",
        "labelTxt-v1.5/DOTA-v1.5_train_hbb": "harbor", "labelTxt-v1.0/Train_Task2_gt": "bridge",
    }  # fmt: skip
    labels = {f"train/{folder}/P1.txt": UPRIGHT.replace("plane", name) for folder, name in folders.items()}
    found = read(write(tmp_path, {"train/images/P1.png": (100, 80), **labels}))
    assert found.images["train/images/P1.png"].annotations[0].category == "ship"
    assert found.findings["unread_labels"].count == 3
    chosen = read(tmp_path, annotations=tmp_path / "train/labelTxt-v1.0/labelTxt")
    assert chosen.images["train/images/P1.png"].annotations[0].category == "plane" and not chosen.findings


def test_rotated_and_difficult_boxes_are_flagged(tmp_path: Path) -> None:
    found = one_image(tmp_path, HEADER + ROTATED + UPRIGHT + "30 60 10 60 10 20 30 20.005 ship 2\n")
    a, b, c = found.images["images/P1.png"].annotations
    assert a.bbox == [10, 10, 20, 20] and a.flags == {"rotated", "difficult"} and a.category == "small-vehicle"
    assert b.flags == set() and c.flags == {"difficult"}
    assert [one.id for one in (a, b, c)] == [1, 2, 3]


def test_a_box_beyond_the_image_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, {"images/P1.png": (100, 80), "labelTxt/P1.txt": "-5 -5 20 -5 20 20 -5 20 plane 0\n"})
    [sample] = ingest_layer(tmp_path / "store", dota, dota.files(tmp_path, "train", None), "annotations")
    assert sample.annotations[0].bbox == (-5, -5, 25, 25) and sample.annotations[0].flags == ("clipped",)


def test_other_names_and_spellings(tmp_path: Path) -> None:
    text = "\ufeff" + HEADER.replace("\n", "\r\n") + "acquisition dates:2016-05-04\r\n\r\n"
    text += "1,1, 2,1, 2,2, 1,2, storage tank, 1\r\n1\t1\t2\t1\t2\t2\t1\t2\té\n1 1 2 1 2 2 1 2 7 0"
    rows = one_image(tmp_path, text).images["images/P1.png"].annotations
    assert [(row.category, row.flags) for row in rows] == [("storage tank", {"difficult"}), ("é", set()), ("7", set())]


def test_a_name_has_the_same_id_in_every_split(tmp_path: Path) -> None:
    mine = "1 1 2 1 2 2 1 2 my-class 0\n"
    write(tmp_path, {"train/images/a.png": (9, 9), "train/labelTxt/a.txt": mine + UPRIGHT})
    write(tmp_path, {"val/images/a.png": (9, 9), "val/labelTxt/a.txt": ROTATED + mine})
    one, two = (read(tmp_path, split).names for split in ("train", "val"))
    assert {name: number for number, name in one.items()}["my-class"] in two
    assert one[1] == "plane" and two[11] == "small-vehicle"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1 1 2 1 2 2 1 plane 0", "not a number"),
        ("1 1 2 1 plane 0", "has 6 values"),
        ("1 1 2 1 2 nan 1 2 plane 0", "not a number"),
        ("1 1 2 1 2 1_0 1 2 plane 0", "not a number"),
        ("1 1 2 1 2 2 1 2 plane maybe", "'maybe' is not 0 or 1"),
        ("1 1 2 1 2 2 1 2 " + "x" * 300 + " 0", "300 characters"),
        ("x" * 20_000, "longer than"),
    ],
)
def test_a_broken_row_stays_as_an_object_without_a_box(row: str, reason: str, tmp_path: Path) -> None:
    found = one_image(tmp_path, UPRIGHT + row + "\n" + UPRIGHT)
    flags = [one.flags for one in found.images["images/P1.png"].annotations]
    assert flags == [set(), {"no_box"}, set()]
    [(where, what)] = found.findings["broken_row"].examples
    assert where == "images/P1.png" and what.startswith("line 2") and reason in what


def test_images_without_labels_and_labels_without_images_are_reported(tmp_path: Path) -> None:
    content = {f"images/{name}.png": (9, 9) for name in "abc"}
    labels = {"labelTxt/a.txt": UPRIGHT, "labelTxt/c.txt": "", "labelTxt/gone.txt": UPRIGHT, "labelTxt/x/a.txt": ""}
    found = read(write(tmp_path, {**content, **labels}))
    assert [len(image.annotations) for image in found.images.values()] == [1, 0, 0]
    assert found.findings["no_label_file"].examples == (("images/b.png", "no label file has its name"),)
    assert {what for _, what in found.findings["label_without_image"].examples} == {
        "no image has this name", "another label file has the same name",
    }  # fmt: skip


def test_a_split_without_labels_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"train/images/a.png": (90, 90), "train/labelTxt/a.txt": UPRIGHT, "test/images/b.png": (9, 9)})
    assert dota.recognize(tmp_path) == ("train",)
    assert read(tmp_path).findings["unlabeled_split"].examples == (("test", "'test' has no labels"),)


def test_a_label_file_of_two_images_belongs_to_the_first(tmp_path: Path) -> None:
    content = {"images/a.jpg": (9, 9), "images/a.png": (9, 9), "labelTxt/a.txt": UPRIGHT}
    found = read(write(tmp_path, content))
    assert "images/a.jpg" in str(found.images["images/a.png"].error)
    assert found.findings["shared_label_file"].count == 1


def test_a_label_file_that_cannot_be_read_is_an_error_of_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_label_lines, "MAX_FILE_BYTES", 1_000)
    write(tmp_path, {"images/a.png": (9, 9), "images/b.png": (9, 9), "labelTxt/b.txt": UPRIGHT})
    for text in (b"x\0", UPRIGHT.encode() * 100):
        found = read(write(tmp_path, {"labelTxt/a.txt": text}))
        assert str(found.images["images/a.png"].error).startswith("its label file")
        assert found.images["images/b.png"].error is None


def test_labels_without_any_image_need_their_folder(tmp_path: Path) -> None:
    write(tmp_path / "one", {"labelTxt/P1.txt": UPRIGHT})
    write(tmp_path / "two", {"P1.png": (100, 80)})
    assert dota.recognize(tmp_path / "one") == ("train",)
    given = dota.files(tmp_path / "one", "train", None)
    with pytest.raises(SynthgenError, match="--images"):
        read_dataset(dota, given)
    assert list(read_dataset(dota, given.with_image_folder(tmp_path / "two")).images) == ["P1.png"]


def test_the_tiles_of_mmrotate(shared: Shared, tmp_path: Path) -> None:
    source = shared("data/formats/dota__mmrotate")
    assert dota.recognize(source) == ("train",)
    write(tmp_path, {"P0004__1__0___0.png": (285, 294)})
    found = read_dataset(dota, dota.files(source, "train", None).with_image_folder(tmp_path))
    rows = found.images["P0004__1__0___0.png"].annotations
    assert [row.category for row in rows] == ["plane"] * 4
    assert ["difficult" in row.flags for row in rows] == [False, False, True, False]
    assert all("rotated" in row.flags for row in rows)
    assert rows[0].bbox == [398, 694, 67, 24] and rows[3].bbox == [123, 171, 98, 28]
    assert found.findings["label_without_image"].examples[0][0] == "P0004__1__0___1024.txt"
