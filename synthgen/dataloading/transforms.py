"""Transforms an image and its target into the network's input: pixels, masks, boxes and texts move together.

All use one geometry on pixel centres: pixel x of a view shows the position (x + left + 0.5) * W / w of the (flipped)
image, W pixels wide, w after resizing. There the image is filtered, a mask takes the nearest pixel, and a box moves as
two points. Masks are drawn from their run lengths directly into the view, one after the other. So the masks never exist
in the original size, except one at a time in rotated views.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from synthgen.dataloading.augment import (
    AugmentConfig,
    ViewTransform,
    make_random_transform,
    make_resize_transform,
    make_square_transform,
)
from synthgen.dataloading.color_jitter import apply_color_steps
from synthgen.dataloading.tasks import Target
from synthgen.errors import SynthgenError
from synthgen.images.resize import resize
from synthgen.records.boxes import clip_xyxy
from synthgen.records.rle import decode_mask, decode_runs
from synthgen.records.sample import Rle
from synthgen.text.left_right import mirror_texts

#: A box counts as fully visible if the view cuts off at most this many pixels.
_MAX_CLIPPED_PIXELS = 0.5

#: Value of padding and of pixels outside a rotated image; close to the mean that is subtracted.
PADDING_VALUE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One training or evaluation example; n objects, m of them with a mask.

    Attributes:
        image: uint8 [H, W, 3], RGB; padding, right and bottom, is `PADDING_VALUE`.
        texts: the label space; left and right are exchanged if the image is flipped.
        labels: int64 [n], indices into `texts`.
        boxes_xyxy: float32 [n, 4], absolute pixels, within `size`; computed from the mask (exclusive ends) if there is
            one, else the source's box; also the source's box if the mask was generated from it and it is fully visible.
        has_mask: bool [n].
        masks: bool [m, H, W], of the objects that have one, in their order; empty on padding.
        mask_weights: float32 [n] in [0, 1].
        ignore: bool [H, W], the region without loss for absent objects; empty on padding.
        size: (height, width) without padding.
        orig_size: (height, width) of the image file.
        annotation_ids: for each object, the ids of its annotations.
    """

    image: NDArray[np.uint8]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    has_mask: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    mask_weights: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    size: tuple[int, int]
    orig_size: tuple[int, int]
    annotation_ids: tuple[tuple[int, ...], ...]


def make_train_example(
    image: NDArray[np.uint8], target: Target, kind: str, config: AugmentConfig, rng: random.Random
) -> Example:
    """A random training view; see `synthgen.dataloading.augment`. Flipped only if the objects' texts allow it.

    Args:
        image: uint8 [H, W, 3], RGB, the original.
        target: the objects of the image, in its frame.
        kind: the task's `AUGMENTATION`.
        config: the manifest's section `augment:`.
        rng: decides every random draw.

    Raises:
        SynthgenError: the size of a mask, or the sum of its runs, differs from the image.
        ValueError: there is no such kind.
    """
    categories = _label_map(image.shape[:2], target) if kind == "semantic" and config.max_category_area < 1 else None
    may_flip = _flip_texts(target) is not None
    view = make_random_transform(kind, image.shape[:2], config, rng, may_flip=may_flip, category_map=categories)
    return apply_transform(image, target, view)


def make_eval_example(
    image: NDArray[np.uint8], target: Target, *, short_side: int = 800, long_side: int = 1333
) -> Example:
    """The whole image, resized. Not random.

    Objects that vanish in the view (a few pixels of a very large image) are not in the example. Predictions must be
    measured in the original frame, against the original masks.

    Args:
        image: uint8 [H, W, 3], RGB, the original.
        target: the objects of the image, in its frame.
        short_side: length of the shorter side of the view, in pixels.
        long_side: maximum of the longer side, in pixels; the view is smaller if needed.
    """
    return apply_transform(
        image, target, make_resize_transform(image.shape[:2], short_side=short_side, long_side=long_side)
    )


def make_captioner_example(image: NDArray[np.uint8], target: Target, *, side: int) -> Example:
    """The whole image stretched to a square, for training and evaluation. Not random.

    Args:
        image: uint8 [H, W, 3], RGB, the original.
        target: the objects of the image, in its frame.
        side: of the square, in pixels.
    """
    return apply_transform(image, target, make_square_transform(side))


def make_unscaled_example(image: NDArray[np.uint8], target: Target) -> Example:
    """The whole image in its own size, with the boxes of the target but without its masks. Not random.

    Args:
        image: uint8 [H, W, 3], RGB, the original.
        target: the objects of the image, in its frame.
    """
    size = (image.shape[0], image.shape[1])
    boxes_only = replace(target, masks=(None,) * len(target.labels), box_prompted=())
    return apply_transform(image, boxes_only, ViewTransform(size, top=0, left=0, size=size, canvas_size=size))


def apply_transform(image: NDArray[np.uint8], target: Target, transform: ViewTransform) -> Example:
    """The view of an image. Objects that it does not show are dropped; their texts stay as negatives.

    An object is dropped if its mask is empty in the view or, without a mask, if a side of its box is below one pixel.

    Args:
        image: uint8 [H, W, 3], RGB, the original.
        target: the objects of the image, in its frame.
        transform: geometry and colors of the view.

    Raises:
        SynthgenError: the size of a mask, or the sum of its runs, differs from the image.
        ValueError: the view is flipped, and a text forbids that.
    """
    texts = _flip_texts(target) if transform.flip else target.texts
    if texts is None:
        raise ValueError("a mirrored view of texts whose sides cannot be exchanged")
    places = _map_pixels(image.shape[:2], transform)
    masks = np.zeros(
        (sum(rle is not None for rle in target.masks), *transform.canvas_size), np.bool_
    )  # not touched, so not in memory
    moved = _transform_boxes(target.boxes_xyxy, image.shape[:2], transform)
    boxes = clip_xyxy(moved, *transform.size).astype(np.float32)
    whole = np.zeros(len(boxes), np.bool_)
    whole[list(target.box_prompted)] = not transform.degrees  # a rotated box is not tight
    whole &= (np.abs(moved - boxes).max(axis=1) < _MAX_CLIPPED_PIXELS) & (
        (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 1
    )
    kept, drawn = [], 0
    for i, rle in enumerate(target.masks):
        box = boxes[i] if rle is None else _render_mask(rle, places, masks[drawn])
        if box is None or (rle is None and min(box[2] - box[0], box[3] - box[1]) < 1):
            continue
        if not whole[i]:
            boxes[i] = box
        kept.append(i)
        drawn += rle is not None
    ignore = np.zeros(transform.canvas_size, np.bool_)
    if target.ignore is not None:
        _render_mask(target.ignore, places, ignore)
    if places.outside is not None:
        ignore[: transform.size[0], : transform.size[1]] |= places.outside
    return Example(
        image=_render_image(image, transform, places),
        texts=texts,
        labels=target.labels[kept],
        boxes_xyxy=boxes[kept].reshape(-1, 4),
        has_mask=np.array([target.masks[i] is not None for i in kept], np.bool_),
        masks=masks[:drawn],
        mask_weights=target.mask_weights[kept],
        ignore=ignore,
        size=transform.size,
        orig_size=(image.shape[0], image.shape[1]),
        annotation_ids=tuple(target.annotation_ids[i] for i in kept),
    )


def disable_opencv_threads() -> None:
    """Disable OpenCV's threads in this process. There is one worker process per core already."""
    cv2.setNumThreads(0)


@dataclass(frozen=True, slots=True, eq=False)
class _PixelMap:
    """The pixel of the original for each pixel of a view, [h, w].

    Attributes:
        source_size: (height, width) of the original.
        rows, columns: int64 [h], [w]; in a rotated view both [h, w].
        outside: bool [h, w], pixels outside the image; None = no rotation, all are inside.
    """

    source_size: tuple[int, int]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    outside: NDArray[np.bool_] | None = None


def _map_pixels(size: tuple[int, int], transform: ViewTransform) -> _PixelMap:
    if not transform.degrees:
        rows, columns = (  # floor((start + i + 0.5) * old / new), in integers
            (2 * np.arange(start, start + seen) + 1) * old // (2 * new)
            for start, seen, old, new in zip(
                (transform.top, transform.left), transform.size, size, transform.resized_size, strict=True
            )
        )
        return _PixelMap(size, rows, size[1] - 1 - columns if transform.flip else columns)
    turn = _rotation_matrix(transform)
    y, x = np.mgrid[: transform.size[0], : transform.size[1]] + 0.5
    across, down = (turn[i, 0] * x + turn[i, 1] * y + turn[i, 2] for i in (0, 1))
    row = np.floor(down * size[0] / transform.resized_size[0]).astype(np.int64)
    column = np.floor(across * size[1] / transform.resized_size[1]).astype(np.int64)
    outside = (row < 0) | (row >= size[0]) | (column < 0) | (column >= size[1])
    row, column = row.clip(0, size[0] - 1), column.clip(0, size[1] - 1)
    return _PixelMap(size, row, size[1] - 1 - column if transform.flip else column, outside)


def _rotation_matrix(transform: ViewTransform) -> NDArray[np.float64]:
    """float64 [2, 3]: (x, y, 1) of the window, in pixels from its corner -> (x, y) of the flipped, resized image."""
    cos, sin = math.cos(math.radians(transform.degrees)), math.sin(math.radians(transform.degrees))
    y, x = transform.size[0] / 2, transform.size[1] / 2
    across = [cos, -sin, x + transform.left - cos * x + sin * y]
    down = [sin, cos, y + transform.top - sin * x - cos * y]
    return np.array([across, down])


def _render_image(image: NDArray[np.uint8], transform: ViewTransform, pixel_map: _PixelMap) -> NDArray[np.uint8]:
    """The image on the canvas: uint8 [H, W, 3]."""
    source = np.asarray(cv2.flip(image, 1), np.uint8) if transform.flip else image
    if pixel_map.outside is None:
        seen = resize(
            source, transform.resized_size, (transform.top, transform.left, *transform.size), bicubic=transform.bicubic
        )
    else:
        centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV's origin is a pixel's centre, ours its corner
        turn = (np.linalg.inv(centre) @ np.vstack([_rotation_matrix(transform), [0, 0, 1]]) @ centre)[:2]
        seen = np.asarray(
            cv2.warpAffine(
                resize(source, transform.resized_size),
                turn,
                transform.size[::-1],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )
        seen[pixel_map.outside] = PADDING_VALUE
    seen = apply_color_steps(seen, transform.color_steps)
    (height, width), canvas = transform.size, np.empty((*transform.canvas_size, 3), np.uint8)
    canvas[:height, :width] = seen
    canvas[height:] = canvas[:height, width:] = PADDING_VALUE
    return canvas


def _render_mask(rle: Rle, pixel_map: _PixelMap, canvas: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Draw a mask into an empty canvas, bool [H, W]; returns its tight box (x1, y1, x2, y2), or None if it is empty."""
    if tuple(rle.size) != pixel_map.source_size:
        raise SynthgenError(
            f"a mask of {rle.size[0]} x {rle.size[1]} in an image of {pixel_map.source_size[0]} x "
            f"{pixel_map.source_size[1]}"
        )
    if pixel_map.outside is not None:
        part = decode_mask(rle)[pixel_map.rows, pixel_map.columns] & ~pixel_map.outside
        top = left = 0
    else:
        found = _decode_window(rle, pixel_map)
        if found is None:
            return None
        part, top, left = found
    down, across = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not down.size:
        return None
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return (left + across[0], top + down[0], left + across[-1] + 1, top + down[-1] + 1)


def _decode_window(rle: Rle, pixel_map: _PixelMap) -> tuple[NDArray[np.bool_], int, int] | None:
    """The part of a view that may show a mask: its pixels, bool [h, w], and its top left corner."""
    height = rle.size[0]
    edges = np.cumsum(decode_runs(rle))
    runs = edges[: edges.size // 2 * 2].reshape(-1, 2)  # each run: first position (column * height + row), end
    runs = runs[runs[:, 0] < runs[:, 1]]
    if not len(runs):
        return None
    first, last = runs[:, 0], runs[:, 1] - 1
    within = (first // height == last // height).all()  # no run continues in the next column
    top, bottom = ((first % height).min(), (last % height).max()) if within else (0, height - 1)
    rows = np.flatnonzero((pixel_map.rows >= top) & (pixel_map.rows <= bottom))
    columns = np.flatnonzero((pixel_map.columns >= first[0] // height) & (pixel_map.columns <= last[-1] // height))
    if not rows.size or not columns.size:
        return None
    # Decode only the visible columns, and copy the visible part of a column at once.
    down, across = pixel_map.rows[rows], pixel_map.columns[columns]
    start, stop = across.min(), across.max() + 1
    lengths = np.diff(runs.clip(start * height, stop * height).ravel(), prepend=start * height, append=stop * height)
    decoded = np.repeat(np.arange(lengths.size, dtype=np.uint8) & 1, lengths).reshape(-1, height)
    part = cv2.transpose(decoded[across - start, down.min() : down.max() + 1])[down - down.min()]
    return np.asarray(part).view(np.bool_), int(rows[0]), int(columns[0])


def _transform_boxes(
    boxes_xyxy: NDArray[np.float32], size: tuple[int, int], transform: ViewTransform
) -> NDArray[np.float64]:
    """The boxes in the view's frame, not clipped: float64 [n, 4]; after a rotation, around the rotated boxes."""
    boxes = boxes_xyxy.astype(np.float64)
    if transform.flip:
        boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
    boxes *= np.array([transform.resized_size[1] / size[1], transform.resized_size[0] / size[0]] * 2)
    if transform.degrees:
        back = np.linalg.inv(np.vstack([_rotation_matrix(transform), [0, 0, 1]]))
        corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ back[:2, :2].T + back[:2, 2]
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    else:
        boxes -= np.array([transform.left, transform.top] * 2)
    return boxes


def _flip_texts(target: Target) -> tuple[str, ...] | None:
    """The texts of the flipped image; None = the text of an object is ambiguous.

    An ambiguous negative stays unchanged: it is absent in the flipped image, too.
    """
    found = [mirror_texts([text]) for text in target.texts]
    if any(found[label] is None for label in target.labels.tolist()):
        return None
    return tuple(text if new is None else new[0] for text, new in zip(target.texts, found, strict=True))


def _label_map(size: tuple[int, int], target: Target) -> NDArray[np.int32]:
    """int32 [H, W]: the label of each pixel, counted from 1; 0 = none."""
    found = np.zeros(size, np.int32)
    for label, rle in zip(target.labels, target.masks, strict=True):
        if rle is not None:
            found[decode_mask(rle)] = label + 1
    return found
