"""Categories that differ between splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes.validated_datasets import clean, findings, write

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
