"""`range_between` by a search over all numbers of the range; reading rows on several threads."""

from __future__ import annotations

from pathlib import Path

from fakes import scored_layers
from hypothesis import given
from hypothesis import strategies as st

from synthgen.layers.layer_rows import LayerRows, range_between
from synthgen.storage.shard_store import ShardStore

NUMBER = st.integers(-30, 60)


@given(st.builds(range, NUMBER, NUMBER, st.integers(1, 9)), NUMBER, NUMBER)
def test_it_holds_the_numbers_of_the_interval(rows: range, first: int, end: int) -> None:
    assert list(range_between(rows, first, end)) == [row for row in rows if first <= row < end]


def test_a_row_that_another_thread_reads_changes_nothing(tmp_path: Path) -> None:
    """The other thread reads a row of another row group between any two steps of this one."""
    samples = scored_layers.make_samples(150)
    scored_layers.commit_layer(tmp_path, samples)
    store = ShardStore(tmp_path / "store")
    shards = store.list_shards(*scored_layers.LAYER.split("/"))
    other = LayerRows(store, shards, None)

    class Interrupted(LayerRows):
        def __getattribute__(self, name: str) -> object:
            value = super().__getattribute__(name)
            if name == "_last" and value is not None:
                other.read(149)
                self._last = other._last
            return value

    rows = Interrupted(store, shards, None)
    assert [rows.read(row) for row in (0, 1, 149, 2, 70)] == [samples[row] for row in (0, 1, 149, 2, 70)]
