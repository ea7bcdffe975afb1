"""The images of an export: unique names that stay in the folder, links and copies."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.images.packed import ImageSource, PackedImage, open_image
from synthgen.images.paths import IMAGE_SUFFIXES

#: Characters that a file system or a tool may not allow, or give a meaning.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')

#: Longest part of a name, in bytes of UTF-8. File systems allow 255; a suffix or a number may be added.
_MAX_PART_BYTES = 200

#: Usual folders of splits and images, which are left out at the start of a name.
_OWN_FOLDERS = ("images", "train", "val", "valid", "test")

#: Suffixes of the files of an export.
_FILE_SUFFIXES = IMAGE_SUFFIXES | {".txt", ".json", ".xml"}

#: First bytes of an image -> the suffix of its format.
_SUFFIXES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"GIF8"), "gif"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), "tif"),
    (re.compile(rb"P[1-6]\s"), "ppm"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "jp2"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "avif"),
)


class ImageNames:
    """Gives each image a name. No two in a folder have the same one, also without suffix and in other case.

    Memory: 8 bytes and a set entry for each image.

    Args:
        is_flat: whether the names have no folders.
    """

    def __init__(self, *, is_flat: bool) -> None:
        self._is_flat = is_flat
        self._taken: set[int] = set()

    def choose(self, folder: str, split: str, file_name: str, image: ImageSource | None) -> str:
        """A path with forward slashes for the image of the name `file_name`.

        Args:
            folder: where it will lie; names differ within a folder.
            split: its split.
            file_name: as the annotations write it; untrusted.
            image: the file, which gives the suffix if the name has none.
        """
        parts = [safe_part(part) for part in re.split(r"[/\\]", file_name) if part not in ("", ".", "..")] or ["image"]
        *folders, name = parts[-1:] if self._is_flat else parts
        while folders and folders[0] in (*_OWN_FOLDERS, split):  # the export has such folders itself
            del folders[0]
        # Files have these suffixes. A folder "a.jpg" could not lie beside the file "a.jpg", nor "a.txt" beside its
        # labels.
        folders = [f"{part}_" if Path(part).suffix.lower() in _FILE_SUFFIXES else part for part in folders]
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix.lower() not in IMAGE_SUFFIXES:
            stem, suffix = name, _guess_suffix(image)
        unique, number = stem, 1
        while (key := _digest("/".join((folder, *folders, unique)).casefold())) in self._taken:
            number += 1
            unique = f"{stem}_{number}"
        self._taken.add(key)
        return "/".join((*folders, unique + suffix))


def safe_part(part: str) -> str:
    """One part of a path without characters that leave the folder or mean something else.

    Args:
        part: a name of a file or folder; untrusted.
    """
    clean = _UNSAFE.sub("_", part.encode("utf-8", "replace").decode()).rstrip(". ") or "_"
    if len(clean.encode()) > _MAX_PART_BYTES:
        suffix = Path(clean).suffix if len(Path(clean).suffix) <= 8 else ""
        stem = clean.removesuffix(suffix)
        room = _MAX_PART_BYTES - len(suffix.encode()) - 9
        clean = f"{stem.encode()[:room].decode(errors='ignore')}_{_digest(part):016x}"[:_MAX_PART_BYTES] + suffix
    return f"_{clean}" if clean.startswith("-") else clean


def image_suffix(data: bytes) -> str:
    """The usual suffix of an image file that starts with `data`, such as "jpg"; empty if the format is not known."""
    return next((suffix for pattern, suffix in _SUFFIXES if pattern.match(data)), "")


def place_image(image: ImageSource, final: Path, *, is_link: bool) -> None:
    """Link or copy an image. Its folder is created.

    Args:
        image: a file, or an image in an archive, which is always copied.
        final: the path of the link or copy.
        is_link: make a second name of the file; where that is not possible, a symbolic link.

    Raises:
        SynthgenError: it cannot be written, or the image cannot be read.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if is_link and not isinstance(image, PackedImage):
        _link(image, final)
    else:
        with open_image(image) as source, final.open("xb") as copy:
            shutil.copyfileobj(source, copy, 2**20)


def _link(image: Path, final: Path) -> None:
    """A hard link, as some readers refuse symbolic links that leave their folder; on another disk a symbolic one."""
    try:
        os.link(image.resolve(), final)
    except FileExistsError:
        raise
    except OSError:  # another disk, another user's file, or a file system without hard links
        try:
            final.symlink_to(image.absolute())
        except OSError:
            raise SynthgenError(f"{final.parent} cannot hold links; copy the images with --image-mode copy") from None


def join_path(*parts: str) -> str:
    """The path of `parts` with forward slashes; empty parts are left out."""
    return str(PurePosixPath(*filter(None, parts)))


def _guess_suffix(image: ImageSource | None) -> str:
    if image is None:
        return ""
    with open_image(image) as file:
        suffix = image_suffix(file.read(16))
    return f".{suffix}" if suffix else ""


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
