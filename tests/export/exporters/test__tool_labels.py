"""Labels of annotation tools: names that differ stay different, and every label is XML."""

from __future__ import annotations

import math
import re

import hypothesis.strategies as st
from defusedxml import ElementTree
from fakes.exporter_runs import annotation, rectangle
from hypothesis import given

from synthgen.export.exporters import ExportCategory
from synthgen.export.exporters._tool_labels import ToolLabels, mask_scores, xml_text


def labels_of(names: list[str], replacements: dict[str, str] | None = None) -> tuple[list[str], ToolLabels]:
    found = ToolLabels([ExportCategory(i, name) for i, name in enumerate(names)], replacements)
    return [found.label(annotation(1, None, name)) for name in names], found


@given(st.lists(st.text(st.characters(), max_size=4), max_size=8))
def test_names_that_differ_have_labels_that_differ(names: list[str]) -> None:
    labels, found = labels_of(names, {"$": "S"})
    assert len(set(labels)) == len(set(names)) == len(found.colors)
    assert all(label.strip() and "$" not in label for label in labels)
    assert bool(found.lines()) == (found.changed > 0) == (labels != names)
    for label in labels:
        escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert ElementTree.fromstring(f"<a>{escaped}</a>").text == label


def test_a_plain_name_is_its_own_label_whatever_the_others_become() -> None:
    labels, found = labels_of(["a\0", "a\ufffd", "a  b", "a b", " ", ""])
    assert labels == ["a\ufffd (2)", "a\ufffd", "a b (2)", "a b", "category (2)", "category (3)"]
    assert found.changed == 4


def test_each_label_has_a_colour_of_its_own() -> None:
    _, found = labels_of([f"c{i}" for i in range(80)])
    assert len(set(found.colors.values())) == 80
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in found.colors.values())


def test_only_finite_scores_count() -> None:
    own = annotation(1, rectangle(1, 1, 2, 2), predicted_iou=0.5, box_iou=math.nan, soft_iou=math.inf)
    assert mask_scores(own) == {"predicted_iou": 0.5}


def test_xml_text_replaces_what_no_xml_holds() -> None:
    assert xml_text("a\0\x1b\ufffe\ud800\t\n<") == "a\ufffd\ufffd\ufffd\ufffd\t\n<"
