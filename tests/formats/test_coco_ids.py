"""The ids of images and categories that a COCO file gives: by path, by name; hostile and odd files."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.coco_ids import read_coco_ids


def write(path: Path, images: list[Any], categories: list[Any]) -> Path:
    content = {"annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 1, 1]}], "images": images}
    path.write_text(json.dumps({**content, "categories": categories}))
    return path


CATEGORIES = [{"id": 7, "name": "sky", "isthing": 0}, {"id": 3, "name": " a  ball ", "isthing": 1}]


def test_an_image_is_found_by_its_path_or_else_by_its_name(tmp_path: Path) -> None:
    images = [
        {"id": 5, "file_name": "val/1.png"},
        {"id": 6, "file_name": "elsewhere/1.png"},
        {"id": 8, "file_name": "other\\2.png"},
        {"id": 9, "file_name": "./3.png"},
        {"id": 10, "file_name": "a/4.png"},
        {"id": 11, "file_name": "b/4.png"},
    ]
    path = write(tmp_path / "a.json", images, CATEGORIES)
    found = read_coco_ids(path, ["val/1.png", "2.png", "3.png", "4.png", "none.png"])
    assert found.image_ids == {"val/1.png": 5, "2.png": 8, "3.png": 9}, "two entries fit 4.png"
    assert found.num_other_images == 3
    assert found.category_ids == {"sky": 7, "a ball": 3} and found.is_thing == {"sky": False, "a ball": True}


def test_two_images_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [{"id": 5, "file_name": "1.png"}], CATEGORIES)
    assert read_coco_ids(path, ["a/1.png", "b/1.png"]).image_ids == {}


def test_things_are_unknown_where_the_file_does_not_name_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [{"id": 5, "file_name": "1.png"}], [{"id": 1.0, "name": "ball"}])
    found = read_coco_ids(path, ["1.png"])
    assert found.is_thing == {} and found.category_ids == {"ball": 1}


def test_gzip_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.json", [{"id": 5, "file_name": "1.png"}], CATEGORIES)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_coco_ids(tmp_path / "a.json.gz", ["1.png"]).image_ids == {"1.png": 5}


def test_a_repeated_category_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    categories = [{"id": 0, "name": "fish"}, {"id": 1, "name": "fish"}]
    path = write(tmp_path / "a.json", [{"id": 5, "file_name": "1.png"}], categories)
    with caplog.at_level(logging.WARNING):
        assert read_coco_ids(path, ["1.png"]).category_ids == {"fish": 1}
    assert "two categories have the name fish; predictions get the id 1" in caplog.text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '{"images": [{"id": "x1", "file_name": "1.png"}], "categories": [{"id": 1, "name": "a"}]}',
            "'x1' of an image",
        ),
        ('{"images": [{"id": 1, "file_name": "1.png"}], "categories": [{"id": "1", "name": "a"}]}', "its id is a text"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "lists no images"),
        ('{"images": [{"id": 1, "file_name": "1.png"}], "categories": []}', "lists no categories"),
        ("[]", "array"),
        ('{"images": [{"id": 1', "1.png|ends|end"),
        ("", "nothing"),
    ],
)
def test_what_is_no_such_file_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SynthgenError, match=sentence):
        read_coco_ids(tmp_path / "a.json", ["1.png"])
    with pytest.raises(SynthgenError, match="no file"):
        read_coco_ids(tmp_path / "none.json", ["1.png"])
