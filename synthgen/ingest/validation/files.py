"""Findings about one image file: missing, unreadable, wrong size, rotated, in another folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from synthgen.images.decode import ImageError, find_image, load_rgb, read_image_header

#: A job cannot use an image with one of these.
UNUSABLE_CODES = ("missing", "unreadable", "wrong_size")


@dataclass(frozen=True, slots=True)
class ImageFileCheck:
    """The result of a check of one image file.

    Attributes:
        height, width: in pixels, in the frame of the annotations; 0 = unknown.
        problems: (code of `diagnosis.FINDING_CODES`, details).
    """

    height: int
    width: int
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def is_unusable(self) -> bool:
        """Whether a job could not use the image."""
        return any(code in UNUSABLE_CODES for code, _ in self.problems)


def check_image_file(root: Path, file_name: str, height: int, width: int, *, decode: bool) -> ImageFileCheck:
    """Check one file; never raises for a bad file.

    Args:
        root, file_name: as in `images.decode.find_image`.
        height, width: what the annotations say, pixels; 0 = they do not.
        decode: decode all pixels, as a job would; otherwise read only the header.
    """
    try:
        source = find_image(root, file_name)
    except ImageError as why:
        return ImageFileCheck(height, width, (("missing", str(why)),))
    troubles = []
    path = source if isinstance(source, Path) else source.path
    if path != root.joinpath(*PurePosixPath(file_name.replace("\\", "/")).parts):
        troubles.append(("other_path", f"found as {path.relative_to(root).as_posix()}"))
    try:
        real_height, real_width, turned = read_image_header(source)
        if turned:
            troubles.append(
                ("turned", f"is {real_width} x {real_height} as shown, {real_height} x {real_width} as stored")
            )
        known = height > 0 and width > 0
        stored_too = turned and (height, width) == (real_width, real_height)
        if known and (height, width) != (real_height, real_width) and not stored_too:
            what = f"is {real_width} x {real_height} pixels, the annotations say {width} x {height}"
            return ImageFileCheck(height, width, (*troubles, ("wrong_size", what)))
        if decode:
            load_rgb(source, height, width)
    except ImageError as why:
        return ImageFileCheck(height, width, (*troubles, ("unreadable", str(why))))
    return ImageFileCheck(height if known else real_height, width if known else real_width, tuple(troubles))
