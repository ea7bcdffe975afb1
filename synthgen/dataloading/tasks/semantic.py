"""Semantic segmentation: one region per category, for things, stuff and crowds."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import build_target, extract_regions, merge_by_category
from synthgen.dataloading.tasks._texts import MAX_TEXTS, build_label_space
from synthgen.records.rle_ops import rle_from_box
from synthgen.records.sample import Sample

METRIC = "miou"
AUGMENTATION = "semantic"


def target(
    sample: Sample, categories: Sequence[str], rng: random.Random, *, max_texts: int = MAX_TEXTS
) -> Target | None:
    """The union of all annotations of each category; None: the image has no named annotation.

    Crowds are ordinary pixels of their category. Pixels without a mask are unlabelled and ignored: the void of a label
    map, annotations without a name or mask, and everything that an instance dataset does not annotate. Parts of objects
    belong to the objects. Where masks overlap, a pixel is in both regions.

    Args:
        sample: the image with its annotations.
        categories: the unique category names of the source, for negatives.
        rng: decides every random draw.
        max_texts: the largest number of texts; a larger label space is subsampled.
    """
    objects = merge_by_category(place for place in extract_regions(sample) if place.category and not place.is_part)
    if not objects:
        return None
    names = [place.category for place in objects]
    texts = build_label_space(names, (), sample, categories, rng, max_texts)
    whole = rle_from_box((0, 0, sample.width, sample.height), sample.height, sample.width)
    return build_target(objects, names, texts, [whole])
