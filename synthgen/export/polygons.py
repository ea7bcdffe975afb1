"""Masks as polygons, in two conventions, each of which gives the mask back exactly in one kind of reader.

- "edges": the points are corners of pixels. The pixel in column x covers [x, x + 1], so a mask of one pixel is a square
  of area 1, and boxes are exact. COCO's tools (`frPyObjects`) fill such polygons; so do most tools that draw polygons.
- "centers": the points are centres of the border pixels, at x + 0.5. A reader that cuts coordinates to whole numbers
  and draws the outline as well as the inside (`cv2.fillPoly`, as Ultralytics does) sets these pixels. Boxes of such
  polygons are one pixel narrower and lower than the mask. If that leaves no area, as of a line, the points lie a
  quarter of a pixel inside the edges instead.

Read in the other convention, a mask of common size loses about a tenth of its IoU. Pixels that touch at a corner only
belong to one part; pixels of a hole must share an edge (as in OpenCV).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.export.ring_bridges import find_bridges, index_bridges, walk_rings
from synthgen.records.rle import MaskWindow, decode_mask, rle_from_coco

Convention: TypeAlias = Literal["edges", "centers"]

#: Points are whole numbers of these parts of a pixel until they are returned.
_PARTS = 4

#: Points of larger masks do not fit into 32 bits.
_MAX_SIDE = 2**28

#: Longer rings are simplified in pieces of so many points: the time for a piece can grow with the square of its length.
_PIECE = 2048

#: Rings that are rasterised together: cocoapi's time grows with the square of their number.
_MERGED = 1000


class _Grid(Enum):
    """Which pixels are traced, and which point of a pixel a traced pixel stands for."""

    EDGES = "of the mask at twice its size, the corner of the mask's pixel"
    CENTERS = "of the mask, the centre"
    INSET = "of the mask at twice its size, the centre: a quarter of a pixel inside the mask's edge"


@dataclass(frozen=True, slots=True)
class Polygon:
    """The outline of one part of a mask.

    Attributes:
        outer: float64 [N, 2] XY, absolute pixels, not closed: the last point is not the first one.
        holes: float64 [N, 2] XY each, in the frame of `outer`, in the opposite direction.
    """

    outer: NDArray[np.float64]
    holes: tuple[NDArray[np.float64], ...] = ()


@dataclass(frozen=True, slots=True)
class _Outlines:
    """The traced rings of a mask.

    Attributes:
        image: uint8 [h, w], the pixels that were traced.
        rings: int32 [N, 2] XY each, pixels of `image`.
        parents: int64 [R]: for a hole, the index of its part's ring; else -1.
        grid: how `rings` lie in the mask.
    """

    image: NDArray[np.uint8]
    rings: list[NDArray[np.int32]]
    parents: NDArray[np.int64]
    grid: _Grid

    def outers(self) -> list[int]:
        """The rings of the parts."""
        return np.flatnonzero(self.parents < 0).tolist()


def crop_mask(mask: NDArray[np.bool_]) -> MaskWindow:
    """The smallest window that holds a mask.

    Args:
        mask: bool [H, W], in the pixel frame of the image.

    Returns:
        A window of 0 x 0 pixels if the mask is empty.
    """
    left, top, width, height = cv2.boundingRect(_as_image(mask)) if mask.size else (0, 0, 0, 0)
    return MaskWindow(np.ascontiguousarray(mask[top : top + height, left : left + width]), top, left)


def clean_mask(
    mask: NDArray[np.bool_],
    *,
    fill_holes: bool = False,
    largest_component: bool = False,
    min_component_area: float = 0,
) -> NDArray[np.bool_]:
    """Fill the holes of a mask, then remove its small parts.

    Args:
        mask: bool [H, W], in the pixel frame of the image, or of a window that holds the whole mask.
        fill_holes: fill each hole, with what lies in it.
        largest_component: keep only the largest part; of two that are equally large, the upper one.
        min_component_area: remove parts of fewer pixels than this. May remove all.

    Returns:
        bool [H, W], a new array.
    """
    image = _as_image(mask).copy()
    if fill_holes and mask.any():
        rings, _ = cv2.findContours(image, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(image, rings, -1, 1, cv2.FILLED)
    if (largest_component or min_component_area > 1) and mask.any():
        _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
        areas = stats[:, cv2.CC_STAT_AREA]
        areas[0] = 0
        keep = areas >= max(min_component_area, 1)
        if largest_component:
            keep &= np.arange(areas.size) == areas.argmax()
        return np.asarray(keep[labels])
    return image.view(np.bool_)


def mask_to_polygons(window: MaskWindow, *, tolerance: float = 0.0, convention: Convention = "edges") -> list[Polygon]:
    """The outlines of a mask, with holes as separate rings.

    Args:
        window: the mask.
        tolerance: how far a ring may move, in pixels; at most an eighth of its mean width, so that small parts keep
            their shape. 0 keeps rings exactly, without points on straight lines.
        convention: which points of the border pixels are written; see this module.

    Returns:
        One for each part; an empty mask has none. Each ring has at least three points and an area.
    """
    outlines = _trace(window.pixels, _Grid.EDGES if convention == "edges" else _Grid.CENTERS)
    holes: dict[int, list[NDArray[np.float64]]] = {index: [] for index in outlines.outers()}
    for ring, parent in zip(outlines.rings, outlines.parents.tolist(), strict=True):
        if parent >= 0:
            holes[parent].append(_finish(_simplify_ring(ring, outlines.grid, tolerance), window))
    return [
        Polygon(_finish(_outer(outlines, index, tolerance), window), tuple(inside)) for index, inside in holes.items()
    ]


def mask_to_rings(
    window: MaskWindow, *, tolerance: float = 0.0, convention: Convention = "edges", single: bool = False
) -> list[NDArray[np.float64]]:
    """The outlines of a mask, with holes joined to their part by bridges of no width.

    A bridge between parts crosses the background. `frPyObjects` sets no pixel of it, `cv2.fillPoly` does:
    `polygon_iou_loss` measures it.

    Args:
        window: the mask.
        tolerance: as of `mask_to_polygons`. Ends of bridges do not move.
        convention: as of `mask_to_polygons`.
        single: join the parts as well, for formats with one ring for each object.

    Returns:
        float64 [N, 2] XY each, absolute pixels, not closed: one ring for each part, or one for all; none for an empty
        mask.
    """
    grid = _Grid.EDGES if convention == "edges" else _Grid.CENTERS
    outlines = _trace(window.pixels, grid)
    outers = outlines.outers()
    if len(outers) == len(outlines.rings) and not (single and len(outers) > 1):
        return [_finish(_outer(outlines, index, tolerance), window) for index in outers]
    if grid is _Grid.CENTERS and _is_flat(outlines, single=single):
        grid = _Grid.INSET
    dense = _trace(window.pixels, grid, every_pixel=True)
    cell = 1 if grid is _Grid.CENTERS else 2
    bridges = index_bridges(find_bridges(dense.image, dense.rings, dense.parents, join_parts=single, cell=cell))
    arcs = {
        index: _simplify_arcs(_place(dense.rings[index], grid), list(places), tolerance)
        for index, places in bridges.items()
    }
    starts = dense.outers()[:1] if single else outers
    rings = [walk_rings(i, bridges, arcs) if i in bridges else _outer(outlines, i, tolerance) for i in starts]
    return [_finish(_without_repeats(ring, closed=True), window) for ring in rings]


def rasterize_rings(
    rings: Sequence[NDArray[np.float64]], height: int, width: int, *, convention: Convention = "edges"
) -> NDArray[np.bool_]:
    """The mask that a reader makes of rings: their union, each filled by the even-odd rule.

    Args:
        rings: float64 [N, 2] XY each, absolute pixels; within the image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        convention: "edges" fills as COCO's tools do, "centers" as `cv2.fillPoly` does with whole numbers.

    Returns:
        bool [height, width].
    """
    image = np.zeros((height, width), np.bool_)
    if convention == "edges":
        for begin in range(0, len(rings), _MERGED):
            polygons = [ring.ravel().tolist() for ring in rings[begin : begin + _MERGED]]
            image |= decode_mask(rle_from_coco(polygons, height, width))
    else:
        for ring in rings:
            cv2.fillPoly(image.view(np.uint8), [ring.astype(np.int32)], 1)
    return image


def polygon_iou_loss(
    rings: Sequence[NDArray[np.float64]], window: MaskWindow, *, convention: Convention = "edges"
) -> float:
    """What a mask loses as polygons: 1 - IoU with what a reader makes of them.

    Args:
        rings: float64 [N, 2] XY each, absolute pixels of the image; with holes joined, as of `mask_to_rings`.
        window: the mask.
        convention: of the rings; see `rasterize_rings`.

    Returns:
        In [0, 1]; 0 if both are empty.
    """
    rows, columns = window.pixels.shape
    low, high = np.array([window.left, window.top]), np.array([window.left + columns, window.top + rows])
    if rings:
        points = np.concatenate(rings)
        low = np.minimum(low, np.floor(points.min(axis=0)).astype(np.int64))
        high = np.maximum(high, np.floor(points.max(axis=0)).astype(np.int64) + (convention == "centers"))
    wide, tall = (high - low).tolist()
    mask = np.zeros((tall, wide), np.bool_)
    top, left = window.top - int(low[1]), window.left - int(low[0])
    mask[top : top + rows, left : left + columns] = window.pixels
    drawn = rasterize_rings([ring - low for ring in rings], tall, wide, convention=convention)
    union = np.count_nonzero(mask | drawn)
    return 1 - float(np.count_nonzero(mask & drawn) / union) if union else 0.0


# --- Tracing ----------------------------------------------------------------------------------------------------------


def _as_image(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8 [H, W] of a mask, bool [H, W], as OpenCV takes it; the same memory where it is contiguous."""
    return np.ascontiguousarray(mask).view(np.uint8)


def _trace(pixels: NDArray[np.bool_], grid: _Grid, *, every_pixel: bool = False) -> _Outlines:
    """The rings of a mask, bool [h, w]: all their pixels, or only those where a ring turns."""
    if max(pixels.shape) >= _MAX_SIDE:
        raise SynthgenError(f"a mask of {pixels.shape[0]} x {pixels.shape[1]} pixels is too large for polygons")
    image = _as_image(pixels)
    if grid is not _Grid.CENTERS:
        image = _double(image)
    how = cv2.CHAIN_APPROX_NONE if every_pixel else cv2.CHAIN_APPROX_SIMPLE
    rings, tree = cv2.findContours(image, cv2.RETR_CCOMP, how) if image.size else ((), None)
    parents = np.zeros(0, np.int64) if tree is None else tree[0, :, 3].astype(np.int64)
    return _Outlines(image, [_flat(ring) for ring in rings], parents, grid)


def _flat(line: NDArray[Any]) -> NDArray[np.int32]:
    """A line as OpenCV returns it, int32 [N, 1, 2] -> int32 [N, 2]."""
    return np.asarray(line[:, 0], np.int32)


def _double(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each pixel as 2 x 2 pixels: uint8 [H, W] -> uint8 [2 * H, 2 * W]; four times as fast as `cv2.resize`."""
    height, width = image.shape
    doubled = np.empty((height, 2, width), np.uint16)
    np.multiply(image[:, None], np.uint16(0x0101), out=doubled, dtype=np.uint16)
    return doubled.view(np.uint8).reshape(2 * height, 2 * width)


def _place(ring: NDArray[np.int32], grid: _Grid) -> NDArray[np.int32]:
    """Points of a traced ring, int32 [N, 2], in parts of a pixel (`_PARTS`) of the window."""
    if grid is _Grid.CENTERS:
        return ring * _PARTS + _PARTS // 2
    if grid is _Grid.INSET:
        return ring * (_PARTS // 2) + _PARTS // 4
    return (ring + 1 >> 1) * _PARTS


def _finish(ring: NDArray[np.int32], window: MaskWindow) -> NDArray[np.float64]:
    """Parts of a pixel of the window, int32 [N, 2] -> absolute pixels, float64 [N, 2]."""
    return ring / _PARTS + (window.left, window.top)


def _outer(outlines: _Outlines, index: int, tolerance: float) -> NDArray[np.int32]:
    """The simplified outline of a part that no bridge touches, int32 [N, 2], in parts of a pixel."""
    ring, grid = outlines.rings[index], outlines.grid
    if grid is _Grid.CENTERS and not cv2.contourArea(ring):
        low = ring.min(axis=0)
        thin = np.zeros((np.ptp(ring, axis=0) + 1)[::-1], np.uint8)
        cv2.fillPoly(thin, [ring - low], 1)
        inset = _trace(thin.view(np.bool_), _Grid.INSET).rings[0]
        moved: NDArray[np.int32] = _simplify_ring(inset, _Grid.INSET, tolerance) + low * _PARTS
        return moved
    return _simplify_ring(ring, grid, tolerance)


def _is_flat(outlines: _Outlines, *, single: bool) -> bool:
    """Whether joined rings would have no area, such as those of a loop that is one pixel wide."""
    parents = outlines.parents
    areas = np.array([cv2.contourArea(ring) for ring in outlines.rings])
    part_of = np.where(parents < 0, np.arange(parents.size), parents)
    inside = np.bincount(part_of, weights=np.where(parents < 0, areas, -areas))
    return not inside.sum() if single else not inside[parents[parents >= 0]].all()


def _without_repeats(line: NDArray[np.int32], *, closed: bool) -> NDArray[np.int32]:
    """A line, int32 [N, 2], without points that equal the one before; in a closed one that of the first is the last."""
    pair = np.ascontiguousarray(line).view(np.int64)[:, 0]  # both numbers of a point in one
    differs = np.ones(pair.size, np.bool_)
    np.not_equal(pair[1:], pair[:-1], out=differs[1:])
    if closed:
        differs[0] = pair[0] != pair[-1]
    kept: NDArray[np.int32] = line[differs]
    return kept


# --- Simplification ---------------------------------------------------------------------------------------------------


def _simplify_ring(ring: NDArray[np.int32], grid: _Grid, tolerance: float) -> NDArray[np.int32]:
    """A ring that is traced where it turns, int32 [N, 2] -> int32 [N, 2] in parts of a pixel."""
    placed = _place(ring, grid)
    if grid is _Grid.EDGES:
        placed = _without_repeats(placed, closed=True)  # an inner corner is traced as two pixels, for one point
    if not tolerance:
        return placed
    # Older versions of OpenCV measure distances from the straight line through two points, also beyond the points. They
    # would remove the end of a thin line, where an outline turns back.
    if len(placed) > _PIECE or (grid is _Grid.CENTERS and _bends(np.concatenate([placed, placed[:2]]))[1].any()):
        return np.concatenate([arc[:-1] for arc in _simplify_arcs(placed, [0], tolerance)])
    return _flat(cv2.approxPolyDP(placed, _allowed(placed, tolerance), True))


def _simplify_arcs(ring: NDArray[np.int32], places: list[int], tolerance: float) -> list[NDArray[np.int32]]:
    """A ring, int32 [N, 2] in parts of a pixel, cut at some of its points, which stay; `tolerance` in pixels.

    Each piece, int32 [n, 2], leads from a place to the next one, the last piece from the last place to the first.
    """
    allowed = _allowed(ring, tolerance)
    closed = np.concatenate([ring[places[0] :], ring[: places[0] + 1]])
    ends = [*(place - places[0] for place in places), len(ring)]
    return [_simplify_arc(closed[begin : end + 1], allowed) for begin, end in zip(ends[:-1], ends[1:], strict=True)]


def _simplify_arc(arc: NDArray[np.int32], allowed: float) -> NDArray[np.int32]:
    """An open line, int32 [N, 2] in parts of a pixel, whose ends stay; `allowed` in the same parts."""
    if len(arc) < 3:  # of masks with very many holes, most arcs
        return arc
    arc = _without_repeats(arc, closed=False)
    straight, back = _bends(arc)
    if not allowed:
        kept = np.ones(len(arc), np.bool_)
        kept[1:-1] = ~straight
        return arc[kept]
    cuts = [0, *(np.flatnonzero(back) + 1).tolist(), len(arc) - 1]
    lines = [line for begin, end in zip(cuts[:-1], cuts[1:], strict=True) for line in _split(arc[begin : end + 1])]
    return np.concatenate([*(_flat(cv2.approxPolyDP(line, allowed, False))[:-1] for line in lines), arc[-1:]])


def _split(line: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """A line, int32 [N, 2], as lines that are not closed and not too long; each begins where the one before ends."""
    if len(line) > 1 and (line[0] == line[-1]).all():
        far = int(((line - line[0]).astype(np.float64) ** 2).sum(axis=1).argmax())
        return _split(line[: far + 1]) + _split(line[far:])
    return [line[begin : begin + _PIECE + 1] for begin in range(0, len(line) - 1, _PIECE)]


def _bends(line: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each inner point of a line, int32 [N, 2], whether it goes straight on, and whether it goes straight back.

    Both bool [N - 2]; no point of the line equals the one before.
    """
    x, y = line.T.astype(np.int64)
    dx, dy = x[1:] - x[:-1], y[1:] - y[:-1]
    aligned = dx[:-1] * dy[1:] == dy[:-1] * dx[1:]
    forward = dx[:-1] * dx[1:] + dy[:-1] * dy[1:] > 0
    return aligned & forward, aligned & ~forward


def _allowed(ring: NDArray[np.int32], tolerance: float) -> float:
    """How far the points of a ring may move, in parts of a pixel."""
    if not tolerance:
        return 0.0
    # Area over perimeter is half the mean width. This limit also keeps every ring from collapsing.
    return min(tolerance * _PARTS, cv2.contourArea(ring) / max(cv2.arcLength(ring, True), 1) / 4)
