"""Findings about one image file: missing, unreadable, wrong size, rotated, in another folder."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from synthgen.images.decode import ImageError, find_image, load_rgb, read_image_header

#: A job cannot use an image with one of these.
UNUSABLE_CODES = ("missing", "unreadable", "wrong_size", "exchanged_size", "size_off_by_one")

#: At most this many different factors, or sizes, of resized photographs are counted.
_MAX_FACTORS = 10_000


@dataclass(frozen=True, slots=True)
class ImageFileCheck:
    """The result of a check of one image file.

    Attributes:
        height: in pixels, in the frame of the annotations; 0 = unknown.
        width: in pixels, in the frame of the annotations; 0 = unknown.
        problems: (code of `finding_codes.FINDING_CODES`, details).
        real_size: (height, width) of a file of another size than the annotations say, else None.
    """

    height: int
    width: int
    problems: tuple[tuple[str, str], ...] = ()
    real_size: tuple[int, int] | None = None

    @property
    def is_unusable(self) -> bool:
        """Whether a job could not use the image."""
        return any(code in UNUSABLE_CODES for code, _ in self.problems)


def check_image_file(root: Path, file_name: str, height: int, width: int, *, decode: bool) -> ImageFileCheck:
    """Check one file; never raises for a bad file.

    Where the annotations have exchanged height and width, or are off by one pixel, the result has the file's size, so
    that the boxes are judged by it. A job does not guess: a photograph may have been turned, and its boxes were not.

    Args:
        root: see `images.decode.find_image`.
        file_name: see `images.decode.find_image`.
        height: what the annotations say, in pixels; 0 = they do not.
        width: what the annotations say, in pixels; 0 = they do not.
        decode: decode all pixels, as a job would; otherwise read only the header.
    """
    try:
        source = find_image(root, file_name)
    except ImageError as why:
        return ImageFileCheck(height, width, (("missing", str(why)),))
    troubles = []
    path = source if isinstance(source, Path) else source.path
    found, named = path.relative_to(root).as_posix(), PurePosixPath(file_name.replace("\\", "/")).as_posix()
    if found != named:
        same_letters = unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", named)
        what = f"found as {ascii(found) if same_letters else found}"
        troubles.append(("other_unicode_form" if same_letters else "other_path", what))
    try:
        real_height, real_width, turned = read_image_header(source)
        if turned:
            troubles.append(
                ("turned", f"is {real_width} x {real_height} as shown, {real_height} x {real_width} as stored")
            )
        known = height > 0 and width > 0
        stored_too = turned and (height, width) == (real_width, real_height)
        if known and (height, width) != (real_height, real_width) and not stored_too:
            code = _classify_size((height, width), (real_height, real_width))
            what = f"is {real_width} x {real_height} pixels, the annotations say {width} x {height}"
            frame = (height, width) if code == "wrong_size" else (real_height, real_width)
            return ImageFileCheck(*frame, (*troubles, (code, what)), (real_height, real_width))
        if decode:
            load_rgb(source, height, width)
    except ImageError as why:
        return ImageFileCheck(height, width, (*troubles, ("unreadable", str(why))))
    return ImageFileCheck(height if known else real_height, width if known else real_width, tuple(troubles))


def _classify_size(said: tuple[int, int], real: tuple[int, int]) -> str:
    """The code of a size that differs."""
    if said == real[::-1]:
        return "exchanged_size"
    return "size_off_by_one" if max(abs(a - b) for a, b in zip(said, real, strict=True)) == 1 else "wrong_size"


@dataclass
class SizeFactors:
    """How the real sizes of photographs differ from what the annotations say.

    Attributes:
        images: photographs of another size.
        factors: real size / annotated size, rounded to three digits, of those that kept their shape.
        sizes: the real (height, width).
    """

    images: int = 0
    factors: Counter[float] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, said: tuple[int, int], real: tuple[int, int]) -> None:
        """Add one photograph.

        Args:
            said: (height, width) by the annotations, in pixels.
            real: (height, width) of the file, in pixels.
        """
        self.images += 1
        factor = max(real) / max(said)
        # The sides of a resized photograph are rounded to whole pixels.
        if all(abs(a * factor - b) <= 1 for a, b in zip(said, real, strict=True)):
            rounded = round(factor, 3)
            if rounded in self.factors or len(self.factors) < _MAX_FACTORS:
                self.factors[rounded] += 1
        if real in self.sizes or len(self.sizes) < _MAX_FACTORS:
            self.sizes[real] += 1

    def describe(self) -> str | None:
        """How the photographs were resized, as a sentence; None if there is no common rule, or few photographs."""
        if self.images < 2:
            return None
        factor, _ = self.factors.most_common(1)[0] if self.factors else (0.0, 0)
        alike = sum(count for other, count in self.factors.items() if factor and abs(other / factor - 1) <= 0.01)
        if alike >= 0.9 * self.images:
            return f"the photographs are {factor:.3g} times the size that the annotations say"
        (height, width), count = self.sizes.most_common(1)[0]
        if count >= 0.9 * self.images:
            return f"the photographs are all {width} x {height} pixels, whatever the annotations say"
        if self.factors.total() >= 0.9 * self.images:
            return "the photographs have the shapes that the annotations say, and were resized by different factors"
        return None
