"""An image as users of the Python API give it: an array, an image of Pillow, or a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthgen.errors import ArgumentError, shorten_value
from synthgen.images.decode import ImageError, convert_to_rgb, load_rgb

#: uint8 [H, W, 3] RGB, an image of Pillow of any mode, or the path of an image file.
ImageInput: TypeAlias = "NDArray[np.uint8] | Image.Image | str | os.PathLike[str]"


def as_rgb(image: ImageInput) -> NDArray[np.uint8]:
    """The pixels of an image that a user gives.

    Args:
        image: uint8 [H, W, 3] RGB, which is used as it is; or an image of Pillow or a path, whose EXIF orientation is
            applied.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ArgumentError: it is none of these, has another shape or type, or cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return _load_file(os.fspath(image))
    if isinstance(image, Image.Image):
        try:
            return convert_to_rgb(image)
        except ImageError as why:
            raise ArgumentError(f"image {why}; give an RGB image") from None
    if not isinstance(image, np.ndarray):
        raise ArgumentError(
            f"image is a {type(image).__name__}; give a uint8 array [H, W, 3], an image of Pillow, or a path"
        )
    if image.dtype != np.uint8:
        raise ArgumentError(f"image has the type {image.dtype}; give uint8 values from 0 to 255")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ArgumentError(f"image has the shape {list(image.shape)}; give [H, W, 3] RGB")
    return np.ascontiguousarray(image)


def _load_file(path: str | bytes) -> NDArray[np.uint8]:
    try:
        file = Path(os.fsdecode(path))
        if file.is_dir():
            problem = "is a folder"
        elif file.is_file():
            return load_rgb(file)
        else:
            problem = "is not a regular file" if file.exists() else "does not exist"
    except ImageError as why:
        problem = str(why)
    except (OSError, ValueError):  # a name that is too long, or has a null character
        problem = "has a name that cannot be used"
    raise ArgumentError(f"image {shorten_value(path)} {problem}; give the path of an image file on this machine")
