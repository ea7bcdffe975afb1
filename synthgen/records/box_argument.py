"""Boxes as users of the Python API give them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthgen.errors import ArgumentError, shorten_value
from synthgen.records.boxes import clip_xyxy


def check_boxes_xyxy(boxes_xyxy: ArrayLike, height: int, width: int) -> NDArray[np.float64]:
    """The boxes of an argument `boxes_xyxy`, clipped to the image.

    Args:
        boxes_xyxy: integers or floats [N, 4], (x1, y1, x2, y2) in absolute pixels of the image; N may be 0. A part
            beyond the image is cut off.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        float64 [N, 4], inside the image, each with an area.

    Raises:
        ArgumentError: the shape is not [N, 4]; a number is not finite; a box has no area, or none inside the image.
    """
    try:
        boxes = np.asarray(boxes_xyxy)
    except (ValueError, TypeError, RuntimeError):  # ragged lists; tensors on a GPU, in bfloat16, or with a gradient
        hint = "; of a tensor of PyTorch, give tensor.detach().float().cpu()" if hasattr(boxes_xyxy, "detach") else ""
        raise ArgumentError(
            f"boxes_xyxy is a {type(boxes_xyxy).__name__} that numpy cannot read; give numbers [N, 4] in CPU memory"
            f"{hint}"
        ) from None
    if boxes.size == 0 and boxes.ndim <= 2:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        is_column = boxes.ndim == 1 and boxes.dtype == object  # a column of pandas, whose cells are lists
        hint = "; put the one box into a list" if boxes.shape == (4,) and not is_column else ""
        hint = "; give column.tolist() of a column of boxes" if is_column else hint
        raise ArgumentError(f"boxes_xyxy has the shape {list(boxes.shape)}; give [N, 4], (x1, y1, x2, y2){hint}")
    if boxes.dtype.kind not in "iuf":
        raise ArgumentError(f"boxes_xyxy has the type {boxes.dtype}; give numbers")
    boxes = boxes.astype(np.float64)
    # As prompts are float32, a box must have an area in that type, too.
    clipped = clip_xyxy(boxes, height, width).astype(np.float32)
    checks = (
        (np.isfinite(boxes).all(axis=1), "has a number that is not finite; leave it out"),
        (
            (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]),
            "has no area; x2 must be above x1 and y2 above y1 (x2 is x + width of an XYWH box)",
        ),
        (
            (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]),
            f"has no area inside the image of {width} x {height} pixels; give absolute pixels, or leave it out",
        ),
    )
    for is_right, problem in checks:
        if not is_right.all():
            number = int(np.flatnonzero(~is_right)[0])
            raise ArgumentError(f"boxes_xyxy[{number}] = {shorten_value(boxes[number].tolist())} {problem}")
    return clip_xyxy(boxes, height, width)
