"""Referring segmentation: every object with phrases, under one of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._phrases import collect_phrases, normalize_phrase
from synthgen.dataloading.tasks._places import build_target, extract_regions, get_region_mask, merge_duplicates
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.records.sample import Sample

METRIC = "ciou"
AUGMENTATION = "whole"


def target(
    sample: Sample,
    categories: Sequence[str],  # noqa: ARG001 - phrases are their own negatives
    rng: random.Random,
    *,
    max_texts: int = MAX_TEXTS,
) -> Target | None:
    """One random phrase for each object that has phrases; None: the image has no such object.

    Each phrase is a negative for the other objects, so no other negatives are drawn. No object gets one of its own
    phrases as a negative: in random order, an object takes the phrase of an earlier object if it shares it; else it
    draws among the phrases that no earlier object has. An object without such a phrase is ambiguous and ignored. Case
    and spaces are ignored, as in text encoders. Phrases are in random order; the first `max_texts` are used, and the
    objects of the rest are ignored. Crowds are ignored. Objects without a phrase are background if people wrote the
    phrases, as a human phrase means one object. A generated phrase may also fit a neighbour, so then they are ignored.

    Args:
        sample: the image with its annotations.
        categories: not used, as phrases are their own negatives.
        rng: draws the phrases and their order.
        max_texts: the largest number of phrases.
    """
    found = extract_regions(sample)
    objects = [(place, collect_phrases(place)) for place in merge_duplicates(p for p in found if not p.is_crowd)]
    described = [(place, own) for place, own in objects if own]
    if not described:
        return None
    spelling: dict[str, str] = {}  # of the drawn phrases, by comparison key
    held: set[str] = set()  # all phrases of the objects that have drawn one
    drawn: dict[int, str] = {}
    for i in rng.sample(range(len(described)), len(described)):
        _, own = described[i]
        free = [phrase for key, phrase in own.items() if key not in held]
        if shared := [spelling[key] for key in own if key in spelling]:
            drawn[i] = rng.choice(shared)
        elif free:
            drawn[i] = rng.choice(free)
            spelling[normalize_phrase(drawn[i])] = drawn[i]
        held |= own.keys()
    texts = rng.sample(list(spelling.values()), min(len(spelling), max_texts))
    wanted = set(texts)
    taken = [(place, drawn[i]) for i, (place, _) in enumerate(described) if drawn.get(i) in wanted]
    left = [place for i, (place, _) in enumerate(described) if drawn.get(i) not in wanted]
    if any(c.source != "human" for place, _ in described for a in place.annotations for c in a.captions):
        left += [place for place, own in objects if not own]
    ignored = [get_region_mask(place, sample) for place in (*left, *(p for p in found if p.is_crowd))]
    return build_target([place for place, _ in taken], [text for _, text in taken], tuple(texts), ignored)
