"""Box checks: the meaning of each flag, and equal results for one box and for many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.generate.stages.masks import prompts_xyxy
from synthgen.records.box_checks import CLIP_TOLERANCE, flag_boxes, flag_sample_boxes
from synthgen.records.sample import ANNOTATION_FLAGS, Annotation, Sample

OF_THE_BOX = ("degenerate", "outside", "clipped")

coordinates = st.one_of(
    st.floats(-50, 150),
    st.sampled_from(
        [
            0.0,
            -0.0,
            100.0,
            CLIP_TOLERANCE,
            -CLIP_TOLERANCE,
            100 + CLIP_TOLERANCE,
            1e-300,
            1e300,
            math.nan,
            math.inf,
            -math.inf,
        ]
    ),
    st.floats(),
)
boxes = st.lists(st.tuples(*[coordinates] * 4), min_size=1, max_size=8)


def flags_of(rows: list[tuple[float, ...]], height: int, width: int, **given: Any) -> dict[str, np.ndarray]:
    count = len(rows)
    columns = {
        "image_index": np.zeros(count, np.int64),
        "category_index": np.zeros(count, np.int64),
        "iscrowd": np.zeros(count, bool),
        "has_category_name": np.ones(count, bool),
        **given,
    }
    return flag_boxes(np.array(rows, np.float64).reshape(-1, 4), height=height, width=width, **columns)


@pytest.mark.parametrize(
    ("box", "flag"),
    [
        ((0, 0, 100, 80), None),
        ((10, 10, 5, 5), None),
        ((0, 0, 100 + CLIP_TOLERANCE / 2, 80), None),  # rounding
        ((0, 0, 100.02, 80), "clipped"),
        ((-0.02, 0, 10, 10), "clipped"),
        ((0, 79, 10, 1.02), "clipped"),
        ((-1000, -1000, 9999, 9999), "clipped"),
        ((100, 0, 10, 10), "outside"),  # touches, and has no area inside
        ((0, -10, 10, 10), "outside"),
        ((200, 200, 1, 1), "outside"),
        ((10, 10, 0, 5), "degenerate"),
        ((10, 10, 5, -1), "degenerate"),
        ((200, 200, 0, 0), "degenerate"),
        ((math.nan, 10, 5, 5), "degenerate"),
        ((10, 10, math.inf, 5), "degenerate"),
        ((90, 10, 1e-9, 5), "degenerate"),  # a prompt is float32
    ],
)
def test_each_flag(box, flag):
    found = flags_of([box], 80, 100)
    assert [name for name in OF_THE_BOX if found[name][0]] == ([flag] if flag else [])


@given(boxes, st.integers(0, 120), st.integers(0, 120))
def test_flags_of_the_box_exclude_each_other_and_prompts_have_an_area(rows, height, width):
    found = flags_of(rows, height, width)
    assert (sum(found[name].astype(int) for name in OF_THE_BOX) <= 1).all()
    if not (height and width):
        assert not found["outside"].any() and not found["clipped"].any()
        return
    sample = Sample(1, "k", "f", height, width, tuple(Annotation(i, box, "c") for i, box in enumerate(rows)))
    fine = [a for a, bad in zip(sample.annotations, found["degenerate"] | found["outside"], strict=True) if not bad]
    x1, y1, x2, y2 = prompts_xyxy(sample, fine).astype(np.float32).T
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= width) & (y1 >= 0) & (y1 < y2) & (y2 <= height)).all()
    for box, clipped in zip(rows, found["clipped"], strict=True):
        if clipped:
            beyond = max(-box[0], -box[1], box[0] + box[2] - width, box[1] + box[3] - height)
            assert beyond > CLIP_TOLERANCE * 0.99


@given(
    st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.0, math.nan]), st.integers(0, 1), st.integers(0, 1)), max_size=12)
)
def test_a_duplicate_has_an_earlier_twin(rows):
    """Against the definition, row by row: same image, same category, same four numbers (NaN is NaN, -0.0 is 0.0)."""
    image = np.sort([i for _, i, _ in rows])
    category = np.array([c for _, _, c in rows], np.int64)
    numbers = [(x, 1.0, 2.0, 3.0) for x, _, _ in rows]
    found = flags_of(
        numbers,
        10,
        10,
        image_index=image.astype(np.int64),
        category_index=category,
        iscrowd=np.zeros(len(rows), bool),
        has_category_name=np.ones(len(rows), bool),
    )["duplicate"]
    seen: set[tuple[str, int, int]] = set()
    for i, (x, _, _) in enumerate(rows):
        key = (repr(x + 0.0), int(image[i]), int(category[i]))
        assert found[i] == (key in seen)
        seen.add(key)


def test_duplicates_among_many_boxes():
    rng = np.random.default_rng(0)
    bbox = rng.random((20_000, 4)) * 100
    image = np.sort(rng.integers(0, 500, len(bbox)))
    same = np.flatnonzero(np.diff(image) == 0)[::50]
    bbox[same + 1] = bbox[same]
    found = flags_of(bbox.tolist(), 100, 100, image_index=image, category_index=np.zeros(len(bbox), np.int64))[
        "duplicate"
    ]
    assert np.flatnonzero(found).tolist() == (same + 1).tolist()


@pytest.mark.parametrize("missing", [(np.nan,) * 4, (0, 0, 0, 0)])
def test_objects_without_a_box_are_no_duplicates(missing):
    """The source says of the first four that they have none; the box of two of them was read off their mask."""
    no_box = np.array([True, True, True, True, False, False])
    rows = [missing, missing, (1, 2, 3, 4), (1, 2, 3, 4), missing, missing]
    found = flags_of(rows, 9, 9, source_flags={"no_box": no_box})["duplicate"]
    assert found.tolist() == [False, False, False, True, True, True]


def test_what_is_given_is_passed_on():
    fake = np.array([True, False])
    found = flags_of(
        [(0, 0, 1, 1)] * 2,
        9,
        9,
        iscrowd=np.array([False, True]),
        has_category_name=np.array([False, True]),
        source_flags={"fake": fake},
    )
    assert found["crowd"].tolist() == [False, True]
    assert found["unknown_category"].tolist() == [True, False]
    assert found["fake"].tolist() == [True, False]
    assert set(found) <= set(ANNOTATION_FLAGS)


@given(boxes, st.integers(0, 120), st.integers(0, 120), st.sets(st.sampled_from(sorted(ANNOTATION_FLAGS))))
def test_a_sample_is_audited_like_a_million_boxes(rows, height, width, others):
    """The flags of the box are made anew; all others stay; the record is sorted."""
    annotations = tuple(Annotation(i, box, "c", flags=tuple(sorted(others))) for i, box in enumerate(rows))
    audited = flag_sample_boxes(Sample(1, "k", "f", height, width, annotations))
    found = flags_of(rows, height, width)
    for i, annotation in enumerate(audited.annotations):
        expected = {name for name in OF_THE_BOX if found[name][i]} | (others - set(OF_THE_BOX))
        assert annotation.flags == tuple(sorted(expected))
    assert flag_sample_boxes(audited) == audited or any(math.isnan(v) for box in rows for v in box)


def test_no_boxes():
    assert all(len(there) == 0 for there in flags_of([], 10, 10).values())
    sample = Sample(1, "k", "f", 0, 0)
    assert flag_sample_boxes(sample) == sample
