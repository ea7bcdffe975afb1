"""Countable things of an image one by one, which `instance` and `detection` learn: with masks, and without."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import build_target, extract_regions, get_region_mask, merge_duplicates
from synthgen.dataloading.tasks._texts import build_label_space
from synthgen.records.sample import Sample


def build_thing_target(sample: Sample, categories: Sequence[str], rng: random.Random, max_texts: int) -> Target | None:
    """A Target of the things that have a name and are no crowd; None where there are none.

    An image without things is left out, as detectron2 leaves it out of training; every other image has negatives.
    Parts of objects (`part`) are things as any other. Stuff is background, and the names of an image's own stuff are no
    negatives of it, as they can be seen there; where a name is a thing's and stuff's, the stuff is ignored.
    """
    found = extract_regions(sample)
    objects = merge_duplicates(place for place in found if place.category and place.is_thing and not place.is_crowd)
    if not objects:
        return None
    names = {place.category for place in objects}
    ignored = [p for p in found if (p.category in names if not p.is_thing else p.is_crowd or not p.category)]
    texts = build_label_space(names, {place.category for place in ignored}, sample, categories, rng, max_texts)
    return build_target(
        objects, [p.category for p in objects], texts, [get_region_mask(place, sample) for place in ignored]
    )
