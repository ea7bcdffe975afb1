"""Checks of what plugins return: every kind of wrong value, and none of the right ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.generate import output_checks
from synthgen.generate.output_checks import PluginError, check_captions, check_mask, checked_score, match_results
from synthgen.generate.segmenters import MaskPrediction
from synthgen.records.rle import encode_counts, encode_mask
from synthgen.records.sample import Caption, Rle

HEIGHT, WIDTH = 6, 9
WHOLE = encode_mask(np.ones((HEIGHT, WIDTH), bool))


def says(sentence: str):
    import re

    return pytest.raises(PluginError, match=f"^{re.escape(sentence)}$")


# --- results by image ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [[["a"], [], ["b", "c"]], iter([("a",), (), ("b", "c")])])
def test_results_are_passed_on(returned):
    assert list(match_results(returned, [1, 0, 2], "masks")) == [["a"], [], ["b", "c"]]


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (None, "it returned NoneType instead of masks for each image"),
        ([], "it returned masks for 0 of 2 images"),
        ([["a"]], "it returned masks for 1 of 2 images"),
        ([["a"], ["b"], ["c"]], "it returned masks for more than the 2 images it was given"),
        ([["a"], ["b"], None], "it returned masks for more than the 2 images it was given"),
        ([["a"], None], "it returned NoneType instead of a list of masks for an image"),
        ([["a"], []], "the number of masks of an image is 0, not 1, one for each box"),
        ([["a", "b"], ["c"]], "the number of masks of an image is 2, not 1, one for each box"),
    ],
)
def test_results_that_do_not_fit(returned, sentence):
    with says(sentence):
        list(match_results(returned, [1, 1], "masks"))


# --- masks -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_every_encoded_mask_passes_in_its_own_size_and_in_no_other(height, width, data):
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    prediction = MaskPrediction(encode_mask(np.reshape(bits, (height, width))), None, None)
    check_mask(prediction, height, width, 1)
    other = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda size: size != (height, width)))
    with pytest.raises(PluginError, match=f"is {height} x {width}, the image {other[0]} x {other[1]}"):
        check_mask(prediction, *other, 1)


@given(st.lists(st.integers(0, HEIGHT * WIDTH), min_size=1, max_size=12))
def test_runs_pass_exactly_if_they_fill_the_image(runs):
    prediction = MaskPrediction(Rle((HEIGHT, WIDTH), encode_counts(np.array(runs))), None, None)
    if sum(runs) == HEIGHT * WIDTH:
        check_mask(prediction, HEIGHT, WIDTH, 1)
    else:
        with pytest.raises(PluginError, match=f"its runs cover {sum(runs)} pixels, not {HEIGHT * WIDTH}"):
            check_mask(prediction, HEIGHT, WIDTH, 1)


@given(st.binary(max_size=30))
def test_any_bytes_pass_or_are_damage(counts):
    try:
        check_mask(MaskPrediction(Rle((HEIGHT, WIDTH), counts), None, None), HEIGHT, WIDTH, 7)
    except PluginError as why:
        assert str(why).startswith("the RLE of annotation 7 is damaged (mask of 6 x 9: ")


@pytest.mark.parametrize(
    ("prediction", "sentence"),
    [
        (None, "for annotation 3 it returned NoneType, not a MaskPrediction"),
        (WHOLE, "for annotation 3 it returned Rle, not a MaskPrediction"),
        ((WHOLE, None, None, None), "for annotation 3 it returned tuple, not a MaskPrediction"),
        (
            MaskPrediction(np.ones((6, 9), bool), None, None),
            "the mask of annotation 3 is ndarray, not an Rle (synthgen.records.rle.encode_mask makes it)",
        ),
        (
            MaskPrediction(Rle((6, 9), "T1"), None, None),
            "the mask of annotation 3 is an Rle with counts of type str, not an Rle "
            "(synthgen.records.rle.encode_mask makes it)",
        ),
        (MaskPrediction(Rle((9, 6), WHOLE.counts), None, None), "the mask of annotation 3 is 9 x 6, the image 6 x 9"),
        (MaskPrediction(Rle([6, 9], WHOLE.counts), None, None), "the mask of annotation 3 is list, the image 6 x 9"),
        (MaskPrediction(Rle(None, WHOLE.counts), None, None), "the mask of annotation 3 is NoneType, the image 6 x 9"),
    ],
)
def test_what_is_no_mask_of_the_image(prediction, sentence):
    with says(sentence):
        check_mask(prediction, HEIGHT, WIDTH, 3)


# --- scores ----------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1))
def test_scores_in_range_are_rounded(value):
    for own in (value, np.float64(value), np.float32(value)):
        stored = checked_score(own, "predicted_iou", 1)
        assert type(stored) is float
        assert stored == round(float(own), 4)


def test_a_rounding_error_fails_nothing():
    assert checked_score(1.00004, "predicted_iou", 1) == 1
    assert checked_score(-0.00004, "predicted_iou", 1) == 0
    assert checked_score(0.00004, "score", 1, low=-np.inf, high=0) == 0
    assert checked_score(None, "predicted_iou", 1) is None
    assert checked_score(Fraction(1, 3), "predicted_iou", 1) == 0.3333
    assert checked_score(-1e30, "score", 1, low=-np.inf, high=0) == -1e30


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (7.5, "7.5"),
        (1.0001, "1.0001"),
        (-0.0001, "-0.0001"),
        (10**400, "inf"),
        (np.float32("nan"), "nan"),
        (True, "bool"),
        ("0.5", "str"),
        (np.array(0.5), "ndarray"),
        ([0.5], "list"),
    ],
)
def test_scores_out_of_place(value, given):
    with says(f"predicted_iou of annotation 3 is {given}, not a finite number from 0 to 1"):
        checked_score(value, "predicted_iou", 3)


@pytest.mark.parametrize("value", [0.0001, 1.0, float("nan"), float("inf"), -float("inf")])
def test_scores_of_captions_out_of_place(value):
    with says(f"the score of annotation 3 is {value}, not a finite number of at most 0"):
        checked_score(value, "the score", 3, low=-np.inf, high=0)


# --- captions --------------------------------------------------------------------------------------------------------


def test_right_captions_are_passed_on():
    captions = [Caption("a dog", "toy", -0.5), Caption("", "toy"), Caption("x" * output_checks.MAX_CAPTION_LENGTH, "")]
    assert check_captions(captions, 3) == captions
    assert check_captions(tuple(captions), 3) == captions
    assert check_captions([], 3) == []
    assert len(check_captions(captions[:1] * output_checks.MAX_CAPTIONS, 3)) == output_checks.MAX_CAPTIONS


@pytest.mark.parametrize(
    ("captions", "sentence"),
    [
        (None, "for annotation 3 it returned NoneType, not a list of captions"),
        ("a dog", "for annotation 3 it returned str, not a list of captions"),
        (Caption("a dog", "toy"), "for annotation 3 it returned Caption, not a list of captions"),
        (["a dog"], "for annotation 3 it returned str, not a Caption"),
        ([Caption("a dog", "toy")] * 1001, "for annotation 3 it returned 1,001 captions, more than 1,000"),
        ([Caption(b"a dog", "toy")], "the text of a caption of annotation 3 is bytes"),
        ([Caption(None, "toy")], "the text of a caption of annotation 3 is NoneType"),
        ([Caption("a dog", None)], "the source of a caption of annotation 3 is NoneType"),
        (
            [Caption("a dog", "toy"), Caption("x" * 1_000_000, "toy")],
            "the text of a caption of annotation 3 has 1,000,000 characters, more than 10,000",
        ),
        ([Caption("a dog", "x" * 201)], "the source of a caption of annotation 3 has 201 characters, more than 200"),
    ],
)
def test_what_is_no_list_of_captions(captions, sentence):
    with says(sentence):
        check_captions(captions, 3)
