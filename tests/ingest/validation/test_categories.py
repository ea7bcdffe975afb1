"""Categories that differ between splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.validated_datasets import clean, findings, look, write

from synthgen.ingest.validation.diagnosis import format_validation_report
from synthgen.ingest.validation.validate import validate_dataset


def objects365(root: Path, train: list[dict[str, Any]], val: list[dict[str, Any]]) -> Path:
    for split, categories in (("train", train), ("val", val)):
        content = clean()
        content["categories"] = categories
        for annotation in content["annotations"]:
            annotation["category_id"] = categories[annotation["id"] % len(categories)]["id"]
        path = write(root / split, content)
        (root / split / "images" / "a").rename(root / split / "a")
        path.rename(root / f"zhiyuan_objv2_{split}.json")
    return root


def _categories(*names: str) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} for i, name in enumerate(names, start=1)]


def test_drift_between_splits_as_in_objects365(tmp_path: Path) -> None:
    root = objects365(
        tmp_path, _categories("Person", "Sneakers", "Chair", "Hat"), _categories("Person", "Chair", "Sneakers", "Owl")
    )
    found = validate_dataset("objects365", root, check_images="none")
    assert [split.split for split in found.splits] == ["train", "val"]
    train, val = findings(found, 0), findings(found, 1)
    assert {code: f.count for code, f in train.items()} == {"not_in_split": 1}
    assert {code: f.count for code, f in val.items()} == {"id_renamed": 3, "not_in_split": 1, "other_order": 2}
    assert [e.what for e in val["id_renamed"].examples][:1] == ["id 2, which is 'Sneakers' in train"]
    assert val["not_in_split"].examples[0].what == "named in train, not in val"
    assert found.is_ready, "names are stored, so drift is to be known, not to be mended"


def test_a_list_in_another_order_alone_is_drift_of_order_alone(tmp_path: Path) -> None:
    names = _categories("Person", "Sneakers", "Chair")
    found = validate_dataset("objects365", objects365(tmp_path, names, names[::-1]), check_images="none")
    assert not findings(found, 0) and set(findings(found, 1)) == {"other_order"}


def test_equal_splits_have_no_drift(tmp_path: Path) -> None:
    names = _categories("Person", "Sneakers", "Chair")
    found = validate_dataset("objects365", objects365(tmp_path, names, names), check_images="all")
    assert [split.findings for split in found.splits] == [(), ()]
    assert validate_dataset("objects365", tmp_path, ["val"], check_images="none").splits[0].split == "val"


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("cat\u200b", "U+200B ZERO WIDTH SPACE"),
        ("black\u00a0cat", "U+00A0 NO-BREAK SPACE"),
        ("cat\x07", "U+0007 control character"),
        ("\ufeffcat", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("ca\u202et", "U+202E RIGHT-TO-LEFT OVERRIDE"),
    ],
)
def test_characters_that_are_not_seen_are_named(tmp_path: Path, name: str, points: str) -> None:
    content = clean()
    content["categories"][0]["name"] = name
    report = look(tmp_path, content)
    assert findings(report)["hidden_characters"].examples[0].what == points and report.is_ready
    text = format_validation_report(report)
    assert all(line.isprintable() for line in text) and any(points in line for line in text)


def test_joiners_and_letters_of_other_scripts_are_not_hidden(tmp_path: Path) -> None:
    content = clean()
    content["categories"][0]["name"] = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # Persian, with a non-joiner
    content["categories"][1]["name"] = "\u30ab\u30b5 \u00e9t\u00e9"
    assert "hidden_characters" not in findings(look(tmp_path, content))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "c\u200bat"),
        ("cat", "\uff43\uff41\uff54"),
        ("black cat", "black\u00a0cat"),
    ],
)
def test_names_that_look_the_same_are_told_apart_by_code_points(tmp_path: Path, first: str, second: str) -> None:
    content = clean()
    for category, name in zip(content["categories"], (first, second), strict=True):
        category["name"] = name
    report = look(tmp_path, content)
    found = findings(report)["looks_the_same"]
    assert found.count == 1 and found.examples[0].what == f"{first!a} and {second!a}"
    assert "nearly_same_name" not in findings(report) and report.is_ready
