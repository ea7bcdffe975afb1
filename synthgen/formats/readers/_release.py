"""Recognises the folders of published datasets by their file names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles


def splits_with_files(
    path: Path, splits: Sequence[str], files: Callable[[Path, str, Path | None], DatasetFiles]
) -> tuple[str, ...] | None:
    """The splits whose files `files` finds in a folder; None if there are none, or if the path is a file."""
    if not path.is_dir():
        return None
    found = []
    for split in splits:
        try:
            files(path, split, None)
        except SynthgenError:
            continue
        found.append(split)
    return tuple(found) or None
