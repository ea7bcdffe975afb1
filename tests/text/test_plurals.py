"""Singular, plural and articles of the nouns in captions."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synthgen.text.plurals import is_plural, singularize, with_article

PAIRS = """
dogs dog, buses bus, glasses glass, benches bench, brushes brush, boxes box, knives knife, leaves leaf, gloves
glove, stoves stove, loaves loaf, tomatoes tomato, shoes shoe, toes toe, photos photo, berries berry, cookies
cookie, ties tie, movies movie, horses horse, vases vase, houses house, nurses nurse, lenses lens, men man, women
woman, policemen policeman, people person, children child, feet foot, mice mouse, geese goose, sheep sheep, deer
deer, scissors scissor, skis ski, dresses dress, toothbrushes toothbrush, keys key, trays tray, tvs tv, wolves wolf,
puppies puppy, sandwiches sandwich, mattresses mattress
"""
ONES = "bus glass gas lens dress cactus tennis grass asparagus canvas mattress iris news us ramen a".split()


@pytest.mark.parametrize("pair", [pair.split() for pair in PAIRS.replace("\n", " ").split(",")])
def test_one_of_many(pair):
    assert singularize(pair[0]) == pair[1]
    assert singularize(pair[1]) == pair[1]


@pytest.mark.parametrize("word", ONES)
def test_what_is_one_already_stays(word):
    assert singularize(word) == word


@given(st.text(max_size=20))
@example("\r")
def test_any_text_has_one_and_an_article(text):
    one = singularize(text)
    assert len(one) <= len(text) + 1
    assert with_article(text).endswith(text)


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        *(("dog", "a dog"), ("apple", "an apple"), ("orange cup", "an orange cup"), ("brown apple", "a brown apple")),
        *(("hourglass", "an hourglass"), ("horse", "a horse"), ("umbrella", "an umbrella"), ("urn", "an urn")),
        *(("unicycle", "a unicycle"), ("uniform", "a uniform"), ("urinal", "a urinal"), ("utensil", "a utensil")),
        *(("ukulele", "a ukulele"), ("ewe", "a ewe"), ("european flag", "a european flag"), ("onion", "an onion")),
        *(("tv", "a tv"), ("lcd screen", "an lcd screen"), ("cd", "a cd"), ("suv", "an suv"), ("x-ray", "an x-ray")),
        *(("scissors", "scissors"), ("skis", "skis"), ("french fries", "french fries"), ("broccoli", "broccoli")),
        *(("green grass", "green grass"), ("pair of skis", "a pair of skis"), ("people", "people"), ("bus", "a bus")),
        *(("glass", "a glass"), ("yacht", "a yacht"), ("one-way sign", "a one-way sign"), ("", ""), ("犬", "a 犬")),
    ],
)
def test_the_article_is_by_sound(noun, said):
    assert with_article(noun) == said


def test_many_by_the_last_word_before_of():
    assert is_plural("glasses of wine")
    assert not is_plural("glass of grapes")
    assert not is_plural("")
