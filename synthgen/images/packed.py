"""Images inside archives: members of tar files, rows of Parquet and Arrow files. Nothing is unpacked to disk.

`Sample.file_name` names such an image as a path below the archive:

    shards/train-000.tar/000123.jpg                      a member of a tar file
    data/train-00000-of-00002.parquet/image/17           column "image", row 17 (from 0) of a Parquet file
    train/data-00000-of-00001.arrow/image/17             the same of an Arrow file

A folder that is named like an archive is a folder. `images.decode.find_image` finds images of all kinds, and the
functions of `images.decode` read them through `open_image`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from synthgen.errors import describe_exhaustion
from synthgen.images.image_error import ImageError, utf8_safe
from synthgen.images.tar_archive import open_index, open_member

#: Ends of the names of archives.
ARCHIVE_SUFFIXES = (".tar", ".parquet", ".arrow")

#: "image/17"; one row has one spelling, so that its name is a key.
_ROW = re.compile(r"([^/]{1,200})/(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image in an archive.

    Attributes:
        archive: the archive's file.
        member: the path in it: a tar member's name, or COLUMN/ROW.
        extent: (start, size) of a tar member's bytes in the archive; None for a row.
    """

    archive: Path
    member: str
    extent: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """The path of the image as if the archive were a folder."""
        return self.archive / self.member


#: A file, or an image in an archive.
ImageSource: TypeAlias = Path | PackedImage


def row_name(column: str, row: int) -> str:
    """The member that names the row `row` of a Parquet or Arrow file, which has its image in `column`."""
    return f"{column}/{row}"


def find_packed_image(root: Path, parts: tuple[str, ...]) -> PackedImage | None:
    """The image with these parts of a name below `root`, if one of them is an archive; None = none is.

    Args:
        root: image folder of the dataset.
        parts: folders, file name of the archive, then the name of the image in it.

    Raises:
        ImageError: the archive has no such image, or cannot be read.
        OSError: the machine lacks memory or open files.
    """
    for depth in range(1, len(parts)):
        if parts[depth - 1].lower().endswith(ARCHIVE_SUFFIXES):
            archive, member = root.joinpath(*parts[:depth]), "/".join(parts[depth:])
            try:
                if archive.is_file():
                    return _locate(archive, member)
            except OSError as why:
                if describe_exhaustion(why):
                    raise  # it says nothing about the image
                raise ImageError(f"its archive cannot be read ({why.strerror or type(why).__name__})") from None
    return None


def is_packed_name(parts: tuple[str, ...]) -> bool:
    """Whether a name, given as the `parts` of a path, may lie in an archive."""
    return any(part.lower().endswith(ARCHIVE_SUFFIXES) for part in parts[:-1])


@contextmanager
def open_image(source: ImageSource) -> Iterator[BinaryIO]:
    """The bytes of an image as a file.

    Args:
        source: a file, or an image in an archive.

    Raises:
        ImageError: the archive cannot be read, or its row has no image.
        OSError: the file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    elif source.extent is not None:
        with open_member(source.archive, *source.extent) as file:
            yield file
    else:
        yield io.BytesIO(_read_row(source))


def _locate(archive: Path, member: str) -> PackedImage:
    if archive.name.lower().endswith(".tar"):
        return PackedImage(archive, member, open_index(archive).locate(member))
    column, row = _parse_row(member)
    if archive.name.lower().endswith(".parquet"):
        from synthgen.images import parquet_pages  # most datasets need no Arrow

        num_rows = parquet_pages.open_column(archive, column).num_rows
    else:
        from synthgen.images import arrow_stream

        num_rows = arrow_stream.open_stream(archive).num_rows
    if row >= num_rows:
        raise ImageError(f"no row {row:,} in its file of {num_rows:,} rows")
    return PackedImage(archive, member)


def _read_row(source: PackedImage) -> bytes:
    column, row = _parse_row(source.member)
    if source.archive.name.lower().endswith(".parquet"):
        from synthgen.images import parquet_pages

        return parquet_pages.read_value(source.archive, column, row)
    from synthgen.images import arrow_stream

    return arrow_stream.read_value(source.archive, column, row)


def _parse_row(member: str) -> tuple[str, int]:
    match = _ROW.fullmatch(member)
    if match is None:
        raise ImageError(f"{utf8_safe(member)} is not COLUMN/ROW, which names an image of a Parquet or Arrow file")
    return match[1], int(match[2])
