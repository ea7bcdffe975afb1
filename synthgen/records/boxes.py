"""Boxes as arrays: XYWH and XYXY in absolute pixels, clipping, and IoU of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def xywh_to_xyxy(bbox: ArrayLike) -> NDArray[np.float64]:
    """`bbox`, (x, y, width, height) -> (x1, y1, x2, y2); float64 [..., 4], absolute pixels."""
    box = np.asarray(bbox, dtype=np.float64)
    return np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes_xyxy: ArrayLike) -> NDArray[np.float64]:
    """`boxes_xyxy`, (x1, y1, x2, y2) -> (x, y, width, height); float64 [..., 4], absolute pixels."""
    box = np.asarray(boxes_xyxy, dtype=np.float64)
    return np.concatenate([box[..., :2], box[..., 2:] - box[..., :2]], axis=-1)


def clip_xyxy(boxes_xyxy: ArrayLike, height: ArrayLike, width: ArrayLike) -> NDArray[np.float64]:
    """The part of each box inside its image: float64 [N, 4] XYXY.

    Args:
        boxes_xyxy: float [N, 4], absolute pixels.
        height: of each image, in pixels; number [N] or scalar, of any dtype.
        width: of each image, in pixels; number [N] or scalar, of any dtype.
    """
    box = np.asarray(boxes_xyxy, dtype=np.float64)
    limit = np.stack(np.broadcast_arrays(width, height, width, height), axis=-1)
    return np.asarray(np.clip(box, 0.0, limit))


def paired_box_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """IoU of pairs of boxes, `a_xyxy` [N, 4] and `b_xyxy` [N, 4], absolute pixels -> float64 [N] in [0, 1]; 0 for empty
    pairs.
    """
    a, b = np.asarray(a_xyxy, dtype=np.float64), np.asarray(b_xyxy, dtype=np.float64)
    side = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = np.clip(side, 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0))
