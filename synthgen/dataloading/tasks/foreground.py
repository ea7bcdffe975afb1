"""Foreground segmentation: everything that stands out, as one object of any category."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._places import build_target, extract_regions, get_gap_masks, merge_regions
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.records.sample import Sample

METRIC = "maxf"
AUGMENTATION = "foreground"

#: The only text of every image.
TEXT = "foreground"


def target(
    sample: Sample,
    categories: Sequence[str],  # noqa: ARG001 - there is one text, and what it does not name is background
    rng: random.Random,  # noqa: ARG001 - nothing is drawn
    *,
    max_texts: int = MAX_TEXTS,  # noqa: ARG001
) -> Target | None:
    """The union of all annotations, crowds included, as one object, in the box around all of them.

    In boxes of annotations without a mask, no absence of the foreground is learned.

    An image with an empty mask or without annotations teaches absence: the text without an object. None: the foreground
    is unknown, because an annotation has neither mask nor box, or the sample could not be read.

    Args:
        sample: the image with its annotations.
        categories: not used, as there is one text.
        rng: not used, as nothing is drawn.
        max_texts: not used, as there is one text.
    """
    found = extract_regions(sample)
    if found:
        objects = [merge_regions(found)]
        return build_target(objects, [TEXT], (TEXT,), get_gap_masks(objects, sample))
    unknown = sample.error is not None or any(a.segmentation is None for a in sample.annotations)
    return None if unknown else build_target([], [], (TEXT,), [])
