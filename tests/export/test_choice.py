"""The choice of images and splits: repeatable, by the photograph, and about as large as asked for."""

from __future__ import annotations

import pytest

from synthgen.errors import ArgumentError
from synthgen.export.choice import ImageChoice, split_names
from synthgen.export.options import ExportOptions

KEYS = [f"coco/{i:012d}" for i in range(4000)]


def splits(options: ExportOptions) -> dict[str, str]:
    choice = ImageChoice(options, lambda: KEYS)
    return {key: choice.split(key, "train") for key in KEYS}


def test_shares_are_about_as_asked_for_and_repeatable() -> None:
    found = splits(ExportOptions(val=0.1, test=0.2))
    assert found == splits(ExportOptions(val=0.1, test=0.2))
    counts = {name: list(found.values()).count(name) / len(KEYS) for name in ("train", "val", "test")}
    assert counts == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.03)
    assert found != splits(ExportOptions(val=0.1, test=0.2, seed=1))


def test_a_larger_validation_share_takes_from_the_others_only() -> None:
    small, large = splits(ExportOptions(val=0.1)), splits(ExportOptions(val=0.3))
    assert all(large[key] == "val" for key in KEYS if small[key] == "val")


def test_without_shares_the_split_of_the_layer_stays() -> None:
    assert ImageChoice(ExportOptions(), lambda: KEYS).split(KEYS[0], "valid") == "valid"


@pytest.mark.parametrize("count", [1, 7, 4000, 5000])
def test_a_subset_has_as_many_images_as_asked_for(count: int) -> None:
    choice = ImageChoice(ExportOptions(max_images=count), lambda: KEYS)
    chosen = [key for key in KEYS if choice.has(key)]
    assert len(chosen) == min(count, len(KEYS))
    larger = ImageChoice(ExportOptions(max_images=count + 10), lambda: KEYS)
    assert set(chosen) <= {key for key in KEYS if larger.has(key)}


def test_two_images_of_one_key_count_as_two() -> None:
    keys = ["a"] * 5
    choice = ImageChoice(ExportOptions(max_images=3), lambda: keys)
    assert [choice.has(key) for key in keys] == [True] * 3 + [False] * 2


def test_the_subset_does_not_depend_on_the_split() -> None:
    """A subset of the images has the same shares of splits as all of them."""
    choice = ImageChoice(ExportOptions(max_images=1000, val=0.5), lambda: KEYS)
    found = [choice.split(key, "train") for key in KEYS if choice.has(key)]
    assert 0.4 < found.count("val") / len(found) < 0.6


def test_names_of_splits() -> None:
    assert split_names(["a/train/masks"], val=0, test=0) == ("train",)
    assert split_names(["a/train/masks", "a/valid/masks", "b/train/masks"], val=0, test=0) == ("train", "valid")
    assert split_names(["a/x/masks"], val=0.1, test=0) == ("train", "val")
    assert split_names(["a/x/masks"], val=0, test=0.1) == ("train", "test")
    with pytest.raises(ArgumentError, match=r"divide one split, and the layers are of train, valid"):
        split_names(["a/train/masks", "a/valid/masks"], val=0.1, test=0)
