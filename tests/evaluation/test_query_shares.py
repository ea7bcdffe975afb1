"""Shares of query kinds."""

from __future__ import annotations

from synthgen.evaluation.query_shares import compute_shares, format_shares, query_kind


def test_conditional_queries_come_first() -> None:
    assert [query_kind(query, 2) for query in range(3)] == ["conditional", "conditional", "learnable"]


def test_shares_are_percentages_of_each_kind_of_object() -> None:
    counts = {("stuff", "learnable"): 3, ("stuff", "conditional"): 1, ("things", "conditional"): 2}
    shares = compute_shares(counts)
    assert shares == {
        "things": {"conditional": 100, "learnable": 0, "found": 2},
        "stuff": {"conditional": 25, "learnable": 75, "found": 4},
    }
    assert list(format_shares(shares)) == [
        "things found: 100.0 % by conditional queries, 0.0 % by learnable ones, of 2",
        "stuff found: 25.0 % by conditional queries, 75.0 % by learnable ones, of 4",
    ]
    assert compute_shares({}) == {}
