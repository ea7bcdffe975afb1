"""Draws masks as polygons for tools, and counts what they lose."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import ArgumentError
from synthgen.export.polygons import Convention, mask_to_rings, polygon_iou_loss
from synthgen.records.rle import MaskWindow


def check_tolerance(tolerance: float) -> None:
    """Check the option `tolerance` of a format with polygons.

    Args:
        tolerance: how far an outline may move, in pixels.

    Raises:
        ArgumentError: it is negative or not finite.
    """
    if not 0 <= tolerance < math.inf:
        raise ArgumentError(f"tolerance={tolerance} is not valid; give a number of pixels, 0 or more")


class PolygonLoss:
    """The polygons of all masks, and the IoU that they lose in tools that fill them.

    Args:
        convention: how the tools fill polygons; see `polygons`.
    """

    def __init__(self, convention: Convention = "edges") -> None:
        self._convention = convention
        self._count = self._changed = 0
        self._sum = self._most = 0.0

    def draw(self, window: MaskWindow, tolerance: float, *, single: bool) -> list[NDArray[np.float64]]:
        """The outlines of a mask, float64 [N, 2] XY each, absolute pixels; holes are joined to their outline.

        Args:
            window: the mask.
            tolerance: how far the outline may move, in pixels.
            single: join all parts to one outline.
        """
        rings = mask_to_rings(window, tolerance=tolerance, convention=self._convention, single=single)
        loss = polygon_iou_loss(rings, window, convention=self._convention)
        self._count += 1
        self._changed += bool(loss > 0)
        self._sum += float(loss)
        self._most = max(self._most, float(loss))
        return rings

    def lines(self) -> tuple[str, ...]:
        """A sentence for the user if polygons changed masks."""
        if not self._changed:
            return ()
        lost = f"the IoU with the mask is {1 - self._sum / self._count:.4f} on average, {1 - self._most:.4f} at least"
        return (f"{self._changed:,} of {self._count:,} masks changed as polygons: {lost}",)

    def figures(self) -> dict[str, float]:
        """The same as numbers; empty if no mask was drawn."""
        if not self._count:
            return {}
        return {
            "polygons_changed": self._changed,
            "polygon_iou_mean": 1 - self._sum / self._count,
            "polygon_iou_min": 1 - self._most,
        }
