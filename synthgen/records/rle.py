"""Masks: binary arrays, COCO run-length encodings and polygons. Only this module turns one into another.

One direction is elsewhere: `synthgen.export.polygons` makes polygons of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from synthgen.errors import SynthgenError
from synthgen.records.rle_codec import decode_counts, encode_counts, sum_many_counts
from synthgen.records.sample import Rle

#: Images with more pixels have no masks: cocoapi stores runs in 32 bits and encodes them with shifts of an `int`.
MAX_MASK_PIXELS = 2**29

#: cocoapi does not encode larger masks: if every run of a mask takes six characters, which needs two runs of 2^24
#: pixels, its `rleToString` writes one byte out of bounds (pycocotools 2.0.11).
_COCOAPI_MAX_PIXELS = 2**25 - 1

#: Maximum length of a polygon's outline in pixels; cocoapi needs some 40 bytes for each.
MAX_POLYGON_PERIMETER = 4_000_000

#: Bytes that COCO's text form may contain.
_COUNTS_ALPHABET = bytes(range(48, 112))


@dataclass(frozen=True, slots=True)
class MaskWindow:
    """A mask, cut out of its image.

    Attributes:
        pixels: bool [h, w], contiguous rows; the mask is zero outside.
        top: first row of the window in the image, in pixels.
        left: first column of the window in the image, in pixels.
    """

    pixels: NDArray[np.bool_]
    top: int = 0
    left: int = 0


def encode_mask(mask: NDArray[Any]) -> Rle:
    """`mask`, bool or uint8 [H, W] -> COCO compressed RLE; every non-zero value is foreground."""
    if mask.size > _COCOAPI_MAX_PIXELS:
        return encode_mask_window(mask, 0, 0, *mask.shape)
    filled = mask if mask.dtype == bool else mask != 0  # cocoapi starts a run at every change of value
    found = coco_mask.encode(np.asfortranarray(filled, dtype=np.uint8))
    return Rle(size=(int(mask.shape[0]), int(mask.shape[1])), counts=found["counts"])


def encode_mask_window(window: NDArray[Any], top: int, left: int, height: int, width: int) -> Rle:
    """Encode a mask that is zero outside a window. The cost depends on the window, not on the image.

    Args:
        window: bool or uint8 [h, w], non-zero = mask; fastest where its columns are contiguous.
        top: first row of the window in the image, in pixels.
        left: first column of the window in the image, in pixels.
        height: of the image, in pixels; the window lies within.
        width: of the image, in pixels.

    Returns:
        The same bytes that `encode_mask` gives for the whole image.
    """
    columns = np.pad(np.asarray(window).T != 0, ((0, 0), (1, 1)))  # [w, 1 + h + 1]: no run leaves its column
    column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])  # each run: its first row, then the row after its last
    return encode_run_boundaries((column + left) * height + row + top, height, width)


def encode_run_boundaries(boundaries: NDArray[np.int64], height: int, width: int) -> Rle:
    """Encode a mask from the column-major positions where it starts and ends, which a GPU can compute.

    Args:
        boundaries: int64 [2 * runs], ascending: alternately the position (column * height + row) of a run's first
            pixel and the position after its last. A run that ends where the next one starts continues.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    return Rle(size=(height, width), counts=encode_counts(_runs_from_boundaries(boundaries, height * width)))


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """COCO compressed RLE -> bool [H, W].

    Args:
        rle: of any source; its runs are checked first.

    Raises:
        SynthgenError: the runs do not fill the stated size (cocoapi would return uninitialised memory).
    """
    check_rle(rle)
    return np.asarray(coco_mask.decode(_to_cocoapi(rle)), dtype=np.bool_)


def decode_mask_window(rle: Rle) -> MaskWindow:
    """The smallest window that holds a mask. The cost depends on the window's columns, not on the image's.

    Args:
        rle: of any source; its runs are checked.

    Returns:
        A window of 0 x 0 pixels if the mask is empty.

    Raises:
        SynthgenError: the runs do not fill the stated size.
    """
    runs = decode_runs(rle)
    height = int(rle.size[0])
    edges = np.cumsum(runs)[: runs.size // 2 * 2]  # alternately where mask begins and where it ends
    begins, ends = edges[::2], edges[1::2]
    filled = np.flatnonzero(runs[1::2])
    if filled.size == 0:
        return MaskWindow(np.zeros((0, 0), np.bool_))
    first, last = filled[0], filled[-1]
    left, right = int(begins[first]) // height, (int(ends[last]) - 1) // height + 1
    inner = runs[2 * first : 2 * last + 3].copy()  # from the background before the mask to the background after it
    inner[0] = begins[first] - left * height
    inner = np.append(inner[: 2 * (last - first + 1)], right * height - ends[last])
    begins, ends = begins[filled], ends[filled] - 1
    top, bottom = 0, height
    if (begins // height == ends // height).all():  # a run over two columns holds the last row and the first
        top, bottom = int((begins % height).min()), int((ends % height).max()) + 1
    columns = np.repeat(np.arange(inner.size) % 2 == 1, inner).reshape(right - left, height)
    return MaskWindow(np.ascontiguousarray(columns[:, top:bottom].T), top, left)


def rle_area(rle: Rle) -> int:
    """Number of pixels in the mask `rle`."""
    return int(coco_mask.area(_to_cocoapi(rle)))


def checked_areas(rles: Sequence[Rle]) -> NDArray[np.int64]:
    """Check masks as `check_rle` does, all at once, and count their pixels: int64 [N].

    Args:
        rles: of any source.

    Raises:
        SynthgenError: one is wrong. `check_rle` says which.
    """
    if not rles:
        return np.zeros(0, np.int64)
    sizes = np.array([rle.size for rle in rles], np.int64)
    pixels = sizes[:, 0] * sizes[:, 1]
    try:
        if sizes.min() < 0 or sizes.max() > MAX_MASK_PIXELS or pixels.max() > MAX_MASK_PIXELS:
            raise ValueError("an image of this size can have no mask")
        inside, covered = sum_many_counts([rle.counts for rle in rles])
        if (covered != pixels).any():
            raise ValueError("its runs do not fill its size")
    except ValueError as why:
        raise SynthgenError(f"a mask of several: {why}") from None
    return inside


def rle_bbox_xyxy(rle: Rle) -> tuple[float, float, float, float]:
    """Tight box (x1, y1, x2, y2) of the mask `rle`, absolute pixels; all zero for an empty mask."""
    x, y, w, h = (float(v) for v in coco_mask.toBbox(_to_cocoapi(rle)))
    return (x, y, x + w, y + h)


def rle_iou(a: Sequence[Rle], b: Sequence[Rle], iscrowd: Sequence[bool] | None = None) -> NDArray[np.float64]:
    """IoU of each mask of `a` with each of `b`: float64 [len(a), len(b)]; for crowd `b`, overlap over area of `a`.

    Args:
        a: masks of one size.
        b: masks of the same size.
        iscrowd: for each mask of `b`, whether it is a crowd; None = none is.

    Raises:
        SynthgenError: the runs of a mask do not fill its size (cocoapi would not terminate).
    """
    for rle in (*a, *b):
        check_rle(rle)
    if not a or not b:
        return np.zeros((len(a), len(b)))
    crowd = [int(c) for c in iscrowd] if iscrowd is not None else [0] * len(b)
    return np.asarray(coco_mask.iou([_to_cocoapi(r) for r in a], [_to_cocoapi(r) for r in b], crowd))


def check_rle(rle: Rle) -> None:
    """Refuse runs that are negative or do not add up to height x width.

    Args:
        rle: of any source.

    Raises:
        SynthgenError: with what is wrong.
    """
    decode_runs(rle)


def decode_runs(rle: Rle) -> NDArray[np.int64]:
    """The checked run lengths of a mask, int64 [R], starting with background.

    Args:
        rle: of any source.

    Raises:
        SynthgenError: as `check_rle`.
    """
    height, width = rle.size
    try:
        runs = decode_counts(rle.counts)
        _check_runs(runs, height, width)
    except ValueError as why:
        raise SynthgenError(f"mask of {height} x {width}: {why}") from None
    return runs


def rle_from_coco(segmentation: Any, height: int, width: int) -> Rle:
    """A COCO `segmentation` value (polygons, uncompressed or compressed RLE) -> compressed RLE of the image's size.

    Polygons are [[x1, y1, x2, y2, ...], ...] in absolute pixels; separate parts become one mask (cocoapi `annToRLE`).
    The value is untrusted. It is checked here because cocoapi does not check its input.

    Args:
        segmentation: as `json` parses it.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        SynthgenError: it is none of the three, a polygon has fewer than three points or reaches further beyond the
            image than the image is large, or the runs of an RLE do not fill its size.
    """
    try:
        if height <= 0 or width <= 0 or height * width > MAX_MASK_PIXELS:
            raise ValueError(f"an image of {height} x {width} pixels can have no mask")
        if isinstance(segmentation, list) and segmentation:
            check_polygons(segmentation, height, width)
            return Rle(size=(height, width), counts=_rasterize_polygons(segmentation, height, width))
        if isinstance(segmentation, dict) and "counts" in segmentation:
            if segmentation.get("size") != [height, width]:
                raise ValueError(f"its RLE is not of the image's size, {height} x {width}")
            return Rle(size=(height, width), counts=_parse_counts(segmentation["counts"], height, width))
    except ValueError as why:  # np.asarray raises it for ragged lists, too
        raise SynthgenError(f"segmentation: {why}") from None
    raise SynthgenError("segmentation: neither a list of polygons nor an RLE of size and counts")


def check_polygons(polygons: list[Any], height: int, width: int) -> None:
    """Refuse polygons that cocoapi would read wrongly, or that take too much memory.

    Args:
        polygons: lists [x1, y1, x2, y2, ...] in absolute pixels; untrusted, so the items may have any type.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        ValueError: with what is wrong.
    """
    outline = 0.0
    for part in polygons:
        # Check types first: numpy would allocate for the longest text. cocoapi takes a list of four numbers for a box.
        points = np.asarray(part if isinstance(part, list) and set(map(type, part)) <= {int, float} else "")
        if points.dtype.kind not in "iuf" or points.size < 6 or points.size % 2:
            raise ValueError("a polygon needs at least three points, as a list x1, y1, x2, y2, ... of numbers")
        xy = points.reshape(-1, 2).astype(np.float64)
        size = np.array([width, height])
        if not ((xy >= -size) & (xy <= 2 * size)).all():  # false for NaN as well
            raise ValueError(f"a polygon lies far outside the image of {height} x {width} pixels")
        outline += float(np.abs(xy - np.roll(xy, 1, axis=0)).max(axis=1).sum())
    if outline > MAX_POLYGON_PERIMETER:
        raise ValueError(
            f"its polygons have an outline of {outline:.0f} pixels, more than the limit of {MAX_POLYGON_PERIMETER}"
        )


def _parse_counts(counts: Any, height: int, width: int) -> bytes:
    """Check the counts of an RLE, text or a list of numbers, and return COCO's text form."""
    if isinstance(counts, list):
        runs = np.asarray(counts if set(map(type, counts)) <= {int} else "")
        if runs.dtype.kind not in "iu":  # not integers, or more than 64 bits
            raise ValueError("its counts are not whole numbers")
        _check_runs(runs, height, width)
        return encode_counts(runs)
    if not isinstance(counts, str | bytes):
        raise ValueError("its counts are neither numbers nor a text")
    text = counts.encode() if isinstance(counts, str) else counts
    _check_runs(decode_counts(text), height, width)
    return text


def _rasterize_polygons(polygons: list[list[float]], height: int, width: int) -> bytes:
    """The counts of checked polygons.

    A large image is rasterized in strips of columns. There, cocoapi's rounding to fifths of a pixel may set single
    pixels of a slanted outline differently than `annToRLE` does.
    """
    if height * width <= _COCOAPI_MAX_PIXELS:
        counts: bytes = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]
        return counts
    edges = []
    columns = max(1, _COCOAPI_MAX_PIXELS // height)
    for left in range(0, width, columns):
        strip = min(columns, width - left)
        moved = [[v - left if i % 2 == 0 else v for i, v in enumerate(part)] for part in polygons]
        runs = decode_counts(coco_mask.merge(coco_mask.frPyObjects(moved, height, strip))["counts"])
        edges.append(left * height + np.cumsum(runs)[: runs.size // 2 * 2])  # where mask begins and where it ends
    return encode_counts(_runs_from_boundaries(np.concatenate(edges), height * width))


def _runs_from_boundaries(boundaries: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Run lengths from alternating start and end positions. A run that ends where the next one starts continues."""
    joined = np.flatnonzero(boundaries[1:] == boundaries[:-1])
    boundaries = np.delete(boundaries, [*joined, *(joined + 1)])
    runs = np.diff(boundaries, prepend=0, append=pixels)
    return runs[:-1] if runs.size > 1 and runs[-1] == 0 else runs


def _check_runs(runs: NDArray[Any], height: int, width: int) -> None:
    if height < 0 or width < 0 or height * width > MAX_MASK_PIXELS:
        raise ValueError(f"an image of {height} x {width} pixels can have no mask")
    # Check each run before the sum: a sum of large runs could overflow to the right number.
    if runs.size and (runs.min() < 0 or runs.max() > height * width):
        raise ValueError("a run is negative or longer than the image")
    covered = int(runs.sum())
    if covered != height * width:
        raise ValueError(f"its runs cover {covered} pixels, not {height * width}")


def _to_cocoapi(rle: Rle) -> dict[str, Any]:
    """The dictionary form that pycocotools takes, checked first.

    cocoapi reads out of bounds if the text is malformed, and divides by the height.

    Args:
        rle: its runs may still not fill its size.

    Raises:
        SynthgenError: the text is not COCO's, or the size is not positive.
    """
    counts = rle.counts
    if not counts or counts.translate(None, _COUNTS_ALPHABET) or (counts[-1] - 48) & 0x20 or min(rle.size) <= 0:
        raise SynthgenError(f"mask of {rle.size[0]} x {rle.size[1]}: not a COCO run-length text")
    return {"size": list(rle.size), "counts": counts}
