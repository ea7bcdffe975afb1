"""Boxes and masks: the only place where one form becomes another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from synthgen.errors import SynthgenError
from synthgen.records.sample import Rle


def xywh_to_xyxy(bbox: ArrayLike) -> NDArray[np.float64]:
    """(x, y, width, height) -> (x1, y1, x2, y2); float64 [..., 4], absolute pixels."""
    box = np.asarray(bbox, dtype=np.float64)
    return np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes_xyxy: ArrayLike) -> NDArray[np.float64]:
    """(x1, y1, x2, y2) -> (x, y, width, height); float64 [..., 4], absolute pixels."""
    box = np.asarray(boxes_xyxy, dtype=np.float64)
    return np.concatenate([box[..., :2], box[..., 2:] - box[..., :2]], axis=-1)


def clip_xyxy(boxes_xyxy: ArrayLike, height: ArrayLike, width: ArrayLike) -> NDArray[np.float64]:
    """The part of each box inside its image: float64 [N, 4]; height and width are scalars or [N], in pixels."""
    box = np.asarray(boxes_xyxy, dtype=np.float64)
    limit = np.stack(np.broadcast_arrays(width, height, width, height), axis=-1)
    return np.asarray(np.clip(box, 0.0, limit))


def box_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """IoU of boxes pair by pair: [N, 4] and [N, 4], absolute pixels -> float64 [N] in [0, 1]; 0 for empty pairs."""
    a, b = np.asarray(a_xyxy, dtype=np.float64), np.asarray(b_xyxy, dtype=np.float64)
    side = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = np.clip(side, 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def encode_mask(mask: NDArray[Any]) -> Rle:
    """bool or uint8 [H, W] -> COCO compressed RLE."""
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(size=(int(mask.shape[0]), int(mask.shape[1])), counts=found["counts"])


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """COCO compressed RLE -> bool [H, W].

    Raises:
        SynthgenError: the runs do not fill the stated size (pycocotools would return uninitialised memory).
    """
    check_rle(rle)
    return np.asarray(coco_mask.decode(_coco(rle)), dtype=np.bool_)


def rle_area(rle: Rle) -> int:
    """Number of pixels in the mask."""
    return int(coco_mask.area(_coco(rle)))


def rle_bbox_xyxy(rle: Rle) -> tuple[float, float, float, float]:
    """Tight box (x1, y1, x2, y2) of the mask, absolute pixels; all zero for an empty mask."""
    x, y, w, h = (float(v) for v in coco_mask.toBbox(_coco(rle)))
    return (x, y, x + w, y + h)


def rle_iou(a: Sequence[Rle], b: Sequence[Rle], iscrowd: Sequence[bool] | None = None) -> NDArray[np.float64]:
    """IoU of each mask of `a` with each of `b`: float64 [len(a), len(b)]; for crowd `b`, overlap over area of `a`."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    crowd = [int(c) for c in iscrowd] if iscrowd is not None else [0] * len(b)
    return np.asarray(coco_mask.iou([_coco(r) for r in a], [_coco(r) for r in b], crowd))


def rle_runs(counts: bytes) -> NDArray[np.int64]:
    """Run lengths of COCO's text form, int64 [R], starting with background.

    The inverse of `rleToString` in cocoapi's `maskApi.c`: base 32 with sign, and from the fourth run on the difference
    to the run two before.

    Raises:
        ValueError: not COCO's text form.
    """
    code = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if code.size == 0:
        return np.zeros(0, np.int64)
    if code.min() < 0 or code.max() > 63 or code[-1] & 0x20:
        raise ValueError("not a COCO run-length text")
    last = (code & 0x20) == 0
    start = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(code.size) - np.repeat(start, np.diff(np.append(start, code.size)))
    if place.max() > 6:
        raise ValueError("a run is longer than any image")
    runs = np.add.reduceat((code & 0x1F) << (5 * place), start)
    negative = (code[last] & 0x10) != 0
    runs[negative] -= 1 << (5 * (place[last][negative] + 1))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def check_rle(rle: Rle) -> None:
    """Refuse runs that are negative or do not add up to height x width.

    Raises:
        SynthgenError: with what is wrong.
    """
    height, width = rle.size
    try:
        runs = rle_runs(rle.counts)
    except ValueError as why:
        raise SynthgenError(f"mask of {height} x {width}: {why}") from None
    if height < 0 or width < 0 or (runs < 0).any() or int(runs.sum()) != height * width:
        raise SynthgenError(
            f"mask of {height} x {width}: its runs cover {int(runs.sum())} pixels, not {height * width}"
        )


def rle_from_coco(segmentation: Any, height: int, width: int) -> Rle:
    """A COCO `segmentation` value (polygons, uncompressed or compressed RLE) -> compressed RLE of the image's size.

    Polygons are [[x1, y1, x2, y2, ...], ...] in absolute pixels; separate parts become one mask (cocoapi `annToRLE`).

    Raises:
        SynthgenError: it is none of the three, a polygon has fewer than three points, or an RLE lies about its size.
    """
    if isinstance(segmentation, list) and segmentation:
        for part in segmentation:
            if (
                not isinstance(part, list)
                or len(part) < 6
                or len(part) % 2
                or not np.isfinite(np.asarray(part, float)).all()
            ):
                raise SynthgenError("a polygon needs at least three (x, y) points of finite numbers")
        # frPyObjects takes a part of four numbers for a box, hence the test above.
        merged = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        return Rle(size=(height, width), counts=merged["counts"])
    if isinstance(segmentation, dict) and "counts" in segmentation and "size" in segmentation:
        size, counts = segmentation["size"], segmentation["counts"]
        if list(size) != [height, width]:
            raise SynthgenError(f"its RLE is of size {list(size)}, the image of {[height, width]}")
        if isinstance(counts, list):
            runs = np.asarray(counts)
            if runs.dtype.kind not in "iu" or (runs < 0).any() or int(runs.sum()) != height * width:
                raise SynthgenError(f"its runs do not cover {height} x {width} pixels")
            counts = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
        rle = Rle(size=(height, width), counts=counts.encode() if isinstance(counts, str) else counts)
        check_rle(rle)
        return rle
    raise SynthgenError("a segmentation is a list of polygons or an RLE of size and counts")


def _coco(rle: Rle) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts}
