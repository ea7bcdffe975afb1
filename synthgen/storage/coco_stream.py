"""Streams COCO files: annotations and images are written as they come, in the memory of a buffer.

Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO


class JsonListWriter:
    """Writes the elements of a JSON list, each call on a new line. The caller writes the brackets.

    Args:
        file: open for writing, at the place after the opening bracket.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._is_first = file, True

    def add(self, elements: bytes) -> None:
        """Write one element, or several with commas between them.

        Args:
            elements: JSON in UTF-8.
        """
        self._file.write((b"\n" if self._is_first else b",\n") + elements)
        self._is_first = False


class CocoStream:
    """A COCO file that is written record by record.

    The images go to a second file first, as the annotations are the larger part.

    Args:
        path: the JSON file, new; its folder must exist.

    Attributes:
        annotations: writes the list `annotations`.
        images: writes the list `images`.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=2**20)
        self._image_file = tempfile.TemporaryFile("w+b", buffering=2**18, dir=path.parent)  # noqa: SIM115 - see `close`
        self._file.write(b'{"annotations": [')
        self.annotations, self.images = JsonListWriter(self._file), JsonListWriter(self._image_file)

    def finish(self, members: Mapping[str, bytes]) -> None:
        """Write the images and further members, and close the file.

        Args:
            members: by name, the value as JSON in UTF-8, in the order of the file.
        """
        self._file.write(b'],\n"images": [')
        self._image_file.seek(0)
        shutil.copyfileobj(self._image_file, self._file, 2**16)
        self._file.write(b"]")
        for name, value in members.items():
            self._file.write(b',\n"%s": %s' % (name.encode(), value))
        self._file.write(b"}\n")
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._image_file.close()
