"""Set operations on run lengths: numpy's pixels, the encoder's bytes, invalid masks."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from synthgen.errors import SynthgenError
from synthgen.records.rle import MAX_MASK_PIXELS, decode_mask, encode_mask, rle_area
from synthgen.records.rle_codec import encode_counts
from synthgen.records.rle_ops import empty_rle, is_empty_rle, rle_difference, rle_from_box, rle_union
from synthgen.records.sample import Rle


@st.composite
def stacks(draw, least=1, most=5):
    """bool [N, H, W]: masks of one size; dense, sparse, empty and full ones."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    count = draw(st.integers(least, most))
    one = hnp.arrays(np.bool_, shape, fill=st.booleans())
    return np.stack([draw(one) for _ in range(count)]) if count else np.zeros((0, *shape), bool)


@st.composite
def loose(draw, mask):
    """The RLE of a mask as another writer may spell it: with runs of no length, anywhere."""
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=not mask.flat[0], append=not mask.T.flat[-1])))
    runs = [0, *runs.tolist()] if mask.flat[0] else runs.tolist()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(runs)))
        runs[place:place] = [0, 0]  # an empty run of each kind changes nothing
    return Rle(mask.shape, encode_counts(np.array(runs)))


# --- the same as numpy -----------------------------------------------------------------------------------------------


@given(stacks())
def test_a_union_is_numpys_and_the_encoders_bytes(masks):
    assert rle_union([encode_mask(mask) for mask in masks]) == encode_mask(masks.any(axis=0))


@given(stacks())
def test_a_union_is_cocoapis(masks):
    rles = [encode_mask(mask) for mask in masks]
    merged = coco_mask.merge([{"size": list(rle.size), "counts": rle.counts} for rle in rles])
    assert rle_union(rles).counts == merged["counts"]


@given(stacks(), st.integers(0, 5))
def test_a_difference_is_numpys_and_the_encoders_bytes(masks, split):
    first, others = masks[0], masks[1:]
    rest = rle_difference(encode_mask(first), [encode_mask(mask) for mask in others])
    assert rest == encode_mask(first & ~others.any(axis=0))


@given(st.data())
def test_runs_of_no_length_change_nothing(data):
    masks = data.draw(stacks(least=2, most=4))
    rles = [data.draw(loose(mask)) for mask in masks]
    assert all(np.array_equal(decode_mask(rle), mask) for rle, mask in zip(rles, masks, strict=True))
    assert rle_union(rles) == encode_mask(masks.any(axis=0))
    assert rle_difference(rles[0], rles[1:]) == encode_mask(masks[0] & ~masks[1:].any(axis=0))
    assert [is_empty_rle(rle) for rle in rles] == [not mask.any() for mask in masks]


@given(stacks(most=1))
def test_laws_of_sets(masks):
    (mask,) = (encode_mask(m) for m in masks)
    nothing, whole = (encode_mask(np.full(mask.size, value)) for value in (False, True))
    assert (
        rle_union([mask]) == rle_union([mask, mask]) == rle_union([mask, nothing]) == rle_difference(mask, []) == mask
    )
    assert rle_union([mask, whole]) == whole
    assert rle_difference(mask, [mask]) == rle_difference(mask, [whole]) == nothing
    rest = rle_difference(whole, [mask])
    assert (
        rle_union([rest, mask]) == whole
        and rle_difference(rest, [mask]) == rest
        and rle_difference(whole, [rest]) == mask
    )
    assert rle_area(rest) + rle_area(mask) == rle_area(whole)


@given(stacks(least=2), st.randoms(use_true_random=False))
def test_the_order_of_masks_changes_nothing(masks, rng):
    rles = [encode_mask(mask) for mask in masks]
    mixed = rng.sample(rles, len(rles))
    assert rle_union(mixed) == rle_union(rles)
    assert rle_difference(rles[0], mixed) == rle_difference(rles[0], rles)


# --- boxes -----------------------------------------------------------------------------------------------------------

edge = st.floats(-30, 30) | st.sampled_from([-np.inf, np.inf, np.nan, 1e308, -0.0])


@given(st.tuples(edge, edge, edge, edge), st.integers(1, 20), st.integers(1, 20))
@example((0, 0, 20, 20), 20, 20)
@example((3, 0, 5, 20), 20, 20)  # whole columns, which are one run
@example((3.2, 4.9, 3.3, 5.1), 20, 20)
def test_a_rectangle_holds_each_pixel_that_the_box_has_area_in(box, height, width):
    x1, y1, x2, y2 = box
    x, y = np.arange(width), np.arange(height)
    columns = np.minimum(x + 1, x2) > np.maximum(x, x1)
    rows = np.minimum(y + 1, y2) > np.maximum(y, y1)
    assert rle_from_box(box, height, width) == encode_mask(rows[:, None] & columns[None, :])


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5), (2**15, 2**15), (MAX_MASK_PIXELS + 1, 1)])
def test_no_rectangle_in_an_image_that_can_have_no_mask(size):
    with pytest.raises(SynthgenError, match="can have no mask"):
        rle_from_box((0, 0, 1, 1), *size)


# --- what lies -------------------------------------------------------------------------------------------------------

GOOD = encode_mask(np.eye(4, dtype=bool))
LIES = [
    Rle((4, 4), b""), Rle((4, 4), b"PPPP"), Rle((4, 4), b"\x00\xff"), Rle((4, 4), b"oooooooooooooooo"),
    Rle((4, 4), encode_counts(np.array([3, 4]))), Rle((4, 4), encode_counts(np.array([30, 4]))),
    Rle((4, 4), encode_counts(np.array([20, -4]))), Rle((-4, -4), GOOD.counts), Rle((2**20, 2**20), GOOD.counts),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
def test_an_invalid_mask_is_reported(lie):
    for act in (
        lambda: rle_union([lie]),
        lambda: rle_union([GOOD, lie]),
        lambda: rle_difference(lie, []),
        lambda: rle_difference(GOOD, [lie]),
        lambda: is_empty_rle(lie),
    ):
        with pytest.raises(SynthgenError, match="mask of"):
            act()


@given(st.binary(max_size=30), st.integers(-3, 40), st.integers(-3, 40))
def test_any_bytes_are_a_mask_or_a_sentence(counts, height, width):
    rle = Rle((height, width), counts)
    try:
        empty = is_empty_rle(rle)
    except SynthgenError:
        with pytest.raises(SynthgenError):
            rle_union([rle, rle])
        return
    assert empty == (not decode_mask(rle).any() if height and width else True)
    assert is_empty_rle(rle_difference(rle, [rle_union([rle])]))


@pytest.mark.parametrize("other", [(4, 5), (5, 4), (2, 8), (8, 2)])
def test_masks_of_several_sizes_have_no_union(other):
    for act in (rle_union, lambda masks: rle_difference(masks[0], masks[1:])):
        with pytest.raises(SynthgenError, match="in an image of 4 x 4"):
            act([GOOD, rle_from_box((0, 0, 2, 2), *other)])


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [15_000, 23_170])  # the second is the largest square that can have a mask
def test_a_large_image_costs_its_runs(side):
    tracemalloc.start()
    before = time.process_time()
    whole = rle_from_box((0, 0, side, side), side, side)
    middle = rle_from_box((10, 10, side - 10, side - 10), side, side)
    frame = rle_difference(whole, [middle])
    again = rle_union([frame, middle])
    spent, peak = time.process_time() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole == again and rle_area(whole) == side * side
    assert rle_area(frame) == side * side - (side - 20) ** 2
    assert spent < 0.5 and peak < 20e6


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 60)])
def test_the_empty_mask_is_that_of_the_encoder(size):
    assert empty_rle(*size) == encode_mask(np.zeros(size, np.bool_))
    assert is_empty_rle(empty_rle(*size))
