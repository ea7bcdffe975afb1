"""Forms the batches of a step anew, by the size of their views, where they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from synthgen.dataloading.collate import PackedBatch
from synthgen.dataloading.size_groups import split_by_size


def form_parts(batches: Iterator[PackedBatch], *, num_batches: int, max_images: int) -> Iterator[PackedBatch]:
    """Form the batches of each step anew, by the size of their images. No image is copied.

    Args:
        batches: packed batches of images without padding (`collate` with `trim`), endlessly.
        num_batches: the batches of a step.
        max_images: the maximum number of images of a part.

    Yields:
        The parts of each step. The last one has the turns of all its batches.
    """
    while len(step := list(islice(batches, num_batches))) == num_batches:  # else the readers were stopped
        parts = _split_step(step, max_images)
        del step
        while parts:
            yield parts.pop(0)  # no variable keeps a part in memory while the next step is read


def _split_step(batches: Sequence[PackedBatch], max_images: int) -> list[PackedBatch]:
    """The parts of one step."""
    pixels = [one for batch in batches for one in batch.pixels]
    targets = [target for batch in batches for target in batch.targets]
    source_ids = [source for batch in batches for source in batch.source_ids]
    parts = [
        PackedBatch([pixels[i] for i in own], [targets[i] for i in own], [source_ids[i] for i in own])
        for own in split_by_size([target["size"] for target in targets], max_images)
    ]
    parts[-1].turns = [turn for batch in batches for turn in batch.turns]
    return parts
