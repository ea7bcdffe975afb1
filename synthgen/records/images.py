"""Image files -> RGB arrays, ahead of need. Every odd file has a defined outcome: an array, or an `ImageError`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from synthgen.records.sample import Sample

#: Larger images are a row with an error, not an array: 178 M pixels are half a GiB in RGB.
MAX_PIXELS = 178_956_970

#: Decoded images that wait for their turn may hold this many bytes together.
AHEAD_BYTES = 512 * 2**20


class ImageError(Exception):
    """Why an image cannot be used: a sentence for `Sample.error`, without paths of this machine in it."""


def find(root: Path, file_name: str) -> Path:
    """The file of an image: `file_name` below `root`, else its last two parts, else its last part.

    Releases name files by folders that their own archives do not have (Objects365: `images/v1/patch8/x.jpg` unpacks
    to `patch8/x.jpg`). A wrong hit is caught by the size check in `load_rgb`.

    Raises:
        ImageError: there is no such file, or the name climbs out of `root`.
    """
    parts = PurePosixPath(file_name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in file_name:
        raise ImageError(f"file name '{file_name}' is not a path below the image folder")
    for tail in dict.fromkeys((parts, parts[-2:], parts[-1:])):
        path = root.joinpath(*tail)
        if path.is_file():
            return path
    raise ImageError(f"no file {file_name} below the image folder")


def load_rgb(path: Path, height: int = 0, width: int = 0) -> NDArray[np.uint8]:
    """Decode an image file: uint8 [H, W, 3], RGB.

    EXIF orientation is applied, as viewers do and annotators see it; where only the unrotated size agrees with the
    annotations, it is not. Alpha is dropped; CMYK, palette and greyscale become RGB; 16-bit samples keep their upper
    eight bits. Animations give their first frame.

    Args:
        height, width: what the annotations say, in pixels; 0 = they do not.

    Raises:
        ImageError: missing, no image, truncated, too large, or of another size than the annotations say.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"has {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}")
                image.load()
                upright = ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"has more than the limit of {MAX_PIXELS} pixels") from None
    except MemoryError:
        raise ImageError("is too large for the memory") from None
    except Exception as why:  # decoders raise whatever they like: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"cannot be decoded ({type(why).__name__}: {_short(why)})") from None
    for candidate in (upright, image):
        if height == 0 or width == 0 or candidate.size == (width, height):
            return _to_rgb(candidate)
    raise ImageError(f"is {upright.width} x {upright.height} pixels, the annotations say {width} x {height}")


def image_header(path: Path) -> tuple[int, int, bool]:
    """(height, width, turned) from the header, EXIF orientation applied; nothing is decoded.

    `turned`: the orientation says that the stored pixels are to be rotated by 90 or 270 degrees.

    Raises:
        ImageError: missing or no image.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
            return (image.width, image.height, True) if turned else (image.height, image.width, False)
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except Exception as why:
        raise ImageError(f"cannot be opened ({type(why).__name__}: {_short(why)})") from None


def load_ahead(
    samples: Iterable[Sample], root: Path, *, threads: int
) -> Iterator[tuple[Sample, NDArray[np.uint8] | ImageError | None]]:
    """Pair each sample with its pixels, in order, decoding ahead on threads.

    A sample that already has an error is passed through with None. At most `2 * threads` images, and at most
    `AHEAD_BYTES` of pixels (or one image), are in flight.
    """

    def load(sample: Sample) -> NDArray[np.uint8] | ImageError | None:
        if sample.error is not None:
            return None
        try:
            return load_rgb(find(root, sample.file_name), sample.height, sample.width)
        except ImageError as why:
            return why

    def cost(sample: Sample) -> int:
        return 3 * sample.height * sample.width or 12_000_000

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        yield from _ahead(samples, lambda s: pool.submit(load, s), cost, at_most=2 * threads)


def _ahead(
    samples: Iterable[Sample],
    submit: Callable[[Sample], Future[NDArray[np.uint8] | ImageError | None]],
    cost: Callable[[Sample], int],
    *,
    at_most: int,
) -> Iterator[tuple[Sample, NDArray[np.uint8] | ImageError | None]]:
    waiting: deque[tuple[Sample, Future[NDArray[np.uint8] | ImageError | None]]] = deque()
    held = 0
    try:
        for sample in samples:
            while waiting and (len(waiting) >= at_most or held + cost(sample) > AHEAD_BYTES):
                first, future = waiting.popleft()
                held -= cost(first)
                yield first, future.result()
            waiting.append((sample, submit(sample)))
            held += cost(sample)
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        top = float(values.max(initial=0))
        if not np.isfinite(values).all() or values.min(initial=0) < 0 or top > 65535:
            raise ImageError(f"has samples of mode {image.mode} that are no 8-bit or 16-bit intensities")
        grey = (values / 257.0 if top > 255 else values).astype(np.uint8)
    else:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")))
    return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))


def _short(why: Exception) -> str:
    """The decoder's words without the machine's paths, which do not belong into a shard."""
    text = str(why).splitlines()[0] if str(why) else "no reason given"
    return "not an image file" if "cannot identify image file" in text else text[:120]
