"""Ground truth of one image whose objects have given phrases."""

from __future__ import annotations

import random
from dataclasses import replace

from fakes.ascii_samples import ascii_sample, human_captions
from synthgen.dataloading.tasks import captioning
from synthgen.evaluation.metrics import GroundTruth
from synthgen.records.sample import Annotation

DRAWN = """
aab
aab
..c
"""


def ground_truth_of(*phrases: tuple[str, ...]) -> GroundTruth:
    """Of one image, one object for each."""
    drawn = [
        Annotation(i, (0.0, 0.0, 1.0, 1.0 + i), "", captions=human_captions(*own)) for i, own in enumerate(phrases)
    ]
    sample = replace(ascii_sample(DRAWN, []), annotations=tuple(drawn), height=50, width=50)
    made = captioning.target(sample, (), random.Random(0))
    order = [made.annotation_ids.index((i,)) for i in range(len(phrases))]
    ids = tuple(made.annotation_ids[i] for i in order)
    return GroundTruth(sample, replace(made, labels=made.labels[order], annotation_ids=ids))
