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

    Links are followed, a folder in a circle of links once.

    Args:
        places: files and folders that exist; at least one.
        excluded: a folder that is not entered, such as one for output; None = none.

    Raises:
        SynthgenError: a folder cannot be read, or there are more than `MAX_LISTED_IMAGES`.
    """
    folders = [place.absolute() if place.is_dir() else place.absolute().parent for place in places]
    root = Path(os.path.commonpath(folders))
    names: set[str] = set()
    others: list[str] = []
    num_others = 0
    for place in places:
        base = place.absolute()
        if not place.is_dir():
            names.add(base.relative_to(root).as_posix())
            continue
        for path in _walk(base, None if excluded is None else excluded.resolve()):
            name = path.relative_to(root).as_posix()
            if is_image_name(path.name):
                names.add(name)
            else:
                num_others += 1
                others += [name] if len(others) < MAX_EXAMPLES else []
        if len(names) > MAX_LISTED_IMAGES:
            raise SynthgenError(f"{place} holds more than {MAX_LISTED_IMAGES:,} images; name a smaller folder")
    return ImageListing(root, tuple(sorted(names)), num_others, tuple(others))


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image, and no dot in front."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES and not PurePath(name).name.startswith(".")


def _walk(folder: Path, excluded: Path | None) -> Iterator[Path]:
    """The files below a folder, sorted by name in each folder; folders with a leading dot count as files."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            place = here.stat()
            if (place.st_dev, place.st_ino) in seen or here.resolve() == excluded:
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(here) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries)
        except OSError as why:
            raise SynthgenError(f"cannot read {here} ({why.strerror}); check the path and its permissions") from None
        hidden = {name for name, _ in found if name.startswith(".")}
        waiting += [here / name for name, is_folder in reversed(found) if is_folder and name not in hidden]
        yield from (here / name for name, is_folder in found if not is_folder or name in hidden)
