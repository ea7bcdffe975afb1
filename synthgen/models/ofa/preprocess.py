"""Inputs of OFA: square images (on the host), pixels (on the device), and box corners quantized to 1,000 bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize as resize_pil
from torchvision.transforms.functional import to_pil_image

#: Box corners are quantized to this many bins over this many pixels of the resized image, whatever its size.
NUM_BINS = 1000
BIN_PIXELS = 512


def resize_to_square(image: NDArray[np.uint8], side: int) -> Tensor:
    """Resize an image, uint8 [h, w, 3] RGB, to uint8 [side, side, 3] with Pillow's bicubic filter; on the host.

    The aspect ratio is not kept, as in the reference. Thread-safe.
    """
    small = resize_pil(to_pil_image(image), [side, side], InterpolationMode.BICUBIC)
    return torch.from_numpy(np.array(small))


def preprocess_images(resized: Sequence[Tensor], device: torch.device) -> Tensor:
    """Normalize images to float32 [B, 3, side, side] in [-1, 1].

    Args:
        resized: B images uint8 [side, side, 3] RGB, from `resize_to_square`.
        device: where the result is made.
    """
    images = torch.stack([image.to(device, non_blocking=True) for image in resized])
    return (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def quantize_boxes(boxes_xyxy: Tensor, height: int, width: int, side: int) -> Tensor:
    """The bins of box corners, int64 [N, 4] in XYXY order.

    In float32 with rounding half to even, as in the reference. Corners outside the image are clipped to its border,
    because there are no bins above 999.

    Args:
        boxes_xyxy: float [N, 4], XYXY in pixels of the original image.
        height: of the original image, in pixels.
        width: of the original image, in pixels.
        side: of the resized square, in pixels. At 512 a whole image ends at bin 999; at 480, at 937.
    """
    ratio = torch.tensor([side / width, side / height] * 2, dtype=torch.float32)
    scaled = boxes_xyxy.to("cpu", torch.float32) * ratio
    return (scaled / BIN_PIXELS * (NUM_BINS - 1)).round().clamp(0, NUM_BINS - 1).long()
