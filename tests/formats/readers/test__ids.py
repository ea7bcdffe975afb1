"""Ids that are numbers or texts: one to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.formats.readers._ids import is_text_id, parse_id, text_id


@pytest.mark.parametrize("value", [139, "139", 139.0])
def test_a_number_in_quotes_is_the_number(value):
    assert parse_id(value) == 139


@pytest.mark.parametrize("value", [None, True, False, "", 1.5, float("nan"), [1], {"id": 1}, 2**63, -(2**63) - 1])
def test_what_is_no_id(value):
    assert parse_id(value) is None


def test_texts_that_python_reads_as_one_number_stay_apart():
    texts = ["1_23", "12_3", "123", " 123", "123 ", "0123", "+123", "123.0", "１２３"]
    assert len({parse_id(text) for text in texts}) == len(texts)
    assert [is_text_id(parse_id(text) or 0) for text in texts] == [True, True, False, *[True] * 6]


@given(st.lists(st.integers(-(2**63), 2**63 - 1).map(str) | st.text(min_size=1, max_size=8), unique=True))
def test_different_texts_have_different_ids(texts):
    assert len({parse_id(text) for text in texts}) == len(texts)


def test_the_id_of_a_text_never_changes():
    assert text_id("ADE_val_00000001") == parse_id("ADE_val_00000001") == 4744568926777595611
