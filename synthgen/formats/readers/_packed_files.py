"""Files of datasets in archives: which there are, their splits, and the sources of an ingest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles
from synthgen.images.decode import ImageError, find_image, read_image_header
from synthgen.images.image_error import utf8_safe

#: Maximum entries of a folder; a folder with more is refused.
MAX_ENTRIES = 1_000_000

#: Entries of a folder, and its subfolders, that are looked at to recognise a format.
_GLANCED_ENTRIES = 2_000
_GLANCED_FOLDERS = 50

_MAX_FOLDERS = 10_000

#: With more files, the folder is the source: the digests of all sources are in the footer of each shard.
_MAX_SOURCES = 100

_SPLIT_WORD = re.compile(
    r"(?<![a-z])(training|train|validation|valid|val|dev|testing|test)(?![a-z])", re.IGNORECASE | re.ASCII
)


def find_archives(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files with one of these endings in a folder and its direct subfolders, sorted; or the file itself.

    Args:
        path: a folder, or one file.
        suffixes: endings of file names, in lower case; any case fits.

    Raises:
        SynthgenError: there are too many files or folders.
    """
    if path.is_file():
        return [path] if path.name.lower().endswith(tuple(suffixes)) else []
    found, folders = list_folder(path)
    if len(folders) > _MAX_FOLDERS:
        raise SynthgenError(f"{path} has more than {_MAX_FOLDERS:,} subfolders; is it the right folder?")
    for folder in folders:
        found = found + list_folder(folder)[0]
    return sorted(one for one in found if one.name.lower().endswith(tuple(suffixes)))


def glance_at_names(path: Path) -> Iterator[str]:
    """The first names of a folder and of its direct subfolders; or the file's name. It takes some milliseconds."""
    if path.is_file():
        yield path.name
        return
    folders: list[str] = []
    yield from _glance(os.fspath(path), folders)
    for folder in folders[:_GLANCED_FOLDERS]:
        yield from _glance(folder, [])


def _glance(path: str, folders: list[str]) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            for entry in islice(entries, _GLANCED_ENTRIES):
                yield entry.name
                if entry.is_dir():
                    folders.append(entry.path)
    except (OSError, ValueError):
        return


def list_folder(path: Path) -> tuple[list[Path], list[Path]]:
    """(files, folders) of a folder without hidden ones, sorted; none if it cannot be read.

    Args:
        path: any path; it need not exist.

    Raises:
        SynthgenError: it has more than `MAX_ENTRIES`.
    """
    files, folders = [], []
    try:
        with os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if number == MAX_ENTRIES:
                    raise SynthgenError(f"{path} has more than {MAX_ENTRIES:,} files; is it the right folder?")
                if entry.name.startswith(".") or not _is_unicode(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    files.append(Path(entry.path))
    except (OSError, ValueError):
        return [], []
    return sorted(files), sorted(folders)


def split_word(name: str) -> str:
    """The word of a split in a name, in lower case; "" if there is none."""
    match = _SPLIT_WORD.search(name)
    return match[0].lower() if match else ""


def split_of_path(path: Path, root: Path) -> str:
    """The split of an archive: a word in its name, else in that of its folder below `root`, else "train"."""
    folder = path.parent.name if root not in (path, path.parent) else ""
    return split_word(path.name) or split_word(folder) or "train"


def pick_split(found: dict[str, list[Path]], split: str, root: Path) -> list[Path]:
    """The files of a split.

    Args:
        found: the files by split.
        split: the one to read.
        root: the dataset's folder, for the message.

    Raises:
        SynthgenError: there are none; with the splits that there are.
    """
    if split not in found:
        raise SynthgenError(f"no split '{split}' in {root} (have: {', '.join(sorted(found))}); name one with --split")
    return found[split]


def make_sources(paths: Sequence[Path], root: Path, split: str) -> DatasetFiles:
    """Each file as a source, or the folder if they are many; their digests cover the content."""
    if len(paths) > _MAX_SOURCES:
        return DatasetFiles({"shards": root}, root, split=split, content_roles=frozenset({"shards"}))
    return DatasetFiles({path.relative_to(root).as_posix(): path for path in paths}, root, split=split)


def fill_size(folder: Path, name: str, height: int, width: int) -> tuple[int, int]:
    """The size that a mask needs, from the image's header if the files do not say it; 0 if the image cannot be read."""
    if height and width:
        return height, width
    try:
        found_height, found_width, _ = read_image_header(find_image(folder, name))
    except ImageError:
        return height, width
    return found_height, found_width


def reason_without_paths(why: Exception) -> str:
    """The first line of an error of a parser."""
    text = str(why) or type(why).__name__
    return utf8_safe(text.splitlines()[0])


def _is_unicode(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False
