"""Which kind of query found what: the shares of conditional and learnable queries among things and stuff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

#: The kinds of objects, in the order of a table; "objects" where nothing says which are things and which are stuff.
OBJECT_KINDS = ("things", "stuff", "objects")


def query_kind(query: int, num_conditional: int) -> str:
    """The kind of a query: "conditional" or "learnable".

    Args:
        query: index of the query.
        num_conditional: the number of conditional queries; they come first.
    """
    return "conditional" if query < num_conditional else "learnable"


def compute_shares(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, float]]:
    """By kind of object: the percentages "conditional" and "learnable", and the number "found".

    Args:
        counts: (a kind of `OBJECT_KINDS`, a kind of query) -> the number of objects.
    """
    found = {}
    for kind in OBJECT_KINDS:
        conditional, learnable = (counts.get((kind, query), 0) for query in ("conditional", "learnable"))
        if count := conditional + learnable:
            shares = {"conditional": 100 * conditional / count, "learnable": 100 * learnable / count}
            found[kind] = {**shares, "found": float(count)}
    return found


def format_shares(by_kind: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A line for each kind of object.

    Args:
        by_kind: as `compute_shares` returns it.
    """
    for kind, shares in by_kind.items():
        yield (
            f"{kind} found: {shares['conditional']:.1f} % by conditional queries, "
            f"{shares['learnable']:.1f} % by learnable ones, of {shares['found']:,.0f}"
        )
