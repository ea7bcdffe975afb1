"""Joins the rings of a mask into one closed ring, by bridges that are walked in both directions.

A bridge has no width, so it changes no fill rule: the area stays, and holes stay holes. Only a rasteriser that draws
the outline as well (`cv2.fillPoly`) sets the pixels below a bridge. A bridge to a hole therefore lies inside the mask,
and bridges between parts are short.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

#: Ring -> position in it -> (ring, position) at the other end of each bridge that begins there.
BridgeIndex: TypeAlias = dict[int, dict[int, list[tuple[int, int]]]]


def find_bridges(
    image: NDArray[np.uint8],
    rings: Sequence[NDArray[np.int32]],
    parents: NDArray[np.int64],
    *,
    join_parts: bool,
    cell: int = 1,
) -> NDArray[np.int64]:
    """The bridges that join each hole to its part and, on request, all parts: a tree, or one tree for each part.

    The cost is that of the image's area, plus a sort of the points.

    Args:
        image: uint8 [h, w], non-zero = mask; the pixels that were traced.
        rings: int32 [N, 2] XY each, pixels of `image`: all border pixels of each ring, in order.
        parents: int64 [R]: for each ring, -1 if it is the outline of a part, else the index of the part's outline.
        join_parts: whether the parts are joined, too.
        cell: side of the squares of `image` in which all pixels are equal; distances between parts are found on these.

    Returns:
        int64 [B, 4]: ring and position in it, then another ring and position in it.
    """
    lengths = np.array([len(ring) for ring in rings])
    offsets = np.cumsum(lengths) - lengths
    ring_of = np.repeat(np.arange(len(rings)), lengths)
    points = np.concatenate(rings).astype(np.int64)
    key = points[:, 1] * image.shape[1] + points[:, 0]
    first = np.lexsort((key, ring_of))[offsets]  # the leftmost point of each ring's top row
    # A pixel may lie on several rings. The outline comes first, then the hole whose ring begins further up.
    rank = np.where(parents < 0, -1, key[first])
    order = np.lexsort((rank[ring_of], key))
    found = [_bridge_holes(image, np.flatnonzero(parents >= 0), key, first, order)]
    if join_parts:
        part_of = np.where(parents < 0, np.arange(len(rings)), parents)[ring_of]
        found.append(_bridge_parts((image.shape[0] // cell, image.shape[1] // cell), points, points // cell, part_of))
    vertices = np.concatenate(found)
    owners = ring_of[vertices]
    places = vertices - offsets[owners]
    return np.stack([owners[:, 0], places[:, 0], owners[:, 1], places[:, 1]], axis=1)


def _bridge_holes(
    image: NDArray[np.uint8],
    holes: NDArray[np.int64],
    key: NDArray[np.int64],
    first: NDArray[np.int64],
    order: NDArray[np.int64],
) -> NDArray[np.int64]:
    """For each hole, the bridge from the top of its ring to the left, through the mask, to the next ring.

    That ring is the outline, or that of a hole which begins further up: so there is no cycle.
    """
    width = image.shape[1]
    top, column = np.divmod(key[first[holes]], width)
    rows, place = np.unique(top, return_inverse=True)
    background = np.where(image[rows] == 0, np.arange(width, dtype=np.int32), np.int32(-1))
    left = np.maximum.accumulate(background, axis=1)[place, column] + 1
    return np.stack([order[np.searchsorted(key[order], top * width + left)], first[holes]], axis=1)


def _bridge_parts(
    shape: tuple[int, int], points: NDArray[np.int64], cells: NDArray[np.int64], part_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The shortest bridges that join all parts (Kruskal), among parts whose regions of nearest cells touch."""
    away = np.ones(shape, np.uint8)
    columns, rows = cells.T
    away[rows, columns] = 0
    _, nearest = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    vertex_of = np.zeros(int(nearest.max()) + 1, np.int64)
    vertex_of[nearest[rows, columns]] = np.arange(len(points))  # any point of the cell
    part = part_of.astype(np.int32)[vertex_of][nearest]
    pairs = []
    for one, other in (((..., slice(1, None)), (..., slice(-1))), ((slice(1, None),), (slice(-1),))):
        differ = part[one] != part[other]
        pairs.append(np.stack([nearest[one][differ], nearest[other][differ]], axis=1))
    ends = vertex_of[np.concatenate(pairs)]
    ends = np.where(part_of[ends[:, :1]] > part_of[ends[:, 1:]], ends[:, ::-1], ends)
    length = ((points[ends[:, 0]] - points[ends[:, 1]]) ** 2).sum(axis=1)
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0], length))]
    tree: NDArray[np.int64] = ends[_spanning_tree(part_of[ends])]
    return tree


def _spanning_tree(pairs: NDArray[np.int64]) -> list[int]:
    """The pairs that connect what the pairs before them do not."""
    _, once = np.unique(pairs, axis=0, return_index=True)
    root: dict[int, int] = {}

    def find(node: int) -> int:
        while (above := root.setdefault(node, node)) != node:
            root[node] = root[above]
            node = above
        return node

    tree = []
    for index in np.sort(once).tolist():
        one, other = map(find, pairs[index].tolist())
        if one != other:
            root[other] = one
            tree.append(index)
    return tree


def index_bridges(bridges: NDArray[np.int64]) -> BridgeIndex:
    """Ring -> position, ascending -> the rings and positions at the other ends of its bridges.

    Args:
        bridges: int64 [B, 4], as of `find_bridges`.
    """
    found: BridgeIndex = defaultdict(dict)
    ends = np.concatenate([bridges, bridges[:, [2, 3, 0, 1]]])
    for ring, place, other, other_place in ends[np.lexsort((ends[:, 1], ends[:, 0]))].tolist():
        found[ring].setdefault(place, []).append((other, other_place))
    return found


def walk_rings(start: int, bridges: BridgeIndex, arcs: Mapping[int, Sequence[NDArray[np.int32]]]) -> NDArray[np.int32]:
    """One closed ring through all rings that bridges connect with a first one.

    Args:
        start: the first ring; it has a bridge.
        bridges: as of `index_bridges`.
        arcs: int32 [N, 2] XY each, pixels or parts of them: ring -> its pieces, each from one of the ring's positions
            in `bridges` to the next, in the order of positions, both ends included.

    Returns:
        int32 [N, 2], in the frame of `arcs`.
    """
    pieces: list[NDArray[np.int32]] = []
    # A stack of pieces to write and of rings to enter: ring, position, and the ring that it is entered from.
    todo: list[NDArray[np.int32] | tuple[int, int, int]] = [(start, next(iter(bridges[start])), -1)]
    while todo:
        item = todo.pop()
        if not isinstance(item, tuple):
            pieces.append(item)
            continue
        ring, entry, origin = item
        places, own = list(bridges[ring]), arcs[ring]
        first = places.index(entry)
        way: list[NDArray[np.int32] | tuple[int, int, int]] = [own[first][:1]]
        for at in (*range(first, len(places)), *range(first)):
            for other, place in bridges[ring][places[at]]:
                if other != origin:
                    way += [(other, place, ring), own[at][:1]]
            way.append(own[at])
        todo += reversed(way)
    return np.concatenate(pieces)
