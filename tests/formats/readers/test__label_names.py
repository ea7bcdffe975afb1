"""Files of label names: the forms that people write, and files that cannot be understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers._label_names import read_label_names


@pytest.mark.parametrize(
    ("name", "text", "names", "unlabelled"),
    [
        ("class_names.json", '["Void", "road", "sky "]', {1: "road", 2: "sky"}, {0, 255}),
        ("classes.json", '{"3": "road", "7": "background"}', {3: "road"}, {7, 255}),
        ("classes.json", '{"road": 3, "unlabelled": 0}', {3: "road"}, {0, 255}),
        ("classes.json", '[{"id": 255, "name": "road"}, {"name": "sky"}]', {255: "road", 1: "sky"}, set()),
        ("c.json", '[{"name": "r", "color": [1, 2, 3]}, {"name": "x", "colour": [0, 0, 9]}]', {66051: "r", 9: "x"}, ()),
        ("classes.txt", "\ufeff_background_\nroad\n\nsky\n", {1: "road", 2: "sky"}, {0, 255}),
        ("classes.txt", "__ignore__\n_background_\nroad\n", {1: "road"}, {-1, 0, 255}),
        ("label_colors.txt", "64 128 64\tAnimal\n0 0 0\t\tVoid\n", {4227136: "Animal"}, {0}),
    ],
)  # fmt: skip
def test_names_in_the_forms_that_people_write(
    tmp_path: Path, name: str, text: str, names: dict[int, str], unlabelled: Any
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_label_names(tmp_path / name)
    assert (found.categories.names, found.ignore_labels) == (names, frozenset(unlabelled))
    assert found.is_color_coded == (66051 in names or 4227136 in names)
    assert found.categories.stuff == frozenset(names), "nothing says what is a thing"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "Input data was truncated"),
        (b"7", "it is neither a list nor an object"),
        (b"[]", "it is neither a list nor an object"),
        (b"[1, 2]", "its elements are neither names nor objects"),
        (b'["void", "background"]', "it names no category"),
        (b'[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "it names a label twice"),
        (b'[{"id": "x", "name": "a"}]', "'x' is no label"),
        (b'[{"id": 9999999999, "name": "a"}]', "9999999999 is no label"),
        (b'[{"id": 1}]', "label 1 has no name"),
        (b'["a", "  "]', "label 1 has no name"),
        (b'[{"name": "a", "color": [1, 2, 300]}]', "is no colour"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 200_000, "cannot be understood"),
        (b"[" + b" " * 2**20 + b"]", "it is larger than a megabyte"),
    ],
)
def test_names_that_cannot_be_understood_are_a_sentence(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "class_names.json").write_bytes(text)
    with pytest.raises(SynthgenError, match=sentence) as why:
        read_label_names(tmp_path / "class_names.json")
    assert "write a JSON list of names" in str(why.value) and "\n" not in str(why.value)
