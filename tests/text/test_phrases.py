"""Cleaned and compared phrases."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.text.phrases import clean_text, comparison_key, contains_phrase, has_repetition, split_words

ANY = st.text(st.characters(), max_size=60)  # lone surrogates too: a tokenizer may make them


@given(ANY, st.integers(1, 30))
def test_a_clean_text_is_one_short_line_and_stays_as_it_is(text, longest):
    done = clean_text(text, max_chars=longest)
    assert len(done) <= longest
    assert clean_text(done, max_chars=longest) == done
    assert done == " ".join(done.split())
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in done)
    done.encode()


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("  a\tdog\n\n on grass ", "a dog on grass"),
        ("a\x00dog\x1b[31m", "a dog [31m"),
        ("l'homme à gauche, 左の人 🧍", "l'homme à gauche, 左の人 🧍"),
        ("e\u0301te\u0301", "été"),
        ("", ""),
    ],
)
def test_cleaning_by_example(text, done):
    assert clean_text(text) == done


def test_a_long_text_ends_with_a_whole_word():
    assert clean_text("one two three", max_chars=9) == "one two"
    assert clean_text("one two", max_chars=3) == "one"
    assert clean_text("onetwothree", max_chars=5) == "onetw"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a dog on the grass", "A dog on grass.", True),
        ("a brown dog", "the brown dog", True),
        ("a t-shirt", "a t shirt", True),
        ("a brown dog", "a brown dogs", False),
        ("a dog left of a cat", "a cat left of a dog", False),
        ("the a", "an a", False),
        ("🧍", "🐕", False),
        ("左の人", "右の人", False),
    ],
)
def test_texts_that_say_the_same(one, other, same):
    assert (comparison_key(one) == comparison_key(other)) is same


@pytest.mark.parametrize("text", ["a dog dog dog", "on a table on a table", "man man man in red", "the cat the cat"])
def test_stutter_is_heard(text):
    assert has_repetition(text)


@pytest.mark.parametrize(
    "text", ["", "a very very red car", "a man in a man's hat", "the dog and the cat", "dogs dog dog"]
)
def test_other_texts_do_not_stutter(text):
    assert not has_repetition(text)


def test_phrases_are_found_as_whole_words():
    found = frozenset({"hell", "bad word", " ".join(split_words("Naïve-té"))})
    assert contains_phrase("Oh HELL!", found)
    assert contains_phrase("such a bad-word here", found)
    assert contains_phrase("naïve té", found)
    assert not contains_phrase("hello, a shell, bad words", found)
    assert not contains_phrase("anything", frozenset())
