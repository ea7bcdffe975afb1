"""A sample with things, stuff, crowds and phrases, and what a task makes of it."""

from __future__ import annotations

import random
from dataclasses import replace

from fakes.ascii_samples import (
    ascii_sample,
    human_captions,
    masked_annotation,
)
from synthgen.dataloading.tasks import Target, Task
from synthgen.records.sample import Sample

CATEGORIES = ("person", "dog", "sky", "sky-other")


#: A person (p), a dog (d), a crowd of persons (c), sky (s) and void (.).
PARK = """
ssssss
ssssss
pp..cc
pp..cc
dd..cc
"""


def park_sample(**changes: dict[str, object]) -> Sample:
    """The scene of `PARK`; `changes` are made to annotations by letter."""
    given = {
        "p": masked_annotation(PARK, "p", 1, "person", captions=human_captions("the left man")),
        "d": masked_annotation(PARK, "d", 2, "dog", captions=human_captions("a dog", "dog at his feet")),
        "c": masked_annotation(PARK, "c", 3, "person", iscrowd=True, flags=("crowd",)),
        "s": masked_annotation(PARK, "s", 4, "sky", isthing=False),
    }
    return ascii_sample(PARK, [replace(a, **changes.get(letter, {})) for letter, a in given.items()])


def make_target(task: Task, sample: Sample, *, seed: int = 0, **options: int) -> Target:
    target = task.target(sample, CATEGORIES, random.Random(seed), **options)
    assert target is not None
    return target


def target_names(target: Target) -> list[str]:
    return [target.texts[label] for label in target.labels]
