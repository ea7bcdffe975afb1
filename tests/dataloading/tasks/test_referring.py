"""Referring targets: one phrase per object, shared phrases, negatives."""

from __future__ import annotations

import random

import pytest
from fakes.ascii_samples import (
    ascii_sample,
    boxed_annotation,
    human_captions,
    letter_mask,
    rle_to_ascii,
)
from fakes.task_targets import PARK, make_target, park_sample, target_names

from synthgen.dataloading.tasks import referring
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Caption


def test_referring_draws_one_phrase_for_each_object_that_has_some():
    targets = [make_target(referring, park_sample(), seed=seed) for seed in range(40)]
    for target in targets:
        assert target.annotation_ids == ((1,), (2,)), "sky and crowd were not described"
        assert target_names(target)[0] == "the left man"
        assert len(target.texts) == 2 and set(target.texts) == set(target_names(target))
        assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))
    drawn = [target_names(target)[1] for target in targets]
    assert {drawn.count(phrase) >= 10 for phrase in ("a dog", "dog at his feet")} == {True}, drawn
    assert {target.texts[0] == "the left man" for target in targets} == {True, False}, "no order tells the object"


def test_a_crowd_is_no_object_whoever_described_it():
    target = make_target(referring, park_sample(c={"captions": human_captions("two men")}))
    assert target.annotation_ids == ((1,), (2,)) and "two men" not in target.texts
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))


def test_objects_of_one_phrase_share_it_whatever_its_case_and_blanks():
    sample = park_sample(
        p={"captions": human_captions("A  dog ")},
        d={"captions": human_captions("a dog")},
        s={"captions": human_captions("the sky")},
    )
    for seed in range(10):
        target = make_target(referring, sample, seed=seed)
        first, second, sky = target_names(target)
        assert first == second and first in ("A dog", "a dog") and sky == "the sky"
        assert len(target.texts) == 2


def test_what_a_machine_left_undescribed_may_fit_its_neighbours_phrase():
    machine = (Caption("a man", "ofa base", -0.4),)
    sample = park_sample(p={"captions": machine}, d={"captions": ()})
    target = make_target(referring, sample)
    assert target.annotation_ids == ((1,),)
    assert (decode_mask(target.ignore) >= (letter_mask(PARK, "d") | letter_mask(PARK, "s"))).all()
    by_people = make_target(referring, park_sample(p={"captions": human_captions("the man")}, d={"captions": ()}))
    assert not (decode_mask(by_people.ignore) & letter_mask(PARK, "d")).any(), "people mean one object"


@pytest.mark.parametrize("order", [1, -1])
def test_no_object_gets_a_phrase_of_its_own_as_a_negative(order):
    """A captioner says "a man" of every man: either all of them are meant, or each is told by another phrase."""
    own = {"p": ("a man", "a man in a hat"), "d": ("A man", "a man in red"), "s": ("a man",)}
    own = {letter: phrases[::order] for letter, phrases in own.items()}
    sample = park_sample(**{letter: {"captions": human_captions(*phrases)} for letter, phrases in own.items()})
    seen = set()
    for seed in range(60):
        target = make_target(referring, sample, seed=seed)
        for (which,), text in zip(target.annotation_ids, target_names(target), strict=True):
            theirs = {phrase.lower() for phrase in own["pdcs"[which - 1]]}
            assert {t.lower() for t in target.texts if t != text}.isdisjoint(theirs)
        assert (target.ignore is not None) and (len(target.annotation_ids) in (2, 3))
        ignored = (decode_mask(target.ignore) & letter_mask(PARK, "s")).any()
        assert ignored == ((4,) not in target.annotation_ids), "what nothing tells apart is neither right nor wrong"
        seen.add(tuple(sorted(target_names(target))))
    assert len(seen) > 2


def test_a_blank_phrase_is_none():
    sample = park_sample(p={"captions": human_captions("", " \n", "a man")}, d={"captions": human_captions("  ")})
    for seed in range(10):
        assert make_target(referring, sample, seed=seed).texts == ("a man",)
    assert (
        referring.target(park_sample(p={"captions": ()}, d={"captions": human_captions("")}), (), random.Random(0))
        is None
    )


def test_a_phrase_needs_no_category_and_no_mask():
    sample = ascii_sample(
        PARK,
        [
            boxed_annotation(1, (0, 0, 3, 2), "", captions=human_captions("grey sky")),
            boxed_annotation(2, (0, 0, 3, 2), ""),
        ],
    )
    target = make_target(referring, sample)
    assert target.texts == ("grey sky",) and target.masks == (None,)
    assert target.annotation_ids == ((1, 2),), "one region, given twice"


def test_more_phrases_than_texts_are_drawn_from():
    sample = ascii_sample(
        PARK, [boxed_annotation(i, (i / 100, 0, 2, 2), "dog", captions=human_captions(f"dog {i}")) for i in range(200)]
    )
    targets = [make_target(referring, sample, seed=seed, max_texts=20) for seed in (1, 2)]
    for target in targets:
        assert len(target.texts) == len(target.labels) == 20
        assert target_names(target) == [f"dog {i}" for (i,) in target.annotation_ids]
    assert targets[0].annotation_ids != targets[1].annotation_ids
