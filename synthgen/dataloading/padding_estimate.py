"""Estimates how much of a manifest's batches is padding, from the sizes of images and the drawing of views."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from synthgen import plugins
from synthgen.dataloading.augment import make_random_transform
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.size_groups import round_up_size, split_by_size
from synthgen.dataloading.source_config import TASKS_PACKAGE

#: Images that are drawn, and of how many a step has at most here, as a cut of many images takes long.
_NUM_DRAWN, _MAX_STEP = 1024, 256

#: (height, width) that is assumed for images whose size is not in their layer.
_TYPICAL_SIZE = (480, 640)


class PaddingEstimate(NamedTuple):
    """Pixels of batches in units of the pixels of their views; 1 = nothing is padding.

    Attributes:
        fixed: padded to fixed canvases.
        by_size: with `schedule.group_by_size`.
    """

    fixed: float
    by_size: float


def estimate_padding(manifest: Manifest, image_sizes: Sequence[Sequence[tuple[int, int]]]) -> PaddingEstimate:
    """Draw the views of some steps of one process, and pad them both ways.

    Args:
        manifest: has a mixture for the network of `model`.
        image_sizes: for each source, (height, width) of some of its images, in pixels; 0 = unknown.
    """
    rng = random.Random(manifest.seed)  # noqa: S311 - an estimate
    kinds = [plugins.load_plugin(TASKS_PACKAGE, source.task).AUGMENTATION for source in manifest.mixture]
    ratios = [source.ratio for source in manifest.mixture]
    step = min(manifest.schedule.batch_size, _MAX_STEP)
    most = max(1, step // manifest.schedule.accumulation_steps)
    seen = fixed = by_size = 0
    for _ in range(-(-_NUM_DRAWN // step)):
        views = []
        for source in rng.choices(range(len(ratios)), ratios, k=step):
            height, width = rng.choice(image_sizes[source] or [_TYPICAL_SIZE])
            size = (height, width) if height and width else _TYPICAL_SIZE
            views.append(make_random_transform(kinds[source], size, manifest.augment, rng))
        sizes = [view.size for view in views]
        seen += sum(height * width for height, width in sizes)
        by_size += sum(_padded_pixels([sizes[i] for i in own]) for own in split_by_size(sizes, most))
        canvases = [view.canvas_size for view in views]
        fixed += sum(_padded_pixels(canvases[start : start + most]) for start in range(0, step, most))
    return PaddingEstimate(fixed / seen, by_size / seen)


def _padded_pixels(sizes: Sequence[tuple[int, int]]) -> int:
    height, width = round_up_size(sizes)
    return len(sizes) * height * width
