"""An image's label space: the names of what it shows, and names of what it does not show."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from synthgen.records.sample import Sample

#: As many names as the largest label space with exhaustive labels has, Objects365: all of them fit.
MAX_TEXTS = 365


def build_label_space(
    positives: Collection[str],
    ignored_names: Collection[str],
    sample: Sample,
    categories: Sequence[str],
    rng: random.Random,
    max_texts: int,
) -> tuple[str, ...]:
    """Texts without repetition: all positives, and as negatives the source's other names.

    Where all names are at most `max_texts`, they stand in the order of `categories`, the same for most images, so that
    their embeddings can be kept. Otherwise other names are drawn until there are `max_texts`, and all are sorted, so
    that no place tells a positive; positives are never left out. Names are taken as they are spelt: two that differ
    stay two, also where a text encoder would clean them to the same.

    A name is no negative where the sample's own annotations have it, but as nothing that this task learns: stuff for a
    task of things, or an object that has no usable place.

    Where a sample says which names were looked for (LVIS), those not found are the only negatives. A name of which it
    has more objects than annotations stays the text of those that are annotated, and the others count against it, as in
    LVIS' own losses: a Target has no word for "absent, but here and there". Without an annotation it is no text.

    Args:
        positives: names that labels will point to.
        ignored_names: names of ignored places, which are negatives everywhere else in the image.
    """
    shown = {annotation.category for annotation in sample.annotations}.union(positives)
    unsure = shown.difference(ignored_names).union([""], sample.not_exhaustive_categories).difference(positives)
    names = categories if sample.neg_categories is None else sorted({*sample.neg_categories, *positives})
    if len(names) <= max_texts:
        every = dict.fromkeys([*(n for n in names if n not in unsure), *sorted(positives)])
        if len(every) <= max_texts:
            return tuple(every)
    # More than are wanted are drawn, at the cost of the draw and not of the names, as these may be 100,000.
    left_out = unsure.union(positives)
    wanted = max(0, max_texts - len(positives))
    drawn = rng.sample(range(len(names)), min(len(names), wanted + len(left_out)))
    others = dict.fromkeys(names[i] for i in drawn if names[i] not in left_out)
    return tuple(sorted([*set(positives), *list(others)[:wanted]]))
