"""Texts of RLE counts: inverses, and those of cocoapi."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from synthgen.records.rle import (
    rle_area,
    rle_from_coco,
)
from synthgen.records.rle_codec import decode_counts, encode_counts, sum_many_counts

runs_of_any_length = st.lists(st.integers(0, 2**28) | st.integers(0, 40), min_size=1, max_size=30)


@given(runs_of_any_length)
def test_texts_and_runs_are_inverses(runs):
    assert decode_counts(encode_counts(np.array(runs))).tolist() == runs


@given(st.lists(runs_of_any_length, min_size=1, max_size=8))
def test_sums_of_many_texts_are_those_of_their_runs(several):
    inside, covered = sum_many_counts([encode_counts(np.array(runs)) for runs in several])
    assert inside.tolist() == [sum(runs[1::2]) for runs in several]
    assert covered.tolist() == [sum(runs) for runs in several]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4))
def test_many_hostile_texts_fail_exactly_if_one_of_them_does(texts):
    def decode(text):
        try:
            runs = decode_counts(text).tolist()
        except ValueError:
            return None
        return runs if runs and min(runs) >= 0 else None

    alone = [decode(text) for text in texts]
    if None in alone:
        with pytest.raises(ValueError, match=r"not a COCO run-length text|longer than any image|negative"):
            sum_many_counts(texts)
    else:
        assert sum_many_counts(texts)[1].tolist() == list(map(sum, alone))


@given(runs_of_any_length)
def test_texts_are_cocoapis(runs):
    """A short run goes first and another last: without one, cocoapi writes beyond its memory."""
    runs = [7, *runs, 1]
    assert encode_counts(np.array(runs)) == coco_mask.frPyObjects({"size": [1, 1], "counts": runs}, 1, 1)["counts"]


def test_runs_that_make_cocoapi_write_beyond_its_memory():
    """Four runs of six letters each: 25 bytes into 24. Ours are written without it."""
    runs = [2**24, 2**24, 2**24, 2**26]
    rle = rle_from_coco({"size": [sum(runs) // 2**12, 2**12], "counts": runs}, sum(runs) // 2**12, 2**12)
    assert len(rle.counts) == 24
    assert decode_counts(rle.counts).tolist() == runs
    assert rle_area(rle) == 2**24 + 2**26
