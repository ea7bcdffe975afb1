"""Images of files and archives to RGB arrays. Every unusual one has a defined outcome: an array, or an `ImageError`."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from synthgen.errors import describe_exhaustion
from synthgen.images.byte_budget import ByteBudget
from synthgen.images.file_kinds import describe_file_kind
from synthgen.images.image_error import ImageError as ImageError
from synthgen.images.image_error import utf8_safe
from synthgen.images.packed import ImageSource, PackedImage, find_packed_image, open_image
from synthgen.images.paths import candidate_paths

#: A larger image is an error. Decoding takes up to eight bytes a pixel, so that one image takes at most a GiB.
MAX_IMAGE_PIXELS = 125_000_000

#: Formats whose decoders take more: measured bytes a pixel of Pillow 13, and some.
_MAX_PIXELS_BY_FORMAT = {"JPEG2000": 2**30 // 20, "WEBP": 2**30 // 17, "AVIF": 2**30 // 11}

#: Pixels that are converted at once: what Pillow copies for it stays small.
_STRIP_PIXELS = 2**21

#: Maximum bytes that all threads decode at the same time, with Pillow's own copy.
MAX_DECODE_BYTES = 2**30

#: Bytes a pixel in Pillow's memory and in our copies of it, without the result; other modes take four.
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 8, "I;16B": 8, "I;16L": 8, "I": 20, "F": 20}

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
_QUARTER_TURNS = tuple(_ORIENTATION_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8))  # swap height and width

#: Which transpositions reverse rows or columns, after the swap of height and width.
_FLIPS_ROWS = frozenset(_ORIENTATION_TRANSPOSE[orientation] for orientation in (3, 4, 7, 8))
_FLIPS_COLUMNS = frozenset(_ORIENTATION_TRANSPOSE[orientation] for orientation in (2, 3, 6, 7))

# Pillow warns about images above half our limit, odd EXIF, and so on; everything that matters is an `ImageError`.
# `warnings.catch_warnings` is process-wide and decoding runs on threads, so the filter is set once, not per file.
warnings.filterwarnings("ignore", module=r"PIL\.")

_budget = ByteBudget(MAX_DECODE_BYTES)


def _reset_budget() -> None:
    global _budget  # noqa: PLW0603
    _budget = ByteBudget(MAX_DECODE_BYTES)


os.register_at_fork(after_in_child=_reset_budget)  # threads that hold a part of it exist only in the parent


def find_image(root: Path, file_name: str) -> ImageSource:
    """Find the file of an image below `root`, or the image in an archive there (`images.packed`).

    It tries, in this order:

    1. the whole name;
    2. the name without folders that a release names and its archives lack (Objects365's `images/v1`);
    3. the name without leading folders that `root` ends with: `val2017/x.jpg` below `.../val2017`;
    4. for a photograph of COCO, its other name (2014 or 2017), by 1 and 3;
    5. the same with the name in the other Unicode form (NFC or NFD): the letters are the same. macOS and some archive
       programs change the form.

    It never searches for the file name alone: that may be another image, such as the frame of another video. Symbolic
    links are followed. Pipes and devices are refused.

    Args:
        root: image folder of the dataset.
        file_name: as the annotations write it; untrusted.

    Raises:
        ImageError: there is no such file, the name leaves `root`, or its archive lacks it or cannot be read.
        OSError: the machine lacks memory or open files.
    """
    parts = PurePosixPath(file_name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or "\0" in file_name or re.match("[A-Za-z]:", parts[0]):
        raise ImageError(f"file name '{utf8_safe(file_name)}' is not a path below the image folder")
    lost: ImageError | None = None
    for tail in candidate_paths(root, parts):
        path = root.joinpath(*tail)
        try:
            if path.is_file():
                return path
            if (packed := find_packed_image(root, tail)) is not None:
                return packed
        except OSError as why:  # a name too long for the file system, a folder without permission
            if describe_exhaustion(why):
                raise  # it says nothing about the image
            raise ImageError(f"file {utf8_safe(file_name)} cannot be reached ({_short_reason(why)})") from None
        except ImageError as why:  # an archive without this image; another candidate may be there
            lost = lost or why
    raise lost or ImageError(f"no file {utf8_safe(file_name)} below the image folder")


@contextmanager
def _open(source: ImageSource | BinaryIO) -> Iterator[Image.Image]:
    """The image, not decoded yet."""
    if isinstance(source, PackedImage):
        with open_image(source) as file, Image.open(file, formats=IMAGE_FORMATS) as image:
            yield image
    else:
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            yield image


def load_rgb(path: ImageSource, expected_height: int = 0, expected_width: int = 0) -> NDArray[np.uint8]:
    """Decode an image file: uint8 [H, W, 3], RGB.

    EXIF orientation is applied, as viewers do. It is not applied if only the unrotated size agrees with the annotations
    (except for TIFF, whose decoder always applies it). Alpha is dropped; CMYK, palette and greyscale become RGB; 16-bit
    samples keep their upper eight bits; floats up to 1 are fractions of white. Animations give their first frame.

    Args:
        path: a file, or an image in an archive.
        expected_height: what the annotations say, in pixels; 0 = they do not.
        expected_width: what the annotations say, in pixels; 0 = they do not.

    Raises:
        ImageError: missing, not one of `IMAGE_FORMATS`, truncated, too large, or not of the annotated size.
    """
    expected = (expected_width, expected_height) if expected_height and expected_width else None
    try:
        with _open(path) as image:
            turn, shown = _exif_transpose(image)
            _check_size(shown, image.format)
            if expected is not None and expected not in (shown, image.size):  # before a pixel is decoded
                raise ImageError(
                    f"is {shown[0]} x {shown[1]} pixels, the annotations say {expected[0]} x {expected[1]}"
                )
            with _budget.hold(_decode_bytes(image)):
                image.load()
                rgb = _to_rgb(image)
                image.close()  # frees its pixels before they are turned
                return _transpose(rgb, turn) if turn is not None and expected in (None, shown) else rgb
    except Exception as why:  # decoders raise many types: OSError, SyntaxError, struct.error, ...
        raise _as_image_error(why, "decoded", path) from None


def convert_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An image of Pillow as `load_rgb` gives one of a file: uint8 [H, W, 3] RGB, upright.

    Of an animation, it is the current frame. The image stays as it is.

    Args:
        image: an image of Pillow, of any mode.

    Raises:
        ImageError: too large, truncated, or with samples that are no intensities.
    """
    try:
        turn, shown = _exif_transpose(image)
        _check_size(shown, image.format)
        with _budget.hold(_decode_bytes(image)):
            rgb = _to_rgb(image.copy())  # which changes `info`
            return rgb if turn is None else _transpose(rgb, turn)
    except Exception as why:  # decoders raise many types
        raise _as_image_error(why, "decoded", Path()) from None


def load_label_map(path: ImageSource | BinaryIO, *, color_coded: bool = False) -> NDArray[np.integer]:
    """Decode a label map: the stored numbers, uint8, uint16 or int32 [H, W]. A palette is ignored.

    Args:
        path: the file, or its content as a stream.
        color_coded: the labels are colours: each pixel gives 65536 * red + 256 * green + blue, without alpha.

    Raises:
        ImageError: missing, not lossless, truncated, too large, or unexpectedly in colour.
    """
    return decode_numbers(path, _check_lossless, lambda image: _to_label_map(image, color_coded=color_coded))


def decode_numbers(
    path: ImageSource | BinaryIO, check: Callable[[Image.Image], None], convert: Callable[[Image.Image], NDArray[Any]]
) -> NDArray[Any]:
    """Decode a file whose pixels are numbers, as they are stored.

    Args:
        path: the file, or its content as a stream.
        check: gets the image before a pixel is decoded, and raises `ImageError` to refuse it.
        convert: the decoded image -> the result; see `convert_strips`.

    Raises:
        ImageError: missing, refused, truncated or too large.
    """
    try:
        with _open(path) as image:
            _check_size(image.size, image.format)
            check(image)
            with _budget.hold(_decode_bytes(image)):
                image.load()
                return convert(image)
    except Exception as why:  # decoders raise many types
        raise _as_image_error(why, "decoded", path) from None


def read_image_header(path: ImageSource) -> tuple[int, int, bool]:
    """(height, width, turned) from the header, with EXIF orientation applied; decodes nothing.

    `turned`: the stored pixels must be rotated by 90 or 270 degrees, so their shape differs.

    Args:
        path: a file, or an image in an archive.

    Raises:
        ImageError: missing, not one of `IMAGE_FORMATS`, or too large.
    """
    try:
        with _open(path) as image:
            _, (width, height) = _exif_transpose(image)
            _check_size((width, height), image.format)
            return height, width, (width, height) != image.size
    except Exception as why:
        raise _as_image_error(why, "opened", path) from None


def _decode_bytes(image: Image.Image) -> int:
    """An estimate of the bytes that decoding takes, with the RGB result; from the header."""
    return image.width * image.height * (3 + _BYTES_PER_PIXEL.get(image.mode, 4))


def _check_size(size: tuple[int, int], image_format: str | None) -> None:
    most = min(MAX_IMAGE_PIXELS, _MAX_PIXELS_BY_FORMAT.get(image_format or "", MAX_IMAGE_PIXELS))
    if size[0] * size[1] > most:
        raise ImageError(f"has {size[0]} x {size[1]} pixels, more than the limit of {most}")


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
    """uint8 [H, W, 3]."""
    if image.mode in ("I", "F"):
        scale = _intensity_scale(image)
        return convert_strips(image, lambda strip: _grey_to_rgb((np.asarray(strip) * scale).astype(np.uint8)))
    if image.mode.startswith("I;16"):
        return convert_strips(image, lambda strip: _grey_to_rgb((np.asarray(strip, np.uint16) >> 8).astype(np.uint8)))
    image.info.pop("transparency", None)  # avoids a warning of Pillow that it will be lost
    return convert_strips(image, lambda strip: np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB")))


def convert_strips(image: Image.Image, convert: Callable[[Image.Image], NDArray[Any]]) -> NDArray[Any]:
    """What `convert` makes of the rows of a decoded image; a large image by strips, so that copies stay small.

    Args:
        image: the decoded image.
        convert: an image of some of its rows -> an array whose first axis is the rows.
    """
    height = max(1, _STRIP_PIXELS // max(1, image.width))
    if height >= image.height:
        return np.ascontiguousarray(convert(image))
    first = convert(image.crop((0, 0, image.width, height)))
    whole = np.empty((image.height, *first.shape[1:]), first.dtype)
    whole[:height] = first
    for top in range(height, image.height, height):
        bottom = min(top + height, image.height)
        whole[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    return whole


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _intensity_scale(image: Image.Image) -> float:
    """The factor that brings the samples of mode I or F to 0..255."""

    def range_of_rows(strip: Image.Image) -> NDArray[np.float64]:
        values = np.asarray(strip)
        return np.stack([values.min(axis=1), values.max(axis=1)], axis=1).astype(np.float64)  # NaN if there is one

    ends = convert_strips(image, range_of_rows)
    top = float(ends.max(initial=0))
    if not np.isfinite(ends).all() or ends.min(initial=0) < 0 or top > 65535:
        raise ImageError(f"has samples of mode {image.mode} that are no 8-bit or 16-bit intensities")
    return 1 / 257 if top > 255 else 255 if image.mode == "F" and top <= 1 else 1


def _transpose(rgb: NDArray[np.uint8], turn: Image.Transpose) -> NDArray[np.uint8]:
    """The pixels [H, W, 3] transposed as Pillow does."""
    if turn in _QUARTER_TURNS:
        rgb = rgb.swapaxes(0, 1)
    rows, columns = (slice(None, None, -1 if turn in flips else 1) for flips in (_FLIPS_ROWS, _FLIPS_COLUMNS))
    return np.ascontiguousarray(rgb[rows, columns])


def _check_lossless(image: Image.Image) -> None:
    if image.format not in _LOSSLESS_FORMATS:
        raise ImageError(f"is a {image.format}, whose compression changes labels")


def _to_label_map(image: Image.Image, *, color_coded: bool) -> NDArray[np.integer]:
    if not color_coded and image.mode in ("1", "L", "P", "LA", "PA"):
        return convert_strips(image, _first_channel)
    if not color_coded and image.mode.startswith("I"):
        return convert_strips(image, _unsigned_labels)
    image.info.pop("transparency", None)
    return convert_strips(image, _packed_colors if color_coded else _grey_labels)


def _first_channel(strip: Image.Image) -> NDArray[np.integer]:
    """The numbers of a palette or grey strip, without alpha."""
    values = np.asarray(strip)
    return np.asarray(values[..., 0] if values.ndim == 3 else values, np.uint8)


def _unsigned_labels(strip: Image.Image) -> NDArray[np.integer]:
    values = np.asarray(strip)
    if values.min(initial=0) < 0:
        raise ImageError("has negative labels")
    return np.asarray(values, np.int32 if strip.mode == "I" else np.uint16)


def _grey_labels(strip: Image.Image) -> NDArray[np.integer]:
    red, green, blue = np.moveaxis(np.asarray(strip.convert("RGB")), 2, 0)
    if strip.mode == "F" or not ((red == green).all() and (green == blue).all()):
        raise ImageError(f"has colours (mode {strip.mode}), and a label map has one number a pixel")
    return np.asarray(red, np.uint8)


def _packed_colors(strip: Image.Image) -> NDArray[np.integer]:
    """65536 * red + 256 * green + blue, int32 [H, W]."""
    red, green, blue = np.moveaxis(np.asarray(strip.convert("RGB")), 2, 0)
    return np.asarray((red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue, np.int32)


def _as_image_error(why: Exception, done: str, path: ImageSource | BinaryIO) -> ImageError:
    """The error for a row.

    Args:
        why: what a decoder raised.
        done: "decoded" or "opened", for the message.
        path: of the image; a file of an unknown format is described.

    Raises:
        OSError: the machine lacks memory or open files.
    """
    if isinstance(why, ImageError):
        return why
    # The text of an `UnidentifiedImageError` holds the file's name, which may be any text.
    if isinstance(why, OSError) and not isinstance(why, UnidentifiedImageError) and describe_exhaustion(why):
        raise why  # it says nothing about the image
    if isinstance(why, FileNotFoundError):
        return ImageError("no such file")
    if isinstance(why, Image.DecompressionBombError):
        return ImageError(f"has more than the limit of {MAX_IMAGE_PIXELS} pixels")
    if isinstance(why, MemoryError):
        return ImageError("is too large for the memory")
    is_unknown = isinstance(why, UnidentifiedImageError)
    if is_unknown and isinstance(path, Path) and (kind := describe_file_kind(path)):
        return ImageError(f"cannot be {done}: it {kind}")
    return ImageError(f"cannot be {done} ({type(why).__name__}: {_short_reason(why)})")


def _short_reason(why: Exception) -> str:
    """The decoder's message without paths of this machine, which do not belong in a shard."""
    if isinstance(why, UnidentifiedImageError):
        return f"no image of the kinds {', '.join(IMAGE_FORMATS)}"
    text = (why.strerror if isinstance(why, OSError) else None) or str(why)
    return utf8_safe(text.splitlines()[0] if text else "no reason given")
