"""Referring segmentation: every object that somebody described, under one of its own phrases."""

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
    """One phrase drawn for each object that has some; None: the image has no such object.

    Each phrase is a negative for the other objects, so none is drawn from elsewhere, and no object gets one of its own
    phrases as a negative: in a drawn order, an object takes the phrase of an earlier one if it is its own as well, else
    it draws among those that are no earlier one's. Where it has no such phrase nothing tells it apart, and it is
    ignored. Case and blanks make no difference, as no text encoder sees them. Phrases stand in a drawn order; of more
    than `max_texts` the first are taken, and objects of the others are ignored. Crowds are ignored. Objects without a
    phrase are background where people wrote the phrases, who mean one object each; a machine's may fit its neighbour,
    of which it wrote nothing or nothing that was wanted, so there they are ignored.
    """
    found = extract_regions(sample)
    objects = [(place, collect_phrases(place)) for place in merge_duplicates(p for p in found if not p.is_crowd)]
    described = [(place, own) for place, own in objects if own]
    if not described:
        return None
    spelling: dict[str, str] = {}  # of the phrases drawn, by what is compared
    held: set[str] = set()  # all phrases of the objects that have drawn
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
