"""Instance segmentation: every countable thing with its mask, under the name of its category."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthgen.dataloading.tasks import Target
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.dataloading.tasks._things import build_thing_target
from synthgen.records.sample import Sample

METRIC = "ap"
AUGMENTATION = "jitter"


def target(
    sample: Sample, categories: Sequence[str], rng: random.Random, *, max_texts: int = MAX_TEXTS
) -> Target | None:
    """Things with their masks. A thing without a usable mask gives its class and box. None: the image has no thing.

    Args:
        sample: the image with its annotations.
        categories: the unique category names of the source, for negatives.
        rng: decides every random draw.
        max_texts: the largest number of texts; a larger label space is subsampled.
    """
    return build_thing_target(sample, categories, rng, max_texts)
