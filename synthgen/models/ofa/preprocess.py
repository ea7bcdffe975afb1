"""What OFA is shown: square images on the host, pixels on the device, and the corners of boxes as one of 1,000 bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize as resize_pil
from torchvision.transforms.functional import to_pil_image

#: Corners are told in so many steps over so many pixels of the resized image, whatever its size.
NUM_BINS = 1000
BIN_PIXELS = 512


def resize_to_square(image: NDArray[np.uint8], side: int) -> Tensor:
    """Resize an image [h, w, 3] to a square, uint8 [side, side, 3], by Pillow's bicubic filter; on the host.

    The reference does not keep the aspect either. Of threads, each may do its own.
    """
    small = resize_pil(to_pil_image(image), [side, side], InterpolationMode.BICUBIC)
    return torch.from_numpy(np.array(small))


def preprocess_images(resized: Sequence[Tensor], device: torch.device) -> Tensor:
    """Normalise images, uint8 [side, side, 3] RGB each as of `resize_to_square`: float32 [B, 3, side, side] in -1 to
    1.
    """
    images = torch.stack([image.to(device, non_blocking=True) for image in resized])
    return (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def quantize_boxes(boxes_xyxy: Tensor, height: int, width: int, side: int) -> Tensor:
    """The bins of boxes' corners, int64 [N, 4] in the order XYXY.

    Args:
        boxes_xyxy: [N, 4], in pixels of the original image, which is `height` by `width`.
        side: of the square that the image is resized to. At 512 a whole image ends at bin 999; at 480, at 937.

    In float32, and half to even, as the reference. Corners outside the image are moved to its border: what is beyond
    bin 999 is no word of OFA's.
    """
    ratio = torch.tensor([side / width, side / height] * 2, dtype=torch.float32)
    scaled = boxes_xyxy.to("cpu", torch.float32) * ratio
    return (scaled / BIN_PIXELS * (NUM_BINS - 1)).round().clamp(0, NUM_BINS - 1).long()
