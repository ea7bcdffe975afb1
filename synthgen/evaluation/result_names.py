"""The names of the files that a run writes for each image: label maps and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePosixPath

#: Longest part of a path, in bytes of UTF-8, as file systems allow it.
_MAX_PART_BYTES = 255

#: Images with longer paths lie in no folder: the path of the results in front of theirs could become too long.
_MAX_PATH_BYTES = 2_000


class ResultNames:
    """Gives each image the name of its file. It follows that of the image; no two files have the same, in any case.

    Names that a file system would refuse are changed: a part that is too long is cut and ends with a digest, and a
    folder with the name of a file gets a number.

    Memory: the names.

    Args:
        folder: where the files will lie; it is created.
        suffix: of the names, such as ".png".
        drop_suffix: whether the suffix of the image is left out. Where two names would be equal, one keeps it.
        reserved: names of other files in the folder.
    """

    def __init__(self, folder: Path, suffix: str, *, drop_suffix: bool, reserved: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._suffix, self._drop_suffix = suffix, drop_suffix
        # Names in lower case, as some file systems take no notice of it.
        self._files, self._folders = {name.casefold() for name in reserved}, set[str]()
        folder.mkdir()

    def choose(self, file_name: str) -> str:
        """A path below the folder, with forward slashes; its own folder is created.

        Args:
            file_name: path of an image, with forward slashes, in UTF-8.
        """
        *parents, name = PurePosixPath(file_name).parts
        if len(file_name.encode()) > _MAX_PATH_BYTES:
            parents, name = [], file_name.replace("/", "_")
        place = ""
        for part in parents:
            options = (f"{place}{_fit(part if number == 1 else f'{part}_{number}', '')}" for number in count(1))
            own = next(path for path in options if path.casefold() not in self._files)
            self._folders.add(own.casefold())
            place = f"{own}/"
        options = (f"{place}{_fit(stem, self._suffix)}" for stem in self._stems(name))
        chosen = next(path for path in options if not self._is_taken(path))
        self._files.add(chosen.casefold())
        (self.folder / chosen).parent.mkdir(parents=True, exist_ok=True)
        return chosen

    def _is_taken(self, path: str) -> bool:
        return path.casefold() in self._files or path.casefold() in self._folders

    def _stems(self, name: str) -> Iterator[str]:
        if self._drop_suffix:
            yield PurePosixPath(name).stem
        yield name
        yield from (f"{name}_{number}" for number in count(2))


def _fit(stem: str, suffix: str) -> str:
    """The stem with its suffix, in `_MAX_PART_BYTES`."""
    data = stem.encode()
    if len(data) + len(suffix) <= _MAX_PART_BYTES:
        return stem + suffix
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    room = _MAX_PART_BYTES - len(suffix) - len(digest) - 1
    return f"{data[:room].decode(errors='ignore')}_{digest}{suffix}"
