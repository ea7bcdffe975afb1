"""Crops around boxes, and masks back from crops.

A window is a square of whole pixels around a box with a margin, `[left, top, side]`. It may reach beyond the image.
The part inside the image is resized (bilinear, antialiased) into a crop of fixed side; the rest of the crop is 0. The
border of the image is rounded to whole pixels of the crop.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

#: A window shows at least so many pixels beyond the longer side of a box, for boxes of a few pixels.
MIN_PADDING = 4

#: Larger windows are averaged first. On CUDA, antialiasing has a limit at about three times as much.
_MAX_SHRINK = 32


class Placement(NamedTuple):
    """Where the visible part of a window lies: in the image and in the crop, in pixels, ends exclusive."""

    image_top: int
    image_bottom: int
    image_left: int
    image_right: int
    crop_top: int
    crop_bottom: int
    crop_left: int
    crop_right: int

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the visible part, in pixels of the image."""
        return self.image_bottom - self.image_top, self.image_right - self.image_left


def plan_windows(boxes_xyxy: Tensor, margin: float | Tensor) -> Tensor:
    """A window for each box, around its middle.

    Args:
        boxes_xyxy: float [N, 4], absolute pixels, with an area.
        margin: surroundings on each side in parts of the box's longer side; one float, or float [N].

    Returns:
        int64 [N, 3]: left, top and side, in pixels.
    """
    boxes = boxes_xyxy.double()
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    padding = torch.as_tensor(margin, dtype=torch.float64, device=boxes.device) * longer
    side = (longer + 2 * padding.clamp(min=MIN_PADDING)).ceil()
    corner = ((boxes[:, :2] + boxes[:, 2:] - side[:, None]) / 2).round()
    return torch.cat([corner, side[:, None]], 1).long()


def boxes_in_crops(boxes_xyxy: Tensor, windows: Tensor) -> Tensor:
    """Boxes relative to their windows, [0, 1] along each axis: float32 [N, 4], XYXY.

    Args:
        boxes_xyxy: float [N, 4], absolute pixels.
        windows: int64 [N, 3]: left, top and side, in pixels of the image.
    """
    corner, side = windows[:, :2].double(), windows[:, 2:].double()
    return ((boxes_xyxy.double() - corner.repeat(1, 2)) / side).float()


def place_window(window: Tensor, height: int, width: int, crop_size: int, *, grid: int = 1) -> Placement:
    """Where a window shows an image of a size, and where that lies in its crop. At least one pixel in both.

    Args:
        window: int64 [3]: left, top and side, in pixels of the image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        crop_size: side of the crop, in pixels.
        grid: positions in the crop are multiples of this.
    """
    left, top, side = window.tolist()
    rows = _visible_span(top, side, height, crop_size, grid)
    columns = _visible_span(left, side, width, crop_size, grid)
    return Placement(*rows[:2], *columns[:2], *rows[2:], *columns[2:])


def extract_crops(image: Tensor, windows: Tensor, crop_size: int, *, grid: int = 1) -> Tensor:
    """The crops of the windows of one image.

    Args:
        image: [C, H, W]: uint8, whose levels 0 to 255 become -1 to 1; or float, which stays as it is.
        windows: int64 [N, 3].
        crop_size: side of the crops, in pixels.
        grid: the border of the image is rounded to multiples of this in the crop. A picture and a mask of half its
            side agree if the picture has 2.

    Returns:
        float32 [N, C, crop_size, crop_size]; 0 beyond the image.
    """
    channels, height, width = image.shape
    crops = torch.zeros((len(windows), channels, crop_size, crop_size), device=image.device)
    for crop, window in zip(crops, windows, strict=True):
        at = place_window(window, height, width, crop_size, grid=grid)
        part = image[None, :, at.image_top : at.image_bottom, at.image_left : at.image_right]
        if image.dtype == torch.uint8:
            part = part.float() / 127.5 - 1
        if (shrink := int(window[2]) // (_MAX_SHRINK * crop_size)) > 1:
            part = functional.avg_pool2d(part, [min(shrink, side) for side in part.shape[2:]])
        size = (at.crop_bottom - at.crop_top, at.crop_right - at.crop_left)
        crop[:, at.crop_top : at.crop_bottom, at.crop_left : at.crop_right] = functional.interpolate(
            part, size, mode="bilinear", align_corners=False, antialias=True
        )[0]
    return crops


def restore_window(crop_map: Tensor, window: Tensor, place: Placement) -> Tensor:
    """A map over a crop, resized (bilinear) to the visible part of its window.

    Args:
        crop_map: float [r, r], over the whole crop, at any resolution.
        window: int64 [3].
        place: of `place_window`.

    Returns:
        float [image_bottom - image_top, image_right - image_left].
    """
    left, top, side = window.tolist()
    resolution = crop_map.shape[-1]
    rows = torch.arange(place.image_top, place.image_bottom, device=crop_map.device)
    columns = torch.arange(place.image_left, place.image_right, device=crop_map.device)
    down, across = (
        _interpolation_matrix((pixels + 0.5 - start) * (resolution / side), resolution).to(crop_map.dtype)
        for pixels, start in ((rows, top), (columns, left))
    )
    return down @ crop_map @ across.T


def _interpolation_matrix(positions: Tensor, resolution: int) -> Tensor:
    """Weights of bilinear interpolation, float [n, resolution], at n positions in [0, resolution]."""
    centers = torch.arange(resolution, device=positions.device) + 0.5
    return (1 - (positions.clamp(0.5, resolution - 0.5)[:, None] - centers).abs()).clamp(min=0)


def _visible_span(start: int, side: int, limit: int, crop_size: int, grid: int) -> tuple[int, int, int, int]:
    """Of a window along one axis: first and last pixel of the image, first and last pixel of the crop."""
    first, last = max(start, 0), min(start + side, limit)
    begin, end = (grid * round((position - start) * crop_size / (side * grid)) for position in (first, last))
    begin = min(begin, crop_size - grid)
    return first, last, begin, max(end, begin + grid)
