"""Collates examples into batches: packed in the worker, sent as bytes, normalized in the main process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.dataloading.batch_memory import allocate
from synthgen.dataloading.color_jitter import apply_channel_tables
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.size_groups import round_up_size
from synthgen.dataloading.transforms import Example

#: Mean and standard deviation of red, green, blue in 8-bit levels (ImageNet, as in detectron2).
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

#: Rows that are normalized at a time, and the lookup table of levels: float32 [3, 256].
_STRIP_ROWS = 64
_NORMALIZED = np.stack(
    [
        (np.arange(256, dtype=np.float32) - np.float32(m)) / np.float32(s)
        for m, s in zip(PIXEL_MEAN, PIXEL_STD, strict=True)
    ]
)


class Batch(NamedTuple):
    """A batch of B images and their targets, in the frame of the batch.

    Attributes:
        images: float32 [B, 3, H, W], RGB, normalised; 0 on padding, which is right and bottom.
        padding_mask: bool [B, H, W], True on padding.
        targets: for each image, of n objects of which m have a mask, a dict:
            texts: tuple of str; labels: int64 [n], indices into texts;
            boxes: float32 [n, 4], CXCYWH in [0, 1] of `size`;
            has_mask: bool [n]; masks: bool [m, H, W]; mask_weights: float32 [n]; ignore: bool [H, W];
            size, orig_size: (height, width); annotation_ids: for each object; image_key: str;
            in evaluation also "sample" and "original"; see `synthgen.dataloading.eval_loader`.
        source_ids: the source in the manifest of each image.
    """

    images: Tensor
    padding_mask: Tensor
    targets: list[dict[str, Any]]
    source_ids: list[int]


class PackedPixels(NamedTuple):
    """The pixels of one example in a packed batch.

    Attributes:
        image: uint8 [H, W, 3], RGB, not normalized; 0 on padding.
        masks: bool [m, H, W].
        ignore: bool [H, W].
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    ignore: NDArray[np.bool_]


class ReaderTurn(NamedTuple):
    """What a reader reports with each batch that it makes.

    Attributes:
        reader_id: which reader made the batch.
        position: the position of that reader in the stream after the batch.
        stats: the `SampleStats` that this reader counted.
    """

    reader_id: int
    position: dict[str, Any]
    stats: dict[str, Any]


@dataclass(slots=True)
class PackedBatch:
    """A batch as a worker process sends it: numpy arrays, not normalized.

    Attributes:
        pixels: for each image; all of one size, or each of the size of its view.
        targets: as `Batch.targets`, without masks and ignore.
        source_ids: the source in the manifest of each image.
        turns: the readers' turns that are complete with this batch: one, as a worker sends it; for the parts of
            `step_parts`, all turns of the step with its last part.
        batch: the unpacked batch, if it has been unpacked.
        memory: the file of shared memory that holds the pixels; None = they are in ordinary memory.
    """

    pixels: list[PackedPixels]
    targets: list[dict[str, Any]]
    source_ids: list[int]
    turns: list[ReaderTurn] = field(default_factory=list)
    batch: Batch | None = None
    memory: IO[bytes] | None = None

    def pin_memory(self) -> PackedBatch:
        """Unpack into page-locked memory."""
        self.batch = unpack_batch(self, pin=True)
        return self


def collate(
    items: Sequence[StreamItem], extra_targets: Sequence[Mapping[str, Any]] = (), *, trim: bool = False
) -> PackedBatch:
    """Pack examples, padded to the largest of them, rounded up to multiples of 32.

    Args:
        items: the examples of one batch.
        extra_targets: further entries of each target; () = none.
        trim: pack each example without padding, in the size of its view.
    """
    examples = [one.example for one in items]
    canvas_size = round_up_size([example.image.shape[:2] for example in examples])
    shapes: list[tuple[int, ...]] = []
    for example in examples:
        height, width = example.size if trim else canvas_size
        shapes += [(height, width, 3), (len(example.masks), height, width), (height, width)]
    arrays, memory = allocate(shapes)
    pixels = split_pixels(arrays)
    for example, packed in zip(examples, pixels, strict=True):
        h, w = example.size
        packed.image[:h, :w] = example.image[:h, :w]
        packed.masks[:, :h, :w] = example.masks[:, :h, :w]
        packed.ignore[:h, :w] = example.ignore[:h, :w]
    extras = extra_targets or [{}] * len(items)
    targets = [
        {**_target_fields(one.example), "image_key": one.image_key, **extra}
        for one, extra in zip(items, extras, strict=True)
    ]
    return PackedBatch(pixels, targets, [one.source_id for one in items], memory=memory)


def split_pixels(arrays: Sequence[NDArray[np.uint8]]) -> list[PackedPixels]:
    """The pixels of each example.

    Args:
        arrays: uint8; of each example in turn the image [H, W, 3], the masks [m, H, W] and the ignored region [H, W].
    """
    return [
        PackedPixels(image, masks.view(np.bool_), ignore.view(np.bool_))
        for image, masks, ignore in zip(arrays[::3], arrays[1::3], arrays[2::3], strict=True)
    ]


def unpack_batch(packed: PackedBatch, *, pin: bool = False) -> Batch:
    """The batch of tensors, padded to its largest image, rounded up to multiples of 32.

    Masks and ignored regions are views of the packed ones, unless they need padding or page-locked memory.

    Args:
        packed: a batch from `collate`, or a part of several.
        pin: into page-locked memory.
    """
    count, (height, width) = len(packed.pixels), round_up_size([one.image.shape[:2] for one in packed.pixels])
    images = _allocate((count, 3, height, width), np.float32, pin)
    padding = _allocate((count, height, width), np.bool_, pin)
    masks = _pad([one.masks for one in packed.pixels], (height, width), pin)
    ignore = _pad([one.ignore[None] for one in packed.pixels], (height, width), pin)
    to_images, to_padding = images.numpy(), padding.numpy()
    # Use numpy: torch's threads slow each other down many times while readers use all cores.
    to_padding[:] = True
    targets = []
    for i, small in enumerate(packed.targets):
        h, w = small["size"]
        _normalize(packed.pixels[i].image[:h, :w], to_images[i])
        to_padding[i, :h, :w] = False
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in small.items()}
        targets.append({**tensors, "masks": masks[i], "ignore": ignore[i][0]})
    return Batch(images, padding, targets, packed.source_ids)


def _pad(arrays: Sequence[NDArray[np.bool_]], size: tuple[int, int], pin: bool) -> list[Tensor]:
    """The arrays, bool [m, h, w] each, as tensors [m, height, width] of the canvas `size`, False on padding."""
    if not pin and all(array.shape[1:] == size for array in arrays):
        return [torch.from_numpy(array) for array in arrays]
    whole = _allocate((sum(map(len, arrays)), *size), np.bool_, pin)
    parts, first = [], 0
    for array in arrays:
        part = whole[first : first + len(array)]
        (height, width), canvas = array.shape[1:], part.numpy()
        canvas[:, height:] = canvas[:, :height, width:] = False
        canvas[:, :height, :width] = array
        parts.append(part)
        first += len(array)
    return parts


def _allocate(shape: tuple[int, ...], dtype: type[np.generic], pin: bool) -> Tensor:
    """Memory for a batch. numpy asks the system for large pages and torch does not; this saves half the time."""
    if pin:
        return torch.empty(shape, dtype=torch.bool if dtype is np.bool_ else torch.float32, pin_memory=True)
    return torch.from_numpy(np.empty(shape, dtype))


def _normalize(image: NDArray[np.uint8], canvas: NDArray[np.float32]) -> None:
    """Fill a canvas, [3, H, W], with an image, [h, w, 3], and zeros; in strips that fit the CPU cache."""
    height, width, _ = image.shape
    canvas[:, height:] = 0
    canvas[:, :height, width:] = 0
    for top in range(0, height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, height))
        apply_channel_tables(image[rows], _NORMALIZED, canvas[:, rows, :width])


def _target_fields(example: Example) -> dict[str, Any]:
    """The fields of a target that do not have the canvas's size."""
    height, width = example.size
    x1, y1, x2, y2 = example.boxes_xyxy.astype(np.float64).T
    boxes = np.stack([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height], axis=1)
    return {
        "texts": example.texts,
        "labels": example.labels,
        "boxes": boxes.astype(np.float32),
        "has_mask": example.has_mask,
        "mask_weights": example.mask_weights,
        "size": example.size,
        "orig_size": example.orig_size,
        "annotation_ids": example.annotation_ids,
    }
