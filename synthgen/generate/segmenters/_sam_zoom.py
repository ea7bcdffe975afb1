"""Zoom windows around small boxes, so that a network of fixed resolution sees them larger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A box is small if its longer side is below this share of the image's longer side: some 6 of SAM's 64 patches.
SMALL_BOX_FRACTION = 0.1

#: The window's side divided by the box's longer side, to include surroundings.
WINDOW_SCALE = 4.0

#: Minimum side of a window in pixels: enlarging a few pixels to 1024 shows nothing new.
MIN_WINDOW_SIDE = 64


@dataclass(frozen=True, slots=True)
class Crop:
    """A window of an image, in pixels; the whole image where top and left are 0 and the size is its own."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def extract(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window of an image [H, W, 3]; a view, not a copy."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def boxes_to_window(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes [N, 4] of the image in the window's frame."""
        return (boxes_xyxy - np.array([self.left, self.top] * 2, np.float32)).astype(np.float32)


def is_small(boxes_xyxy: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """Which boxes [N, 4], absolute pixels of an image of this size, are small enough to zoom: bool [N]."""
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, initial=0)
    return np.asarray(
        (sides < SMALL_BOX_FRACTION * max(height, width)) & (max(height, width) > MIN_WINDOW_SIDE), np.bool_
    )


def plan_zoom_crops(boxes_xyxy: NDArray[np.float32], height: int, width: int) -> list[tuple[Crop, NDArray[np.int64]]]:
    """Windows that enlarge each small box of an image, and the indices of the boxes of each window.

    Boxes are processed from the largest. A box needs no window of its own if an earlier one shows it with as much
    around it and at least half as large. So a crowd of small things needs a few windows, not one each.

    Args:
        boxes_xyxy: float32 [N, 4], absolute pixels of the image, inside it.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    small = np.flatnonzero(is_small(boxes_xyxy, height, width))
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, initial=0)
    crops: list[tuple[Crop, list[int]]] = []
    for i in small[np.argsort(-sides[small], kind="stable")]:
        box, side = boxes_xyxy[i], float(sides[i])
        want = max(WINDOW_SCALE * side, MIN_WINDOW_SIDE)
        for crop, members in crops:
            if _covers(crop, box, side, height, width) and max(crop.size) <= 2 * want:
                members.append(int(i))
                break
        else:
            crops.append((_window_around(box, want, height, width), [int(i)]))
    return [(crop, np.array(members, np.int64)) for crop, members in crops]


def _window_around(box_xyxy: NDArray[np.float32], side: float, height: int, width: int) -> Crop:
    """A square of this side around a box, shifted to be inside the image."""
    spans = []
    for low, high, limit in ((box_xyxy[1], box_xyxy[3], height), (box_xyxy[0], box_xyxy[2], width)):
        length = min(int(np.ceil(side)), limit)
        start = int(np.clip(np.floor((float(low) + float(high) - length) / 2), 0, limit - length))
        spans.append((start, length))
    (top, h), (left, w) = spans
    return Crop(top, left, h, w)


def _covers(crop: Crop, box_xyxy: NDArray[np.float32], side: float, height: int, width: int) -> bool:
    """Whether a window contains a box with half the box's side around it, as far as the image extends."""
    x1, y1, x2, y2 = (float(v) for v in box_xyxy)
    pad = side / 2
    return (
        crop.left <= max(0.0, x1 - pad)
        and crop.top <= max(0.0, y1 - pad)
        and crop.left + crop.width >= min(width, x2 + pad)
        and crop.top + crop.height >= min(height, y2 + pad)
    )
