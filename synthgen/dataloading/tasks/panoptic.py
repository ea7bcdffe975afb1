"""Panoptic segmentation: each thing by itself, and all stuff of a category as one segment."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import (
    build_target,
    extract_regions,
    get_gap_masks,
    get_region_mask,
    merge_by_category,
    merge_duplicates,
)
from synthgen.dataloading.tasks._texts import MAX_TEXTS, build_label_space
from synthgen.records.sample import Sample

METRIC = "pq"
AUGMENTATION = "jitter"


def target(
    sample: Sample, categories: Sequence[str], rng: random.Random, *, max_texts: int = MAX_TEXTS
) -> Target | None:
    """Things first, then stuff; None: the image has no segment.

    Pixels without a segment are background for every text, as in Mask2Former's mapper. Only crowds, segments without a
    name, and stuff with an incomplete mask are ignored. Parts of objects belong to the objects. Overlapping masks, as
    of instances, stay unchanged.

    Args:
        sample: the image with its annotations.
        categories: the unique category names of the source, for negatives.
        rng: decides every random draw.
        max_texts: the largest number of texts; a larger label space is subsampled.
    """
    found = [place for place in extract_regions(sample) if not place.is_part]
    named = [place for place in found if place.category and not place.is_crowd]
    objects = merge_duplicates(p for p in named if p.is_thing) + merge_by_category(p for p in named if not p.is_thing)
    if not objects:
        return None
    others = [place for place in found if place.is_crowd or not place.category]
    names = [place.category for place in objects]
    texts = build_label_space(set(names), {p.category for p in others}, sample, categories, rng, max_texts)
    return build_target(
        objects, names, texts, [*(get_region_mask(place, sample) for place in others), *get_gap_masks(objects, sample)]
    )
