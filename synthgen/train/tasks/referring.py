"""Referring segmentation: every object that somebody described, under one of its own phrases."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.records.sample import Sample
from synthgen.train.tasks import Target
from synthgen.train.tasks._places import distinct, places, region, target_of
from synthgen.train.tasks._texts import MAX_TEXTS

METRIC = "ciou"
AUGMENTATION = "whole"


def target(
    sample: Sample,
    categories: Sequence[str],  # noqa: ARG001 - phrases are their own negatives
    rng: random.Random,
    *,
    max_texts: int = MAX_TEXTS,
) -> Target | None:
    """One phrase drawn for each object that has some; None: the image has no such object.

    Each phrase is a negative for the other objects, so none is drawn from elsewhere. Objects that drew the same phrase
    share it, whatever its letters' case and blanks, which no text encoder sees. Phrases stand in a drawn order; of more
    than `max_texts` the first are taken, and objects of the others are background, as are objects without a phrase.
    Crowds are ignored.
    """
    found = places(sample)
    drawn = []
    for place in distinct(place for place in found if not place.is_crowd):
        phrases = [" ".join(caption.text.split()) for a in place.annotations for caption in a.captions]
        if any(phrases):
            drawn.append((place, rng.choice([phrase for phrase in phrases if phrase])))
    if not drawn:
        return None
    spelling: dict[str, str] = {}
    for _, phrase in drawn:
        spelling.setdefault(phrase.lower(), phrase)
    texts = rng.sample(list(spelling.values()), min(len(spelling), max_texts))
    wanted = set(texts)
    taken = [(place, text) for place, phrase in drawn if (text := spelling[phrase.lower()]) in wanted]
    crowds = [region(place, sample) for place in found if place.is_crowd]
    return target_of([place for place, _ in taken], [text for _, text in taken], tuple(texts), crowds)
