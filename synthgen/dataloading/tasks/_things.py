"""Targets of countable things, for the tasks `instance` and `detection`."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import build_target, extract_regions, get_region_mask, merge_duplicates
from synthgen.dataloading.tasks._texts import build_label_space
from synthgen.records.sample import Sample


def build_thing_target(sample: Sample, categories: Sequence[str], rng: random.Random, max_texts: int) -> Target | None:
    """A Target of the named things that are not crowds; None if there are none.

    An image without things is skipped, as in detectron2; every other image has negatives. Parts of objects (`part`) are
    ordinary things. Stuff is background, but the names of an image's stuff are not negatives, as they are visible. If a
    name belongs to both a thing and stuff, the stuff is ignored.
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
