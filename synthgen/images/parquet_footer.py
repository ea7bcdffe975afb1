"""The footer of a Parquet file: its columns, its row groups, and where their pages lie.

It is parsed here because the accessors of Arrow's footer end the process for some damaged files. The structs are those
of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.images.image_error import ImageError
from synthgen.images.thrift_compact import parse_struct

#: Maximum bytes of a footer; those of real files have some megabytes.
MAX_FOOTER_BYTES = 2**25

BYTE_ARRAY = 6  # the physical type of images and texts
UNCOMPRESSED = "UNCOMPRESSED"

_MAX_FIELDS = 3_000_000
_MAX_COLUMNS = 10_000
_MAX_DEPTH = 32
_CODECS = {0: UNCOMPRESSED, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_DAMAGED = "is in a Parquet file whose footer is damaged"


@dataclass(frozen=True, slots=True)
class ParquetLeaf:
    """A column: its path with dots, its physical type, the greatest levels, whether it holds texts."""

    path: str
    physical_type: int
    max_definition: int
    max_repetition: int
    is_text: bool


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """A column in one row group.

    Attributes:
        first_row, num_rows: of the row group.
        start, size: its pages in the file.
        codec: the name of the compression in Arrow.
        num_nulls: values that are missing; 0 = unknown, or none.
    """

    first_row: int
    num_rows: int
    start: int
    size: int
    codec: str
    num_nulls: int


@dataclass(frozen=True, slots=True)
class ParquetFooter:
    """The columns of a file, and the chunks of each row group in their order."""

    num_rows: int
    leaves: tuple[ParquetLeaf, ...]
    groups: tuple[tuple[ColumnChunk, ...], ...]


def read_footer(path: Path) -> ParquetFooter:
    """The footer of a file.

    Args:
        path: a Parquet file; untrusted.

    Raises:
        ImageError: it is no Parquet file, or damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read(8)
        if size < 12 or end[4:] != b"PAR1":
            raise ImageError("is in a file that is cut off or not in Parquet's format")
        if (length := int.from_bytes(end[:4], "little")) > min(MAX_FOOTER_BYTES, size - 12):
            raise ImageError(f"is in a Parquet file whose footer has {length:,} bytes, more than it can have")
        file.seek(size - 8 - length)
        data = file.read(length)
    try:
        return _parse_footer(parse_struct(data, max_fields=_MAX_FIELDS)[0], size)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        raise ImageError(_DAMAGED) from None


def _parse_footer(fields: dict[int, Any], file_size: int) -> ParquetFooter:
    leaves = _parse_schema(fields[2])
    groups, first = [], 0
    for group in fields.get(4, []):
        num_rows = _count(group[3])
        chunks = tuple(_parse_chunk(one, first, num_rows, file_size) for one in group[1])
        if len(chunks) != len(leaves):
            raise ValueError("a row group has other columns than the file")
        groups.append(chunks)
        first += num_rows
    if sum(chunk.size for chunks in groups for chunk in chunks) > file_size:  # row groups that share their pages
        raise ImageError(_DAMAGED)
    if first > 8 * file_size:  # so that a small file cannot give rows without end
        raise ImageError(f"is in a Parquet file that lists {first:,} rows and is too small for them")
    return ParquetFooter(first, leaves, tuple(groups))


def _parse_schema(elements: list[dict[int, Any]]) -> tuple[ParquetLeaf, ...]:
    """The leaves of the tree that the file lists from the root down."""
    leaves: list[ParquetLeaf] = []
    open_nodes: list[list[Any]] = [[_count(elements[0].get(5)), "", 0, 0]]  # children left, path, levels
    for element in elements[1:]:
        while open_nodes and not open_nodes[-1][0]:
            open_nodes.pop()
        if not open_nodes or len(open_nodes) > _MAX_DEPTH or len(leaves) >= _MAX_COLUMNS:
            raise ValueError("the columns of the file form no tree")
        parent = open_nodes[-1]
        parent[0] -= 1
        repetition = element.get(3, 0)
        path = f"{parent[1]}{element[4].decode()}"
        definition, repeated = parent[2] + (repetition != 0), parent[3] + (repetition == 2)
        children = _count(element.get(5, 0))
        if children:
            open_nodes.append([children, f"{path}.", definition, repeated])
        else:
            is_text = element.get(6) == 0 or 1 in element.get(10, {})
            leaves.append(ParquetLeaf(path, int(element[1]), definition, repeated, is_text))
    return tuple(leaves)


def _parse_chunk(chunk: dict[int, Any], first_row: int, num_rows: int, file_size: int) -> ColumnChunk:
    meta = chunk[3]
    start, dictionary, size = _count(meta[9]), meta.get(11), _count(meta[7])
    if isinstance(dictionary, int) and 4 <= dictionary < start:
        start = dictionary
    if 1 in chunk or start < 4 or start + size > file_size:
        raise ImageError("is in a Parquet file that is cut off, or whose footer is damaged")
    nulls = meta.get(12, {}).get(3, 0)
    codec = _CODECS.get(meta.get(4, 0), "unknown")
    return ColumnChunk(first_row, num_rows, start, size, codec, nulls if isinstance(nulls, int) else 0)


def _count(value: Any) -> int:
    """A number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise ValueError("a number in the footer is not valid")
    return value
