"""Splits a label map into regions: box and mask of each label, in one pass over the pixels."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.images.decode import ImageError
from synthgen.records.rle import encode_run_boundaries, rle_bbox_xyxy
from synthgen.records.sample import Rle

#: A map with more labels, or with more runs in its columns, is a photograph or noise. The largest real maps have some
#: hundred labels, and a hundred runs per column.
MAX_LABELS = 4_096
MAX_RUNS = 2**22

_STRIP_PIXELS = 2**21  # pixels that are transposed at once; they fit a CPU cache


class LabelRegion(NamedTuple):
    """All pixels of one label.

    Attributes:
        label: the number in the map.
        bbox: the pixels' tight box, XYWH, absolute pixels.
        mask: the pixels.
    """

    label: int
    bbox: tuple[float, float, float, float]
    mask: Rle


def split_label_regions(labels: NDArray[Any], ignore_labels: Container[int] = ()) -> list[LabelRegion]:
    """The regions of a label map, integers or bool [H, W], in the order of labels, without `ignore_labels`.

    The columns are split into runs of one label, and the runs sorted by label. So the cost is one pass over the pixels
    plus the runs, for any number of labels; full masks are never made. Memory is the map and some 50 bytes per run.

    Args:
        labels: integers or bool [H, W].
        ignore_labels: labels without a region.

    Raises:
        ImageError: more than `MAX_LABELS` labels or `MAX_RUNS` runs.
    """
    height, width = labels.shape
    starts, values = _label_runs(labels)
    ends = np.append(starts[1:], height * width)
    order = np.argsort(values, kind="stable")
    firsts = np.flatnonzero(np.diff(values[order], prepend=-1))
    if len(firsts) > MAX_LABELS:
        raise ImageError(f"has {len(firsts):,} labels, more than the limit of {MAX_LABELS:,}: is it a photograph?")
    found = []
    for first, last in zip(firsts.tolist(), [*firsts[1:].tolist(), len(order)], strict=True):
        own = order[first:last]
        label = int(values[own[0]])
        if label in ignore_labels:
            continue
        mask = encode_run_boundaries(np.stack([starts[own], ends[own]], axis=1).reshape(-1), height, width)
        x1, y1, x2, y2 = rle_bbox_xyxy(mask)
        found.append(LabelRegion(label, (x1, y1, x2 - x1, y2 - y1), mask))
    return found


def relabel_in_place(labels: NDArray[Any], relabel: Callable[[NDArray[Any], slice], NDArray[Any]]) -> NDArray[Any]:
    """Replace the labels of a map, some rows at a time, so that what is computed for it takes little memory.

    Args:
        labels: integers [H, W], which are changed; writable.
        relabel: some rows of the map, and which ones these are -> their new labels.

    Returns:
        The same array.
    """
    rows = max(1, _STRIP_PIXELS // max(1, labels.shape[1]))
    for top in range(0, labels.shape[0], rows):
        place = slice(top, top + rows)
        labels[place] = relabel(labels[place], place)
    return labels


def _label_runs(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first position (column * height + row) of each run, and its label: int64 [R] each.

    It works on strips of columns: transposing the whole map would double the memory.
    """
    height, width = labels.shape
    columns = max(1, _STRIP_PIXELS // height)
    starts, values, count = [], [], 0
    last: Any = None
    for left in range(0, width, columns):
        strip = np.ascontiguousarray(labels[:, left : left + columns].T).reshape(-1)
        own = np.flatnonzero(strip[1:] != strip[:-1]) + 1
        if strip[0] != last:
            own = np.append(0, own)
        count += len(own)
        if count > MAX_RUNS:
            raise ImageError(f"changes its label more than {MAX_RUNS:,} times: is it noise?")
        starts.append(own + left * height)
        values.append(strip[own].astype(np.int64))
        last = strip[-1]
    return np.concatenate(starts), np.concatenate(values)
