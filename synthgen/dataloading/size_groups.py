"""Cuts the images of a step into parts of similar size, so that little of a batch is padding.

Views differ much in size: large-scale jitter gives 102 to 1024 pixels, a foreground view has 384. A batch is padded to
its largest view. detectron2 (`AspectRatioGroupedDataset`) and the bucketing samplers choose the images of a batch by
size, so that a step holds images of one kind. Here the images of a step stay the same. Only the batches that a process
trains on one after the other are formed by size. As the losses of all of them are divided by the objects of the whole
step, what is learned does not depend on the cut, but for the padding that the backbone sees at an image's border.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Sides of a batch are multiples of this, the largest stride of the backbones.
SIZE_DIVISIBILITY = 32

#: What one more batch costs besides its pixels, in pixels: the fixed time of a forward and backward pass on a GPU,
#: and too few images to use it well. Half an image of 1024 x 1024.
BATCH_COST_PIXELS = 512 * 1024


def round_up_size(sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """(height, width) of the smallest canvas for images of these `sizes`, (height, width) each; (0, 0) for none."""
    height, width = (
        -(-max((size[axis] for size in sizes), default=0) // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY for axis in (0, 1)
    )
    return height, width


def split_by_size(sizes: Sequence[tuple[int, int]], max_images: int) -> list[list[int]]:
    """Cut images into batches so that their padded pixels and the number of batches cost the least.

    Images are sorted by padded size, and the best cuts of that order are found (dynamic programming). Images of one
    padded size keep their order and are cut like batches of `max_images`.

    Args:
        sizes: (height, width) of each image, in pixels.
        max_images: the maximum number of images of a batch.

    Returns:
        The indices of the images of each batch, ascending; batches in the order of their first index.
    """
    canvases = [round_up_size([size]) for size in sizes]
    order = sorted(range(len(sizes)), key=canvases.__getitem__)
    costs, starts = [0], [0]  # of the first images of `order`: the least cost, and where their last batch starts
    for end in range(1, len(order) + 1):
        height = width = 0
        choices = []
        for start in range(end - 1, max(-1, end - max_images - 1), -1):
            height = max(height, canvases[order[start]][0])
            width = max(width, canvases[order[start]][1])
            choices.append((costs[start] + BATCH_COST_PIXELS + (end - start) * height * width, start))
        cost, start = min(choices)
        costs.append(cost)
        starts.append(start)
    batches, end = [], len(order)
    while end:
        batches.append(sorted(order[starts[end] : end]))
        end = starts[end]
    return sorted(batches)
