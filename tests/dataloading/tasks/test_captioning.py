"""Captioning targets: described objects with one of their phrases each."""

from __future__ import annotations

import random

import pytest
from fakes.ascii_samples import ascii_sample, boxed_annotation, human_captions, masked_annotation
from fakes.caption_truth import DRAWN

from synthgen.dataloading.tasks import Target, captioning
from synthgen.records.sample import Sample

pytestmark = pytest.mark.usefixtures("one_thread")


def learn(sample: Sample, *, seed: int = 0, most: int = 365) -> Target | None:
    return captioning.target(sample, ("cat",), random.Random(seed), max_texts=most)


def test_each_described_object_is_a_region_with_one_of_its_phrases():
    sample = ascii_sample(
        DRAWN,
        [
            masked_annotation(
                DRAWN, "a", 1, "cat", bbox=(0.0, 0.0, 3.0, 3.0), captions=human_captions("the cat", "it")
            ),
            masked_annotation(DRAWN, "b", 2, "cat", captions=human_captions("the cat")),
            masked_annotation(DRAWN, "c", 3, "cat"),
            boxed_annotation(4, (0, 0, 1, 1), "", captions=human_captions("  many   cats ")),
            boxed_annotation(5, (0, 0, 2, 2), "cat", iscrowd=True, captions=human_captions("a crowd")),
            boxed_annotation(6, (0, 0, 0, 1), "cat", captions=human_captions("nowhere")),
            boxed_annotation(7, (1, 1, 1, 1), "cat", captions=human_captions("", "  ")),
        ],
    )
    drawn = [learn(sample, seed=seed) for seed in range(20)]
    assert all(sorted(t.annotation_ids) == [(1,), (2,), (4,)] for t in drawn)
    phrases = {(ids, t.texts[label]) for t in drawn for ids, label in zip(t.annotation_ids, t.labels, strict=True)}
    assert phrases == {((1,), "the cat"), ((1,), "it"), ((2,), "the cat"), ((4,), "many cats")}
    first = drawn[0]
    assert first.masks == (None,) * 3 and first.ignore is None
    own = first.boxes_xyxy[first.annotation_ids.index((1,))]
    assert own.tolist() == [0, 0, 3, 3], "the source's box, whatever the mask's is"


def test_of_many_regions_some_are_drawn_and_of_none_there_is_nothing():
    many = ascii_sample(
        DRAWN,
        [boxed_annotation(i, (0, 0, 1 + i % 3, 1 + i // 3), "", captions=human_captions(f"no {i}")) for i in range(9)],
    )
    drawn = [learn(many, seed=seed, most=2) for seed in range(50)]
    assert all(len(t.labels) == len(t.texts) == 2 for t in drawn)
    assert {ids for t in drawn for ids in t.annotation_ids} == {(i,) for i in range(9)}
    assert learn(ascii_sample(DRAWN, [masked_annotation(DRAWN, "a", 1, "cat")])) is None
