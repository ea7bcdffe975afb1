"""Set operations on RLE masks: union, difference, rectangles. The cost depends on the runs, not on the image.

Every input mask is checked. Every output has the bytes that `rle.encode_mask` gives for the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from synthgen.errors import SynthgenError
from synthgen.records.boxes import clip_xyxy
from synthgen.records.rle import MAX_MASK_PIXELS, decode_runs, encode_run_boundaries
from synthgen.records.sample import Rle

#: Weight of a mask that is subtracted: larger than any possible number of masks.
_SUBTRACTED = 2**32


def rle_union(masks: Sequence[Rle]) -> Rle:
    """The union of one or more masks of one size.

    Args:
        masks: at least one.

    Raises:
        SynthgenError: the runs of a mask do not fill its size, or the masks differ in size.
    """
    return _combine(masks, ())


def rle_difference(mask: Rle, others: Sequence[Rle]) -> Rle:
    """The pixels of a mask that are in none of the others; all of one size.

    Args:
        mask: what remains is a part of it.
        others: masks to take away; may be empty.

    Raises:
        SynthgenError: as `rle_union`.
    """
    return _combine((mask,), others)


def rle_from_box(box_xyxy: ArrayLike, height: int, width: int) -> Rle:
    """All pixels of an image that a box touches; none if the box has no area inside it or is not finite.

    Args:
        box_xyxy: float [4] XYXY, absolute pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        SynthgenError: the image is too large for a mask.
    """
    if height <= 0 or width <= 0 or height * width > MAX_MASK_PIXELS:
        raise SynthgenError(f"an image of {height} x {width} pixels can have no mask")
    x1, y1, x2, y2 = clip_xyxy(box_xyxy, height, width).tolist()
    if not (x2 > x1 and y2 > y1):  # true for NaN as well
        return encode_run_boundaries(np.zeros(0, np.int64), height, width)
    columns = np.arange(int(np.floor(x1)), int(np.ceil(x2)), dtype=np.int64)
    edges = columns[:, None] * height + np.array([np.floor(y1), np.ceil(y2)], np.int64)
    return encode_run_boundaries(edges.ravel(), height, width)


def empty_rle(height: int, width: int) -> Rle:
    """The mask without a pixel, of `height` times `width` pixels."""
    return encode_run_boundaries(np.zeros(0, np.int64), height, width)


def is_empty_rle(mask: Rle) -> bool:
    """Whether a mask has no pixel.

    Args:
        mask: of any source; its runs are checked.

    Raises:
        SynthgenError: its runs do not fill its size.
    """
    return not decode_runs(mask)[1::2].any()


def _combine(masks: Sequence[Rle], others: Sequence[Rle]) -> Rle:
    """The pixels that are in one of `masks` and in none of `others`."""
    height, width = masks[0].size
    places, steps = [], []
    for count, side in ((1, masks), (_SUBTRACTED, others)):
        for mask in side:
            if tuple(mask.size) != (height, width):
                raise SynthgenError(f"a mask of {mask.size[0]} x {mask.size[1]} in an image of {height} x {width}")
            runs = decode_runs(mask)
            places.append(np.cumsum(runs)[: runs.size // 2 * 2])  # where mask begins and where it ends, by turns
            steps.append(np.tile(np.array([count, -count], np.int64), runs.size // 2))
    place, step = np.concatenate(places), np.concatenate(steps)
    order = np.argsort(place, kind="stable")
    place, depth = place[order], np.cumsum(step[order])
    # If several runs start or end at one position, the value after it is known after the last of them.
    last = np.append(place[1:] != place[:-1], True)[: place.size]
    place, held = place[last], (depth[last] > 0) & (depth[last] < _SUBTRACTED)
    changed = held != np.concatenate([[False], held])[:-1]
    return encode_run_boundaries(place[changed], height, width)
