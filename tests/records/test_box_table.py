"""The table of samples that have boxes only: it is the table that the samples make."""

from __future__ import annotations

import dataclasses

import numpy as np
from fakes import hypothesis_strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.records.box_table import NO_ID, BoxColumns, table_from_columns
from synthgen.records.parquet_schema import samples_from_batch, table_from_samples
from synthgen.records.sample import ANNOTATION_FLAGS, Annotation, Sample


def as_columns(made: list[Sample]) -> BoxColumns:
    flat = [a for s in made for a in s.annotations]
    categories = sorted({a.category for a in flat})
    poor = [dataclasses.replace(s, neg_categories=None, not_exhaustive_categories=()) for s in made]
    return BoxColumns(
        image_id=np.array([s.image_id for s in made], np.int64),
        image_key=[s.image_key for s in made],
        file_name=[s.file_name for s in made],
        height=np.array([s.height for s in made], np.int32),
        width=np.array([s.width for s in made], np.int32),
        error=[s.error for s in made],
        offsets=np.cumsum([0, *(len(s.annotations) for s in made)]).astype(np.int32),
        id=np.array([a.id for a in flat], np.int64),
        bbox=np.array([a.bbox for a in flat], np.float64).reshape(-1, 4),
        category=np.array([categories.index(a.category) for a in flat], np.int32),
        categories=categories,
        iscrowd=np.array([a.iscrowd for a in flat], bool),
        isthing=np.array([a.isthing for a in flat], bool),
        flags={flag: np.array([flag in a.flags for a in flat], bool) for flag in ANNOTATION_FLAGS},
        neg_categories=None if made == poor else [s.neg_categories for s in made],
        not_exhaustive_categories=None if made == poor else [s.not_exhaustive_categories for s in made],
        category_id=np.array([NO_ID if a.category_id is None else a.category_id for a in flat], np.int64),
        area=np.array([np.nan if a.area is None else a.area for a in flat], np.float64),
        license_id=[s.license_id for s in made],
    )


boxes_only = hypothesis_strategies.annotations.map(
    lambda a: Annotation(
        a.id,
        a.bbox,
        a.category,
        iscrowd=a.iscrowd,
        isthing=a.isthing,
        flags=a.flags,
        category_id=None if a.category_id == NO_ID else a.category_id,
        area=a.area,
    )
)


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(
            dataclasses.replace, hypothesis_strategies.samples, annotations=st.lists(boxes_only, max_size=4).map(tuple)
        ),
        max_size=5,
    )
)
def test_columns_make_the_table_that_samples_make(made):
    assert table_from_columns(as_columns(made)).equals(table_from_samples(made))


def test_unknown_negatives_are_not_empty_ones():
    """None is not (): of the one every name is a negative, of the other none."""
    made = [Sample(i, "k", "f", 1, 1, neg_categories=names) for i, names in enumerate([None, (), ("cat",), None])]
    (batch,) = table_from_columns(as_columns(made)).to_batches()
    assert [sample.neg_categories for sample in samples_from_batch(batch)] == [None, (), ("cat",), None]
