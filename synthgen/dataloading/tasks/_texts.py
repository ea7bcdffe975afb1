"""The label space of an image: the names of its objects, and negatives."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from synthgen.records.sample import Sample

#: Number of names of Objects365, the largest exhaustively labelled label space, so that all of them fit.
MAX_TEXTS = 365


def build_label_space(
    positives: Collection[str],
    ignored_names: Collection[str],
    sample: Sample,
    categories: Sequence[str],
    rng: random.Random,
    max_texts: int,
) -> tuple[str, ...]:
    """Unique texts: all positives, and the source's other names as negatives.

    If there are at most `max_texts` names, they are in the order of `categories`, which is the same for most images, so
    that their embeddings can be cached. Otherwise negatives are drawn up to `max_texts` and all names are sorted, so
    that the position does not reveal the positives. Positives are never dropped. Names are compared as spelt, even if a
    text encoder cleans two of them to the same text.

    A name is not a negative if an annotation of the sample has it that this task does not learn: stuff for a task of
    things, or an object without a usable region.

    If a sample lists the names that were looked for (LVIS), those not found are the only negatives. A name with more
    objects than annotations stays the text of the annotated ones; the others count as negatives, as in LVIS' own
    losses, because a Target cannot express partial absence. Without an annotation it is not a text.

    Args:
        positives: names of labels.
        ignored_names: names of ignored regions; they are negatives in the rest of the image.
        sample: gives the names of all annotations, and those that were looked for.
        categories: the unique category names of the source.
        rng: draws the negatives.
        max_texts: the maximum number of texts, unless there are more positives.
    """
    shown = {annotation.category for annotation in sample.annotations}.union(positives)
    unsure = shown.difference(ignored_names).union([""], sample.not_exhaustive_categories).difference(positives)
    names = categories if sample.neg_categories is None else sorted({*sample.neg_categories, *positives})
    if len(names) <= max_texts:
        every = dict.fromkeys([*(n for n in names if n not in unsure), *sorted(positives)])
        if len(every) <= max_texts:
            return tuple(every)
    # Draw some more than needed: the cost depends on the draws, not on the names, of which there may be 100,000.
    left_out = unsure.union(positives)
    wanted = max(0, max_texts - len(positives))
    drawn = rng.sample(range(len(names)), min(len(names), wanted + len(left_out)))
    others = dict.fromkeys(names[i] for i in drawn if names[i] not in left_out)
    return tuple(sorted([*set(positives), *list(others)[:wanted]]))
