"""Folders with one annotation file an image: names, pairs, places, and formats that recognise only their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fakes.reader_rows import read_rows, write_image

from synthgen import plugins
from synthgen.formats.readers import voc
from synthgen.formats.readers._label_folders import (
    ImageNames,
    find_image_place,
    find_named_image,
    find_stem,
    image_prefixes,
    last_part,
    path_stem,
    stem_and_name,
)
from synthgen.formats.readers._object_rows import ObjectRows


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.jpg", "a"),
        ("b/a.tar.gz", "b/a.tar"),
        ("b.c/a", "b.c/a"),
        (".hidden", ".hidden"),
        ("b/.x", "b/.x"),
        ("a", "a"),
    ],
)
def test_the_stem_of_a_path(name, stem):
    assert path_stem(name) == stem


def test_the_last_part_of_a_path_of_any_system():
    assert [last_part(path) for path in ("a/b.jpg", "C:\\a\\b.jpg", "b.jpg", "a/b/", "")] == ["b.jpg"] * 3 + ["b", ""]


def test_names_are_found_by_their_stems():
    names = sorted(["a.xml", "a/b.xml", "a.b.xml", "c.xml", "a-b.xml"], key=stem_and_name)
    for name in names:
        assert find_stem(names, path_stem(name)) == name
    assert find_stem(names, "b") is None and find_stem([], "b") is None


def test_images_are_found_by_path_then_by_the_last_part_if_only_one_has_it(tmp_path):
    for name in ("a.jpg", "b/a.jpg", "b/c.png", "c/d.JPG", "d/d.jpg"):
        write_image(tmp_path / "images" / name)
    images = ImageNames(tmp_path / "images", tmp_path)
    assert images.prefix == "images/"
    assert [images.find(stem) for stem in ("a", "b/a", "c", "x/c", "d", "e", "")] == [
        "a.jpg", "b/a.jpg", "b/c.png", "b/c.png", None, None, None,
    ]  # fmt: skip
    assert images.find_name("c/d.JPG") == "c/d.JPG" and images.find_name("c/d.jpg") is None
    rows = ObjectRows(masks=False)
    images.add_findings(rows, [])
    [finding] = [part for part in rows.finish() if hasattr(part, "code")]
    assert (finding.code, finding.count, finding.examples[0][0]) == ("unlabeled_image", 1, "images/d/d.jpg")


def test_the_place_of_images_is_below_the_dataset_or_the_users(tmp_path):
    for folder in ("labels/train", "images/train", "images/val", "flat/labels", "flat/images"):
        (tmp_path / folder).mkdir(parents=True)
    assert find_image_place(tmp_path / "labels" / "train", tmp_path) == tmp_path / "images" / "train"
    assert find_image_place(tmp_path / "labels", tmp_path) == tmp_path / "images"
    assert find_image_place(tmp_path / "flat" / "labels", tmp_path) == tmp_path / "flat" / "images"
    assert find_image_place(tmp_path / "labels", tmp_path / "elsewhere") == tmp_path / "elsewhere"
    write_image(tmp_path / "labels" / "a.jpg")
    assert find_image_place(tmp_path / "labels", tmp_path) == tmp_path / "labels"


def test_named_images_never_leave_the_folder(tmp_path):
    write_image(tmp_path / "out.jpg")
    write_image(tmp_path / "d" / "images" / "a.jpg")
    prefixes = image_prefixes(tmp_path / "d", tmp_path / "d")
    assert prefixes == ["", "images/"]
    names = ["../out.jpg", str(tmp_path / "out.jpg"), "x\0", "y" * 9_000, "", "a.jpg"]
    assert find_named_image(tmp_path / "d", prefixes, names) == "images/a.jpg"
    assert find_named_image(tmp_path / "d", prefixes, names[:-1]) is None


def test_a_name_that_is_not_utf_8_is_an_image_with_an_error(tmp_path):
    stem = os.fsdecode(b"a\xff")
    try:
        (tmp_path / f"{stem}.xml").write_text("<annotation/>")
    except OSError:
        pytest.skip("this file system has no such names")
    write_image(tmp_path / f"{stem}.jpg")
    assert read_rows(voc, tmp_path).images == {"a?.jpg": (30, 40, "its file name is not UTF-8; rename the file")}


FORMATS = {
    "voc": "pascal-voc__bccd",
    "labelme": "labelme__2label",
    "cvat": "cvat-images__2label",
    "via": "via__2label",
    "label_studio": "label-studio__sdk-coco",
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_recognises_its_own_sample_and_no_other(name, shared):
    module: Any = plugins.load_plugin("formats.readers", name)
    assert module.TITLE and module.LOOKS_FOR and module.LAYOUT_SPLITS
    folders: list[Path] = sorted(path for path in shared("data/formats").iterdir() if path.is_dir())
    assert {path.name for path in folders if module.recognize(path)} == {FORMATS[name]}
    files = sorted(path for path in shared("data/formats").rglob("*") if path.suffix in (".json", ".xml", ".csv"))
    assert {path.relative_to(shared("data/formats")).parts[0] for path in files if module.recognize(path)} == {
        FORMATS[name]
    }


def test_a_folder_of_many_datasets_is_none_itself(tmp_path):
    for name in ("ours", "theirs"):
        write_image(tmp_path / name / "images" / "a.jpg")
        (tmp_path / name / "notes.txt").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.xml").write_text("<annotation></annotation>")
    assert voc.recognize(tmp_path) is None and voc.recognize(tmp_path / "mine") == ("train",)


@pytest.mark.parametrize(("labels", "images"), [("{}", "{}"), ("{}", "{}/images"), ("Annotations/{}", "JPEGImages/{}")])
def test_splits_without_annotation_files_are_reported(tmp_path, labels, images):
    for split in ("train", "test"):
        write_image(tmp_path / images.format(split) / "a.jpg")
    (tmp_path / "val").mkdir()  # empty
    folder = tmp_path / labels.format("train")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.xml").write_text("<annotation></annotation>")
    finding = read_rows(voc, tmp_path).findings["unlabeled_split"]
    assert finding.examples == ((images.format("test").removesuffix("/images"), "'test' has no labels"),)


def test_the_parts_of_a_dataset_are_recognised_beside_folders_of_images(tmp_path):
    for part in ("camera 1", "camera 2"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.xml").write_text("<annotation></annotation>")
        write_image(tmp_path / "images" / part / "a.jpg")
        write_image(tmp_path / f"{part} previews" / "a.jpg")
    (tmp_path / "images" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    assert voc.recognize(tmp_path) == ("train",)


def test_links_to_folders_are_followed_and_recognition_reads_little(tmp_path, monkeypatch):
    for split in ("train", "val"):
        (tmp_path / "disk" / split).mkdir(parents=True)
        (tmp_path / "disk" / split / "a.xml").write_text("<annotation></annotation>")
        write_image(tmp_path / "disk" / split / "a.jpg")
    for number in range(300):
        (tmp_path / "disk" / "train" / f"{number}.xml").touch()
    (tmp_path / "d").mkdir()
    for split in ("train", "val"):
        (tmp_path / "d" / split).symlink_to(tmp_path / "disk" / split)
    opened: list[Path] = []
    monkeypatch.setattr(voc, "read_start", lambda path, count: (opened.append(path), b"<annotation>")[1])
    assert voc.recognize(tmp_path / "d") == ("train", "val") and len(opened) <= 4
