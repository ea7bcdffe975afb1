"""Left and right in mirrored images: swapped where that is certain, refused elsewhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.text.left_right import mirror_texts

EXCHANGED = [
    ("left vase", "right vase"),
    ("RIGHT FIRST WHITE POT", "LEFT FIRST WHITE POT"),
    ("Leftmost cup, second from right", "Rightmost cup, second from left"),
    ("on the right behind the counter", "on the left behind the counter"),
    ("man on left in blue", "man on right in blue"),
    ("holder to its left and one on its right", "holder to its right and one on its left"),
    ("from left to right", "from right to left"),
    ("third one left to right", "third one right to left"),
    ("left-hand side, right-handed batter, lefthand door", "right-hand side, left-handed batter, righthand door"),
    ("bottom-right, topleft, upper left corner", "bottom-left, topright, upper right corner"),
    ("sign right_turn of the man's left", "sign left_turn of the man's right"),
    ("car that is left of the bus", "car that is right of the bus"),
    ("man has left arm up", "man has right arm up"),
    ("man, left, in red", "man, right, in red"),
    ("facing left", "facing right"),
    ("leftward arrow, turned clockwise", "rightward arrow, turned counterclockwise"),
    ("Counterclockwise", "Clockwise"),
    ("all right on the left", "all right on the right"),
]
UNTOUCHED = [
    *("", "a bright upright copyright", "all right", "leftover pizza", "the theft of a cleft wright", "human rights"),
    *("second shelf", "third row", "the second knife from the top", "first-aid kit", "a t-shirt", "Golf cart", "o"),
]
REFUSED = [
    *("sitting right by the bar", "balcony right above the crowd", "right next to the dog", "right behind her"),
    *("some milk left in it", "half a pizza left", "left over pizza", "left-over pizza", "the one that is left"),
    *(
        "the man who left the room",
        "what's left",
        "piece left behind",
        "food left on the plate",
        "just left",
        "all left",
    ),
    *("a right angle", "right of way", "right side up", "Right whale", "right-angled", "go right away"),
    *(
        "the second zebra",
        "last one",
        "3rd boat",
        "at 3 o'clock",
        "rt cup",
        "guy on r",
        "lft",
        "LHS",
        "starboard",
        "west",
    ),
    *("anti-clockwise", "counter clockwise", "lEft", "CounterClockwise"),
]


@pytest.mark.parametrize(("text", "other"), EXCHANGED)
def test_sides_are_exchanged_both_ways(text, other):
    assert mirror_texts([text]) == (other,)
    assert mirror_texts([other]) == (text,)


@pytest.mark.parametrize("text", UNTOUCHED)
def test_other_words_stay(text):
    assert mirror_texts([text]) == (text,)


@pytest.mark.parametrize("text", REFUSED)
def test_a_text_that_cannot_be_mirrored_is_refused_with_all_others(text):
    assert mirror_texts([text]) is None
    assert mirror_texts(["cup", "left cup", text]) is None


def test_no_texts_have_a_mirror():
    assert mirror_texts([]) == ()


word = st.sampled_from(
    "left right Left RIGHT leftmost right-hand topleft clockwise counterclockwise counter anti all just is has who the "
    "on to of over behind in next some few milk cup man's , . - _ first 2nd row upright bright angle way side up l "
    "it's".split()
)
phrases = st.lists(st.tuples(word, st.sampled_from(["", " ", "-", "  "])), max_size=8).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)


@given(phrases)
def test_mirrored_twice_is_the_same(text):
    other = mirror_texts([text])
    if other is not None:
        assert mirror_texts(other) == (text,)


@given(st.text())
def test_any_text_has_an_answer_and_keeps_what_is_no_side(text):
    other = mirror_texts([text])
    if other is not None and not any(side in text.casefold() for side in ("left", "right", "clockwise")):
        assert other == (text,)


@given(st.lists(phrases, unique=True, max_size=5))
def test_different_texts_stay_different(texts):
    other = mirror_texts(texts)
    assert other is None or len(set(other)) == len(texts)


def test_names_of_real_datasets_forbid_no_mirror(shared):
    """A name that is refused would keep every image of its dataset from being mirrored."""
    for file in ("lvis_excerpt/lvis_val_100.json", "coco_panoptic_sample/panoptic_coco_categories.json"):
        found = json.loads((shared("data") / file).read_text())
        names = [c["name"] for c in (found["categories"] if isinstance(found, dict) else found)]
        assert len(names) > 100
        assert mirror_texts(names) == tuple(names)


def test_real_phrases(shared):
    """Each of these was read: the 60 exchanged are true of the mirror image, the 10 refused cannot be told."""
    found = json.loads((shared("data/refer_coco_val_boxes") / "refcocos_test_506.json").read_text())
    texts = sorted({entry["normal_caption"] for entry in found})
    told = {text: mirror_texts([text]) for text in texts}
    refused = [text for text in texts if told[text] is None]
    assert (len(texts), sum(told[text] not in (None, (text,)) for text in texts), len(refused)) == (485, 60, 10)
