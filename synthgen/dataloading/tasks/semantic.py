"""Semantic segmentation: one region for each category, of things, stuff and crowds alike."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import by_category, places, target_of
from synthgen.dataloading.tasks._texts import MAX_TEXTS, label_space
from synthgen.records.rle_ops import rectangle
from synthgen.records.sample import Sample

METRIC = "miou"
AUGMENTATION = "semantic"


def target(
    sample: Sample, categories: Sequence[str], rng: random.Random, *, max_texts: int = MAX_TEXTS
) -> Target | None:
    """The union of all annotations of each category; None: the image has no annotation with a name.

    A crowd is pixels of its category as any other. What no mask covers is unlabelled, not empty, and ignored: the void
    of a label map, what has no name or no mask, and all that a source of instances leaves out. Parts of objects belong
    to the objects. Where masks overlap, as those of instances do, a pixel is in both regions.
    """
    objects = by_category(place for place in places(sample) if place.category and not place.is_part)
    if not objects:
        return None
    names = [place.category for place in objects]
    texts = label_space(names, (), sample, categories, rng, max_texts)
    whole = rectangle((0, 0, sample.width, sample.height), sample.height, sample.width)
    return target_of(objects, names, texts, [whole])
