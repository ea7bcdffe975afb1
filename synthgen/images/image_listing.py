"""The image files among some files and folders, for commands that take photographs without annotations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from synthgen.errors import SynthgenError
from synthgen.images.paths import IMAGE_SUFFIXES

#: More images are refused; a listing takes some 100 bytes an image.
MAX_LISTED_IMAGES = 10_000_000

#: So many names of other files are kept.
MAX_EXAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class ImageListing:
    """The image files of some places.

    Attributes:
        root: the folder that holds all of them.
        file_names: their paths below `root`, with forward slashes; sorted, each once.
        num_others: the number of files without the suffix of an image, and of files and folders with a leading dot.
        others: the names of the first ones.
    """

    root: Path
    file_names: tuple[str, ...]
    num_others: int
    others: tuple[str, ...]


def list_images(places: Sequence[Path], *, excluded: Path | None = None) -> ImageListing:
    """List image files: the given ones, whatever their suffix, and those below the given folders.

    Links are followed. A folder that several links or spellings name is listed once, under the first of them.

    Args:
        places: files and folders that exist; at least one.
        excluded: a folder that is not entered, such as one for output; None = none.

    Raises:
        SynthgenError: a folder cannot be read, or there are more than `MAX_LISTED_IMAGES`.
    """
    bases = [(_absolute(place), place.is_dir()) for place in places]
    root = Path(os.path.commonpath([base if is_folder else base.parent for base, is_folder in bases]))
    avoided = None if excluded is None else excluded.resolve()
    # A named file counts whatever its suffix, also if one of the folders holds it.
    names = {base.relative_to(root).as_posix() for base, is_folder in bases if not is_folder}
    seen: set[tuple[int, int]] = set()
    others: list[str] = []
    num_others = 0
    for base in (base for base, is_folder in bases if is_folder):
        for path in _walk(base, avoided, seen):
            name = path.relative_to(root).as_posix()
            if is_image_name(path.name):
                names.add(name)
            elif name not in names:
                num_others += 1
                others += [name] if len(others) < MAX_EXAMPLES else []
        if len(names) > MAX_LISTED_IMAGES:
            raise SynthgenError(f"{base} holds more than {MAX_LISTED_IMAGES:,} images; name a smaller folder")
    return ImageListing(root, tuple(sorted(names)), num_others, tuple(others))


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image, and no dot in front."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES and not PurePath(name).name.startswith(".")


def _absolute(place: Path) -> Path:
    """The absolute path without "..". Links stay as they are written, except in front of a "..".

    Behind a link, ".." is the folder above its target.
    """
    path = place.absolute()
    if ".." not in path.parts:
        return path
    end = len(path.parts) - path.parts[::-1].index("..")
    return Path(*path.parts[:end]).resolve().joinpath(*path.parts[end:])


def _walk(folder: Path, excluded: Path | None, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The files below a folder, sorted by name in each folder; folders with a leading dot count as files.

    Folders of `seen` (device and inode) are not entered; those that are entered join it.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            place = here.stat()
            if (place.st_dev, place.st_ino) in seen or here.resolve() == excluded:
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(here) as entries:
                found = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as why:
            raise SynthgenError(f"cannot read {here} ({why.strerror}); check the path and its permissions") from None
        hidden = {name for name, _ in found if name.startswith(".")}
        waiting += [here / name for name, is_folder in reversed(found) if is_folder and name not in hidden]
        yield from (here / name for name, is_folder in found if not is_folder or name in hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder. One that nobody can tell, such as a link to itself, counts as a file."""
    try:
        return entry.is_dir()
    except OSError:
        return False
