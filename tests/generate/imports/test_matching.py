"""Masks find their boxes: by id, by box, one mask for one box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.mask_files import DecodedMask
from synthgen.generate.imports import matching
from synthgen.generate.imports.matching import MATCH_MODES, UNUSED_REASONS, MaskCandidate, MatchRules, match_masks
from synthgen.records.boxes import paired_box_iou
from synthgen.records.rle import encode_mask, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Sample


def mask(x: int, y: int, w: int, h: int, label: int | None = None) -> DecodedMask:
    pixels = np.zeros((40, 60), np.bool_)
    pixels[y : y + h, x : x + w] = True
    rle = encode_mask(pixels)
    return DecodedMask(rle, rle_bbox_xyxy(rle), label)


def image(*annotations: Annotation) -> Sample:
    return Sample(1, "d/1", "1.jpg", 40, 60, annotations)


def box(number: int, *bbox: float, **more: object) -> Annotation:
    return Annotation(number, bbox, **({"category": "cat"} | more))  # type: ignore[arg-type]


CATS = image(box(1, 0, 0, 10, 10), box(2, 20, 0, 10, 10), box(3, 0, 20, 10, 10, category="dog", category_id=7))


@pytest.mark.parametrize(
    ("candidate", "rules", "found"),
    [
        (MaskCandidate(mask(0, 0, 10, 9)), MatchRules(), 0),
        (MaskCandidate(mask(20, 0, 10, 9), category="cat"), MatchRules(), 1),
        (MaskCandidate(mask(20, 0, 10, 9), category="dog"), MatchRules(), "other_category"),
        (MaskCandidate(mask(20, 0, 10, 9), category="dog"), MatchRules(any_category=True), 1),
        (MaskCandidate(mask(0, 20, 10, 9), category=7), MatchRules(), 2),
        (MaskCandidate(mask(0, 20, 10, 9), category=8), MatchRules(), "other_category"),
        (MaskCandidate(mask(0, 0, 10, 4)), MatchRules(), "no_box"),
        (MaskCandidate(mask(0, 0, 10, 4)), MatchRules(min_box_iou=0.4), 0),
        (MaskCandidate(mask(50, 30, 5, 5)), MatchRules(min_box_iou=0), "no_box"),
        (MaskCandidate(mask(0, 0, 10, 9), iscrowd=True), MatchRules(), "other_category"),
        # An id counts where mask or box agree.
        (MaskCandidate(mask(0, 0, 10, 9), id=1), MatchRules(), 0),
        (MaskCandidate(mask(20, 0, 10, 9), id=1), MatchRules(), 1),
        (MaskCandidate(mask(0, 0, 3, 3), id=1, bbox=(0, 0, 10, 10)), MatchRules(), 0),
        (MaskCandidate(mask(0, 0, 3, 3), id=1, bbox=(0, 0, 3, 3)), MatchRules(), "no_box"),
        (MaskCandidate(mask(0, 0, 3, 3), id=1, bbox=(0, 0, 10, 10), category="dog"), MatchRules(), "no_box"),
        (MaskCandidate(mask(50, 30, 5, 5), id=2), MatchRules(mode="id"), 1),
        (MaskCandidate(mask(50, 30, 5, 5), id=9), MatchRules(mode="id"), "no_id"),
        (MaskCandidate(mask(0, 0, 10, 9)), MatchRules(mode="id"), "no_id"),
        (MaskCandidate(mask(20, 0, 10, 9), id=1), MatchRules(mode="box"), 1),
        (MaskCandidate(DecodedMask(None, problems={"bad_segmentation": "x"})), MatchRules(), "bad_segmentation"),
        (MaskCandidate(DecodedMask(None, problems={"empty_mask": "x"})), MatchRules(), "empty_mask"),
        (MaskCandidate(DecodedMask(None, problems={"empty_mask": "x"}), id=2, bbox=(20, 0, 10, 10)), MatchRules(), 1),
    ],
)
def test_one_mask(candidate: MaskCandidate, rules: MatchRules, found: int | str) -> None:
    matches = match_masks(CATS, [candidate], rules)
    if isinstance(found, str):
        assert matches.masks == {} and matches.unused == {0: found}
    else:
        assert matches.masks == {found: 0} and matches.unused == {}


def test_the_best_pair_comes_first() -> None:
    two = image(box(1, 0, 0, 10, 10), box(2, 2, 0, 10, 10))
    both = [MaskCandidate(mask(2, 0, 9, 10)), MaskCandidate(mask(2, 0, 10, 10)), MaskCandidate(mask(2, 0, 8, 10))]
    matches = match_masks(two, both, MatchRules())
    assert matches.masks == {1: 1, 0: 2} and matches.unused == {0: "taken"}


def test_boxes_that_no_mask_can_have() -> None:
    odd = image(
        box(1, 0, 0, 10, 10, flags=("degenerate",)),
        box(2, 0, 0, 10, 10, iscrowd=True, flags=("crowd",)),
        box(4, 0, 0, 10, 10),
        box(4, 0, 0, 10, 10),
    )
    assert match_masks(odd, [MaskCandidate(mask(0, 0, 10, 10))], MatchRules()).masks == {2: 0}
    assert match_masks(odd, [MaskCandidate(mask(0, 0, 10, 10), iscrowd=True)], MatchRules()).masks == {1: 0}
    # An id that two annotations have names none.
    assert match_masks(odd, [MaskCandidate(mask(0, 0, 10, 10), id=4)], MatchRules(mode="id")).unused == {0: "taken"}


def test_the_numbers_of_an_id_map_count_only_if_all_fit() -> None:
    near = image(box(1, 0, 0, 20, 20), box(2, 3, 0, 20, 20))
    swapped = [MaskCandidate(mask(3, 0, 20, 20, 1), id=1), MaskCandidate(mask(0, 0, 20, 20, 2), id=2)]
    assert match_masks(near, swapped, MatchRules()).masks == {0: 0, 1: 1}  # all fit
    other = MaskCandidate(mask(40, 20, 5, 5, 3), id=3)
    assert match_masks(near, [*swapped, other], MatchRules()).masks == {0: 1, 1: 0}


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MAX_PAIRS", 5)
    with pytest.raises(SynthgenError, match=r"1\.jpg has 3 boxes"):
        match_masks(CATS, [MaskCandidate(mask(0, 0, 10, 9))] * 2, MatchRules())


NUMBERS = st.integers(0, 30)
BOXES = st.tuples(NUMBERS, st.integers(0, 20), st.integers(1, 20), st.integers(1, 15))


@given(
    st.lists(st.tuples(st.integers(1, 4), BOXES, st.sampled_from(["cat", "dog"])), max_size=6),
    st.lists(st.tuples(st.none() | st.integers(1, 4), BOXES, st.sampled_from(["cat", "dog", None])), max_size=6),
    st.sampled_from(MATCH_MODES),
    st.floats(0, 1),
)
def test_each_mask_has_one_box_or_a_reason(objects: list, masks: list, mode: str, threshold: float) -> None:
    sample = image(*(box(number, *map(float, xywh), category=name) for number, xywh, name in objects))
    candidates = [MaskCandidate(mask(*xywh), id=number, category=name) for number, xywh, name in masks]
    matches = match_masks(sample, candidates, MatchRules(mode, threshold))
    assert len(set(matches.masks.values())) == len(matches.masks)
    assert sorted([*matches.masks.values(), *matches.unused]) == list(range(len(candidates)))
    assert set(matches.unused.values()) <= set(UNUSED_REASONS)
    for place, number in matches.masks.items():
        annotation, candidate = sample.annotations[place], candidates[number]
        if mode != "id":
            assert candidate.category in (None, annotation.category)
            prompt = matching.prompts_of(sample)[place]
            assert paired_box_iou(np.array(candidate.mask.box), prompt) >= threshold
