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
from synthgen.dataloading.transforms import Example

#: Mean and standard deviation of red, green, blue in 8-bit levels (ImageNet, as in detectron2).
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

#: Sides of a batch are multiples of this, the largest stride of the backbones.
SIZE_DIVISIBILITY = 32

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


@dataclass(slots=True)
class PackedBatch:
    """A batch as a worker process sends it: three tensors, and numpy arrays for the small fields.

    Attributes:
        images: uint8 [B, H, W, 3], RGB, not normalized; 0 on padding.
        masks: bool [sum of m, H, W].
        ignore: bool [B, H, W].
        targets: as `Batch.targets`, without masks and ignore.
        source_ids: the source in the manifest of each image.
        reader_id: which reader made it.
        position: the position of that reader in the stream after the batch.
        stats: the `SampleStats` that this reader counted.
        batch: the unpacked batch, if it has been unpacked.
        memory: the file of shared memory that holds the three tensors; None = they are in ordinary memory.
    """

    images: Tensor
    masks: Tensor
    ignore: Tensor
    targets: list[dict[str, Any]]
    source_ids: list[int]
    reader_id: int = 0
    position: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    batch: Batch | None = None
    memory: IO[bytes] | None = None

    def pin_memory(self) -> PackedBatch:
        """Unpack into page-locked memory."""
        self.batch = unpack_batch(self, pin=True)
        return self


def collate(items: Sequence[StreamItem], extra_targets: Sequence[Mapping[str, Any]] = ()) -> PackedBatch:
    """Pad examples to the largest of them, rounded up to `SIZE_DIVISIBILITY`, and pack them into tensors.

    Args:
        items: the examples of one batch.
        extra_targets: further entries of each target; () = none.
    """
    examples = [one.example for one in items]
    height, width = (
        -(-max((e.image.shape[axis] for e in examples), default=0) // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY
        for axis in (0, 1)
    )
    (to_images, to_masks, to_ignore), memory = allocate(
        [
            (len(examples), height, width, 3),
            (sum(len(e.masks) for e in examples), height, width),
            (len(examples), height, width),
        ]
    )
    first = 0
    for i, example in enumerate(examples):
        h, w = example.size
        end = first + len(example.masks)
        to_images[i, :h, :w] = example.image[:h, :w]
        to_masks[first:end, :h, :w] = example.masks[:, :h, :w]
        to_ignore[i, :h, :w] = example.ignore[:h, :w]
        first = end
    extras = extra_targets or [{}] * len(items)
    targets = [
        {**_target_fields(one.example), "image_key": one.image_key, **extra}
        for one, extra in zip(items, extras, strict=True)
    ]
    images, masks, ignore = (torch.from_numpy(array) for array in (to_images, to_masks, to_ignore))
    return PackedBatch(
        images,
        masks.view(torch.bool),
        ignore.view(torch.bool),
        targets,
        [one.source_id for one in items],
        memory=memory,
    )


def unpack_batch(packed: PackedBatch, *, pin: bool = False) -> Batch:
    """The batch of tensors. Masks and ignored regions of an image are views of one tensor.

    Args:
        packed: a batch from `collate`.
        pin: into page-locked memory.
    """
    count, height, width, _ = packed.images.shape
    images = _allocate((count, 3, height, width), np.float32, pin)
    padding = _allocate((count, height, width), np.bool_, pin)
    masks, ignore = (t.pin_memory() if pin else t for t in (packed.masks, packed.ignore))
    from_images, to_images, to_padding = packed.images.numpy(), images.numpy(), padding.numpy()
    # Use numpy: torch's threads slow each other down many times while readers use all cores.
    to_padding[:] = True
    targets = []
    first = 0
    for i, small in enumerate(packed.targets):
        h, w = small["size"]
        _normalize(from_images[i, :h, :w], to_images[i])
        to_padding[i, :h, :w] = False
        end = first + int(small["has_mask"].sum())
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in small.items()}
        targets.append({**tensors, "masks": masks[first:end], "ignore": ignore[i]})
        first = end
    return Batch(images, padding, targets, packed.source_ids)


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
