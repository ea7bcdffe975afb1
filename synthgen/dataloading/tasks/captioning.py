"""Captioning: generate a phrase for an object from the image and the object's box."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._phrases import collect_phrases
from synthgen.dataloading.tasks._places import build_target, extract_regions, merge_duplicates
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.records.sample import Sample

METRIC = "cider"
AUGMENTATION = "square"


def target(
    sample: Sample,
    categories: Sequence[str],  # noqa: ARG001 - a captioner is asked for no names
    rng: random.Random,
    *,
    max_texts: int = MAX_TEXTS,
) -> Target | None:
    """One random phrase for each object that has phrases; None: the image has no such object.

    At most `max_texts` objects are drawn. Boxes are the source's, even if there are masks, because a captioner is
    prompted with boxes. Crowds are never prompted. Two objects may have the same phrase.

    Args:
        sample: the image with its annotations.
        categories: not used, as a captioner is asked for no names.
        rng: draws the objects and the phrases.
        max_texts: the largest number of objects.
    """
    found = merge_duplicates(place for place in extract_regions(sample) if not place.is_crowd)
    described = [(place, own) for place in found if (own := collect_phrases(place))]
    if not described:
        return None
    drawn = rng.sample(described, min(len(described), max_texts))
    captions = [rng.choice(list(own.values())) for _, own in drawn]
    made = build_target([place for place, _ in drawn], captions, tuple(dict.fromkeys(captions)), [])
    return replace(made, masks=(None,) * len(drawn), box_prompted=())
