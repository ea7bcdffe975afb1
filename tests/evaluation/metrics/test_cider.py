"""Metrics of captions: token F1 and CIDEr by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.caption_truth import ground_truth_of

from synthgen.evaluation.metrics import cider

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("words", "text", "f1"),
    [("a red cat", "a red cat", 1), ("cat", "a red cat", 1 / 2), ("dog", "a red cat", 0), ("", "a cat", 0),
     ("cat cat cat cat", "cat", 2 / 5), ("cat red a", "a red cat", 1), ("a a b", "a a c d", 4 / 7)],
)  # fmt: skip
def test_token_f1_by_hand(words, text, f1):
    assert cider.token_f1(words, text) == pytest.approx(f1)


def test_case_and_marks_are_no_words():
    assert cider.normalize_text("  The man's CAT, left-most (2nd)_ …") == "the man's cat left most 2nd"


def test_the_best_phrase_of_each_object_counts_for_f1():
    pytest.importorskip("pycocoevalcap")
    compared = cider.compare(ground_truth_of(("red cat", "A cat."), ("blue cup",)), ["a cat", "red cup"])
    found = cider.scores([compared]).values
    assert found["token_F1"] == pytest.approx(100 * (1 + 1 / 2) / 2)


def test_cider_is_the_definition():
    """Vedantam et al., 2015, with the clipping and the penalty of length of CIDEr-D, written out for single words."""
    pytest.importorskip("pycocoevalcap")
    objects = [("red cat",), ("blue cat",), ("green cup",), ("white cup",)]
    exact = cider.scores([cider.compare(ground_truth_of(*objects), [one[0] for one in objects])]).values["CIDEr"]
    # Two words make n-grams of 1 and 2 of 4 lengths; each like itself is 1, so 10 times the mean is 5, in percent 500.
    assert exact == pytest.approx(500)
    rare, common = np.log(4), np.log(2)  # said of one object of four, and of two
    crossed = cider.scores(
        [cider.compare(ground_truth_of(*objects), ["red cup", *[one[0] for one in objects[1:]]])]
    ).values
    half = 10 / 4 * rare**2 / (rare**2 + common**2)  # "red" is shared, of two words as long; no pair is
    assert crossed["CIDEr"] == pytest.approx(100 * (3 * 5 + half) / 4)


def test_objects_of_which_nothing_was_said_count_as_wrong_and_those_without_phrases_not_at_all():
    pytest.importorskip("pycocoevalcap")
    given = ground_truth_of(("red cat",), ("blue cup",))
    assert cider.scores([cider.compare(given, ["red cat", ""])]).values["token_F1"] == 50
    assert cider.compare(ground_truth_of(("?",), ("cat",)), ["x", "cat"]).stats == [("cat", ["cat"])]
    assert cider.scores([]).values == {}
