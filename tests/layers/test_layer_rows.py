"""`range_between`: the part of a range that lies in an interval, by a search over all its numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synthgen.layers.layer_rows import range_between

NUMBER = st.integers(-30, 60)


@given(st.builds(range, NUMBER, NUMBER, st.integers(1, 9)), NUMBER, NUMBER)
def test_it_holds_the_numbers_of_the_interval(rows: range, first: int, end: int) -> None:
    assert list(range_between(rows, first, end)) == [row for row in rows if first <= row < end]
