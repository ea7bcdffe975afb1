"""Image files to RGB arrays. Every unusual file has a defined outcome: an array, or an `ImageError`."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from synthgen.errors import describe_exhaustion
from synthgen.images.paths import candidate_paths

#: A larger image is an error: 178 M pixels are half a GiB in RGB.
MAX_IMAGE_PIXELS = 178_956_970

#: Maximum bytes that all threads decode at the same time, with Pillow's own copy.
MAX_DECODE_BYTES = 2**30

#: Bytes a pixel in Pillow's memory and in our copies of it, without the result; other modes take four.
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 8, "I;16B": 8, "I;16L": 8, "I": 20, "F": 20}

#: Larger images are converted in strips of about this many pixels: Pillow's copies take up to ten bytes a pixel.
_STRIP_PIXELS = 2**22

#: File formats of photographs and label maps. Pillow knows thirty more; one of them (EPS) runs a program on the file,
#: and none is worth the risk.
Image.init()  # Pillow fills its table of formats at the first open, which is not thread-safe
IMAGE_FORMATS = tuple(
    format_
    for format_ in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
    if format_ in Image.OPEN  # some builds of Pillow lack some
)

#: The lossless ones: a label map in another format has lost its labels.
_LOSSLESS_FORMATS = frozenset({"PNG", "TIFF", "BMP", "GIF", "PPM"})

_ORIENTATION_TAG = 0x0112  # EXIF tag
_ORIENTATION_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = tuple(
    _ORIENTATION_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8)
)  # they swap height and width

# Pillow warns about images above half our limit, odd EXIF, and so on; everything that matters is an `ImageError`.
# `warnings.catch_warnings` is process-wide and decoding runs on threads, so the filter is set once, not per file.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _ByteBudget:
    """Limits the bytes that all threads of this process decode at the same time. One image may exceed it alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._changed = limit, 0, threading.Condition()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait until there is room for `count` bytes, and hold them while the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + count <= self._limit)
            self._held += count
        try:
            yield
        finally:
            with self._changed:
                self._held -= count
                self._changed.notify_all()


_budget = _ByteBudget(MAX_DECODE_BYTES)


def _reset_budget() -> None:
    global _budget  # noqa: PLW0603
    _budget = _ByteBudget(MAX_DECODE_BYTES)


os.register_at_fork(after_in_child=_reset_budget)  # threads that hold a part of it exist only in the parent


class ImageError(Exception):
    """Why an image cannot be used: a sentence for `Sample.error`, without paths of this machine."""


def find_image(root: Path, file_name: str) -> Path:
    """Find the file of an image below `root`. It tries, in this order:

    1. the whole name;
    2. the name without folders that a release names and its archives lack (Objects365's `images/v1`);
    3. the name without leading folders that `root` ends with: `val2017/x.jpg` below `.../val2017`;
    4. for a photograph of COCO, its other name (2014 or 2017), by 1 and 3.

    It never searches for the file name alone: that may be another image, such as the frame of another video. Symbolic
    links are followed. Pipes and devices are refused.

    Raises:
        ImageError: there is no such file, or the name leaves `root`.
    """
    parts = PurePosixPath(file_name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or "\0" in file_name or re.match("[A-Za-z]:", parts[0]):
        raise ImageError(f"file name '{_utf8_safe(file_name)}' is not a path below the image folder")
    for tail in candidate_paths(root, parts):
        path = root.joinpath(*tail)
        try:
            if path.is_file():
                return path
        except OSError as why:  # a name too long for the file system, a folder without permission
            raise ImageError(f"file {_utf8_safe(file_name)} cannot be reached ({_short_reason(why)})") from None
    raise ImageError(f"no file {_utf8_safe(file_name)} below the image folder")


def load_rgb(path: Path, expected_height: int = 0, expected_width: int = 0) -> NDArray[np.uint8]:
    """Decode an image file: uint8 [H, W, 3], RGB.

    EXIF orientation is applied, as viewers do. It is not applied if only the unrotated size agrees with the annotations
    (except for TIFF, whose decoder always applies it). Alpha is dropped; CMYK, palette and greyscale become RGB; 16-bit
    samples keep their upper eight bits; floats up to 1 are fractions of white. Animations give their first frame.

    Args:
        expected_height, expected_width: what the annotations say, in pixels; 0 = they do not.

    Raises:
        ImageError: missing, not one of `IMAGE_FORMATS`, truncated, too large, or not of the annotated size.
    """
    expected = (expected_width, expected_height) if expected_height and expected_width else None
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            turn, shown = _exif_transpose(image)
            _check_size(shown)
            if expected is not None and expected not in (shown, image.size):  # before a pixel is decoded
                raise ImageError(
                    f"is {shown[0]} x {shown[1]} pixels, the annotations say {expected[0]} x {expected[1]}"
                )
            with _budget.hold(_decode_bytes(image)):
                image.load()
                return _to_rgb(image.transpose(turn) if turn is not None and expected in (None, shown) else image)
    except Exception as why:  # decoders raise many types: OSError, SyntaxError, struct.error, ...
        raise _as_image_error(why, "decoded") from None


def load_label_map(path: Path, *, color_coded: bool = False) -> NDArray[np.integer]:
    """Decode a label map: the stored numbers, uint8, uint16 or int32 [H, W]. A palette is ignored.

    Args:
        color_coded: the labels are colours: each pixel gives 65536 * red + 256 * green + blue. Alpha is
            dropped.

    Raises:
        ImageError: missing, not lossless, truncated, too large, or unexpectedly in colour.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            _check_size(image.size)
            if image.format not in _LOSSLESS_FORMATS:
                raise ImageError(f"is a {image.format}, whose compression changes labels")
            with _budget.hold(_decode_bytes(image)):
                image.load()
                return _to_label_map(image, color_coded=color_coded)
    except Exception as why:
        raise _as_image_error(why, "decoded") from None


def read_image_header(path: Path) -> tuple[int, int, bool]:
    """(height, width, turned) from the header, with EXIF orientation applied; decodes nothing.

    `turned`: the stored pixels must be rotated by 90 or 270 degrees, so their shape differs.

    Raises:
        ImageError: missing, not one of `IMAGE_FORMATS`, or too large.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            _, (width, height) = _exif_transpose(image)
            _check_size((width, height))
            return height, width, (width, height) != image.size
    except Exception as why:
        raise _as_image_error(why, "opened") from None


def _decode_bytes(image: Image.Image) -> int:
    """An estimate of the bytes that decoding takes, with the RGB result; from the header."""
    return image.width * image.height * (3 + _BYTES_PER_PIXEL.get(image.mode, 4))


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise ImageError(f"has {size[0]} x {size[1]} pixels, more than the limit of {MAX_IMAGE_PIXELS}")


def _exif_transpose(image: Image.Image) -> tuple[Image.Transpose | None, tuple[int, int]]:
    """The transposition that makes the stored pixels upright, and the (width, height) after it; from the header."""
    if image.format == "TIFF":  # Pillow applies it
        return None, image.size
    try:
        # Not `image.getexif()`: for PNG it would decode all pixels to find a tag behind them.
        turn = _ORIENTATION_TRANSPOSE.get(int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)))
    except Exception:  # an unreadable tag; the pixels are still good
        return None, image.size
    return turn, image.size[::-1] if turn in _QUARTER_TURNS else image.size


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        top = float(values.max(initial=0))
        if not np.isfinite(values).all() or values.min(initial=0) < 0 or top > 65535:
            raise ImageError(f"has samples of mode {image.mode} that are no 8-bit or 16-bit intensities")
        scale = 1 / 257 if top > 255 else 255 if image.mode == "F" and top <= 1 else 1
        grey = (values * scale).astype(np.uint8)
    else:
        return _convert_to_rgb(image)
    return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))


def _convert_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pillow's conversion to RGB: uint8 [H, W, 3]."""
    image.info.pop("transparency", None)  # avoids a warning of Pillow that it will be lost
    width, height = image.size
    if width * height <= _STRIP_PIXELS:
        return np.ascontiguousarray(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))
    pixels = np.empty((height, width, 3), np.uint8)
    for rows, strip in _iter_strips(image):
        pixels[rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def _iter_strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Strips of an image from top to bottom, and their rows."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, top + rows), image.crop((0, top, width, min(top + rows, height)))


def _to_label_map(image: Image.Image, *, color_coded: bool) -> NDArray[np.integer]:
    if not color_coded and image.mode in ("1", "L", "P", "LA", "PA"):
        values = np.asarray(image).astype(np.uint8, copy=False)
        return np.ascontiguousarray(values[..., 0]) if values.ndim == 3 else values
    if not color_coded and image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min(initial=0) < 0:
            raise ImageError("has negative labels")
        return np.asarray(values, np.int32 if image.mode == "I" else np.uint16)
    rgb = _convert_to_rgb(image)
    red, green, blue = np.moveaxis(rgb, 2, 0)
    if color_coded:
        labels: NDArray[np.int32] = red.astype(np.int32)
        for channel in (green, blue):  # in place: copies of a large image would take gigabytes
            labels <<= 8
            labels |= channel
        return labels
    if image.mode == "F" or not ((red == green).all() and (green == blue).all()):
        raise ImageError(f"has colours (mode {image.mode}), and a label map has one number a pixel")
    return np.ascontiguousarray(red, dtype=np.uint8)


def _as_image_error(why: Exception, done: str) -> ImageError:
    """The error for a row.

    Raises:
        OSError: the machine lacks memory or open files.
    """
    if isinstance(why, ImageError):
        return why
    if isinstance(why, OSError) and describe_exhaustion(why):
        raise why  # it says nothing about the image
    if isinstance(why, FileNotFoundError):
        return ImageError("no such file")
    if isinstance(why, Image.DecompressionBombError):
        return ImageError(f"has more than the limit of {MAX_IMAGE_PIXELS} pixels")
    if isinstance(why, MemoryError):
        return ImageError("is too large for the memory")
    return ImageError(f"cannot be {done} ({type(why).__name__}: {_short_reason(why)})")


def _short_reason(why: Exception) -> str:
    """The decoder's message without paths of this machine, which do not belong in a shard."""
    if isinstance(why, UnidentifiedImageError):
        return f"no image of the kinds {', '.join(IMAGE_FORMATS)}"
    text = (why.strerror if isinstance(why, OSError) else None) or str(why)
    return _utf8_safe(text.splitlines()[0] if text else "no reason given")


def _utf8_safe(text: str) -> str:
    """At most 200 characters that UTF-8 can encode; hostile names contain lone surrogates."""
    return text[:200].encode("utf-8", "backslashreplace").decode()
