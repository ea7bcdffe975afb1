"""The categories of an export: ids of the source, maps, merges, and names that the layer does not list."""

from __future__ import annotations

import pytest
from fakes.exports import make_annotation

from synthgen.errors import ArgumentError
from synthgen.export.categories import CategoryTable
from synthgen.export.exporters import ExportCategory

RECORDS = [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 5, "name": "cat"}, {"id": 90, "name": "dog"}]


def test_ids_of_the_source_stay_also_where_two_have_one_name() -> None:
    table = CategoryTable(["cat", "dog"], RECORDS, None, has_unknown=False)
    assert table.categories == (
        ExportCategory(5, "cat"),
        ExportCategory(18, "dog", "animal"),
        ExportCategory(90, "dog"),
    )
    assert table.find(make_annotation(1, category="dog", category_id=90)) == ExportCategory(90, "dog")
    assert table.find(make_annotation(1, category="dog", category_id=None)) == ExportCategory(18, "dog", "animal")
    assert table.find(make_annotation(1, category="dog", category_id=5)) == ExportCategory(18, "dog", "animal")


def test_without_ids_of_the_source_names_count_from_one() -> None:
    table = CategoryTable(["cat", "dog"], [], None, has_unknown=False)
    assert table.categories == (ExportCategory(1, "cat"), ExportCategory(2, "dog"))


def test_names_that_the_records_lack_get_the_next_ids() -> None:
    table = CategoryTable(["cat", "cow", "dog"], RECORDS, None, has_unknown=False)
    assert table.categories[-1] == ExportCategory(91, "cow")


def test_a_map_renames_joins_and_leaves_out() -> None:
    table = CategoryTable(["cat", "cow", "dog"], RECORDS, {"dog": "pet", "cat": "pet", "cow": None}, has_unknown=False)
    assert table.categories == (ExportCategory(1, "pet"),)
    assert table.find(make_annotation(1, category="dog", category_id=18)) == ExportCategory(1, "pet")
    assert table.find(make_annotation(1, category="cat", category_id=5)) == ExportCategory(1, "pet")
    assert table.find(make_annotation(1, category="cow", category_id=None)) == "category_map"
    kept = CategoryTable(["cat", "dog"], [], {"dog": "cat"}, has_unknown=False)
    assert kept.categories == (ExportCategory(1, "cat"),)


def test_a_map_of_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"names 'dgo', which the layer lacks; did you mean 'dog'\?"):
        CategoryTable(["cat", "dog"], [], {"dgo": "cat"}, has_unknown=False)


def test_annotations_without_a_name_have_a_category_of_their_own() -> None:
    table = CategoryTable(["cat", "unknown"], [], None, has_unknown=True)
    assert table.find(make_annotation(1, category="", category_id=77)) == ExportCategory(3, "unknown category")
    mapped = CategoryTable(["cat"], [], {"unknown": ""}, has_unknown=True)
    assert mapped.find(make_annotation(1, category="")) == "category_map"


def test_a_name_that_no_footer_lists_is_a_reason() -> None:
    table = CategoryTable(["cat"], [], None, has_unknown=False)
    assert table.find(make_annotation(1, category="fish")) == "unlisted_category"
    assert table.find(make_annotation(1, category="")) == "unlisted_category"


def test_hostile_records_are_ignored() -> None:
    records = [{"id": "1", "name": "x"}, {"name": "y"}, {"id": 4}, {"id": 5, "name": "cat", "supercategory": ["a"]}]
    table = CategoryTable(["cat"], records, None, has_unknown=False)
    assert table.categories == (ExportCategory(5, "cat"),)
