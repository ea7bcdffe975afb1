"""How the tools that read our polygons fill them: COCO's tools, and Ultralytics YOLO."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

#: Points that YOLO spreads over each outline, unless one of the image has more.
POINTS = 1000


def read_as_coco(rings: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """bool [height, width] of rings, float [N, 2] XY in absolute pixels, as `COCO.annToMask` makes it."""
    if not rings:
        return np.zeros((height, width), bool)
    parts = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


def read_as_yolo(ring: np.ndarray, height: int, width: int, *, digits: int = 6) -> np.ndarray:
    """bool [height, width] of one ring, float [N, 2] XY in absolute pixels, as YOLO's training makes it.

    A label file has fractions of the image, with some digits, which become float32. Points are added along the closed
    outline, evenly by index, and the file's own points stay. Then coordinates are cut to whole numbers and filled. This
    is without augmentation, at the size of the image.
    """
    fractions = np.round(ring / [width, height], digits).astype(np.float32)
    closed = np.concatenate([fractions, fractions[:1]])
    own = np.arange(len(closed))
    added = np.linspace(0, len(closed) - 1, max(POINTS - len(closed), 0))
    at = np.sort(np.concatenate([own, added]))
    dense = np.stack([np.interp(at, own, closed[:, axis]) for axis in (0, 1)], axis=1).astype(np.float32)
    image = np.zeros((height, width), np.uint8)
    cv2.fillPoly(image, [(dense * np.float32([width, height])).astype(np.int32)], 1)
    return image.astype(bool)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two masks, bool [H, W]; 1 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
