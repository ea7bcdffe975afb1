"""Regions of a label map in one pass, compared with one pass per label."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from synthgen.formats.readers import _label_regions
from synthgen.formats.readers._label_regions import split_label_regions
from synthgen.images.decode import ImageError
from synthgen.records.rle import decode_mask, encode_mask, rle_bbox_xyxy


@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.bool_]),
        npst.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.integers(0, 1),
    ).flatmap(lambda a: st.just(a) if a.dtype == bool else st.integers(1, 90).map(lambda by: a * by)),
    st.sampled_from([1, 5, 2**21]),
    st.booleans(),
)
def test_one_pass_gives_what_a_look_for_each_label_gives(labels: np.ndarray, strip: int, fortran: bool) -> None:
    labels = np.asfortranarray(labels) if fortran else labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_label_regions, "_STRIP_PIXELS", strip)
        found = split_label_regions(labels)
    assert [region.label for region in found] == np.unique(labels).tolist()
    for region in found:
        mask = encode_mask(labels == region.label)
        x1, y1, x2, y2 = rle_bbox_xyxy(mask)
        assert region.mask == mask
        assert region.bbox == (x1, y1, x2 - x1, y2 - y1)


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 4)))
def test_the_regions_part_the_map(labels: np.ndarray) -> None:
    found = split_label_regions(labels, ignore_labels={0, 3})
    covered = sum((decode_mask(region.mask).astype(int) for region in found), np.zeros(labels.shape, int))
    assert np.array_equal(covered, (~np.isin(labels, [0, 3])).astype(int))


def test_many_labels_do_not_take_a_mask_each() -> None:
    labels = np.kron(np.arange(1, 151, dtype=np.uint8).reshape(10, 15), np.ones((100, 100), np.uint8))
    tracemalloc.start()
    try:
        assert len(split_label_regions(labels)) == 150
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * labels.nbytes, "150 masks would be 150 times the map"


def test_a_photograph_and_noise_are_no_label_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"has 4,900 labels, more than the limit of 4,096: is it a photograph\?"):
        split_label_regions(np.arange(4900, dtype=np.uint16).reshape(70, 70))
    monkeypatch.setattr(_label_regions, "MAX_RUNS", 100)
    with pytest.raises(ImageError, match=r"changes its label more than 100 times: is it noise\?"):
        split_label_regions(np.indices((20, 20)).sum(axis=0) % 2)
