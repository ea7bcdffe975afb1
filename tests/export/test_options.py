"""The options of an export: each wrong value has a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from synthgen.errors import ArgumentError
from synthgen.export.options import ExportOptions


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"image_mode": "move"}, "image_mode='move' is not valid; give one of link, copy, none, embed"),
        ({"val": 1}, "val=1 is not valid; give a share"),
        ({"val": -0.1}, "val=-0.1 is not valid"),
        ({"val": float("nan")}, "val=nan is not valid"),
        ({"test": "0.1"}, "test='0.1' is not valid"),
        ({"val": True}, "val=True is not valid"),
        ({"val": 0.5, "test": 0.5}, "leave nothing for training"),
        ({"seed": -1}, "seed=-1 is not valid"),
        ({"max_images": 1.5}, "max_images=1.5 is not valid"),
        ({"min_area": float("inf")}, "min_area=inf is not valid"),
        ({"category_map": {"a": 3}}, "category_map={'a': 3} is not valid"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        ExportOptions(**wrong)
    assert sentence in str(caught.value)


def test_the_defaults_change_nothing() -> None:
    assert not ExportOptions().changes_masks
    assert ExportOptions(fill_holes=True).changes_masks and ExportOptions(largest_component=True).changes_masks
