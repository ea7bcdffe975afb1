"""Box-prompted segmentation: the mask of the object in a given box, as a segmenter draws it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import build_target, extract_regions, merge_duplicates
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.records.sample import Sample

METRIC = "mask_iou"
AUGMENTATION = "whole"

#: The text of objects without a category.
UNNAMED = "object"


def target(
    sample: Sample,
    categories: Sequence[str],  # noqa: ARG001 - a box is the only prompt
    rng: random.Random,
    *,
    max_texts: int = MAX_TEXTS,
) -> Target | None:
    """Things and stuff that have a mask and are no crowds, with their annotated boxes; None: the image has none.

    At most `max_texts` objects are drawn. The texts are their categories, which the evaluation reports.

    Args:
        sample: the image with its annotations.
        categories: not used, as a box is the only prompt.
        rng: draws the objects if there are more than `max_texts`.
        max_texts: the largest number of objects.
    """
    found = merge_duplicates(region for region in extract_regions(sample) if not region.is_crowd)
    masked = [region for region in found if region.mask is not None]
    if not masked:
        return None
    drawn = sorted(rng.sample(range(len(masked)), min(len(masked), max_texts)))
    regions = [masked[i] for i in drawn]
    names = [region.category or UNNAMED for region in regions]
    made = build_target(regions, names, tuple(dict.fromkeys(names)), [])
    # The prompt is the box that people drew, even where it is not tight: a segmenter gets such boxes, too.
    return replace(made, box_prompted=tuple(i for i, region in enumerate(regions) if region.has_annotated_box))
