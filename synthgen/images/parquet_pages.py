"""Images in a column of a Parquet file: one row is read by its page, not by its row group.

A page has some megabytes, a row group of a dataset of images often some hundred. The
pages are parsed here, so that every size is checked before memory is taken. The format:
https://github.com/apache/parquet-format (README, Encodings, and `parquet.thrift` for the headers of pages).
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthgen.images.image_error import ImageError, utf8_safe
from synthgen.images.parquet_encodings import decode_levels, split_plain
from synthgen.images.parquet_footer import BYTE_ARRAY, UNCOMPRESSED, ColumnChunk, ParquetFooter, read_footer
from synthgen.images.stat_cache import FileState, StatCache, file_state
from synthgen.images.thrift_compact import parse_struct

#: Maximum bytes of one page that is decoded, and of a column's pages in one row group.
MAX_PAGE_BYTES = 2**30
MAX_COLUMN_BYTES = 2**34

_MAX_PAGE_HEADER_BYTES = 2**20
_MAX_PAGES = 1_000_000
_MAX_PAGE_VALUES = 4_000_000
_CACHE_BYTES = 2**27
_MAX_CACHED_FILES = 512

_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_HEADER_FIELD = {_DATA_PAGE: 5, _DICTIONARY_PAGE: 7, _DATA_PAGE_V2: 8}  # the part of a page's header for its kind
_PLAIN, _PLAIN_DICTIONARY, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 0, 2, 7, 8
_DAMAGED = "is in a Parquet file whose pages are damaged"

_PAGE_ERRORS = (struct.error, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column of images, or of one part of a struct.

    Attributes:
        num_rows: of the file; chunks: by row group.
        max_definition: the definition level of a value that is there.
    """

    num_rows: int
    chunks: tuple[ColumnChunk, ...]
    max_definition: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a chunk: where its data lie, their bytes, its values, and its header as `parquet.thrift` has it."""

    kind: int
    start: int
    size: int
    decoded_size: int
    first_value: int
    num_values: int
    header: dict[int, Any]


_columns: StatCache[ImageColumn] = StatCache(_MAX_CACHED_FILES * 100, lambda column: 1 + len(column.chunks))
_directories: StatCache[list[Page]] = StatCache(200_000, lambda pages: 1 + len(pages))
_extents: StatCache[list[tuple[int, int] | None]] = StatCache(1_000_000, lambda extents: 1 + len(extents))
_values: StatCache[list[memoryview | None]] = StatCache(
    _CACHE_BYTES, lambda values: sum(64 + len(value or b"") for value in values)
)


def open_column(path: Path, column: str) -> ImageColumn:
    """The column `column` of a file, or its part "bytes"; remembered while the file does not change.

    Args:
        path: a Parquet file; untrusted.
        column: name of a column of byte strings, or of structs with the field "bytes".

    Raises:
        ImageError: it is no Parquet file, or has no such column of bytes.
        OSError: the file cannot be read.
    """
    return _columns.get((file_state(path), column), lambda: _find_column(path, column))


def read_value(path: Path, column: str, row: int) -> bytes:
    """The bytes of the image in one row.

    Args:
        path: a Parquet file; untrusted.
        column: see `open_column`.
        row: in the whole file, from 0.

    Raises:
        ImageError: the row is empty, or its page is damaged or too large.
        OSError: the file cannot be read.
    """
    state, found = file_state(path), open_column(path, column)
    if not 0 <= row < found.num_rows:
        raise ImageError(f"no row {row:,} in its Parquet file of {found.num_rows:,} rows")
    place = bisect_right(found.chunks, row, key=lambda chunk: chunk.first_row) - 1
    chunk = found.chunks[place]
    row -= chunk.first_row
    with path.open("rb", buffering=0) as file:
        reader = _ChunkReader(file.fileno(), chunk, found.max_definition, (state, column, place))
        try:
            value = reader.read(row)
        except _PAGE_ERRORS as why:
            raise ImageError(f"is in a damaged page of its Parquet file ({type(why).__name__})") from None
    if value is None:
        raise ImageError("its row has no image")
    return value


def check_sizes(path: Path, footer: ParquetFooter, row_group: int, columns: set[int], limit: int) -> None:
    """Refuse columns of a row group that decode to more than `limit` bytes. Only headers and dictionaries are read.

    The footer may lie about sizes. A column of a dictionary may repeat one long value without end.

    Args:
        path: a Parquet file; untrusted.
        footer: of this file.
        row_group: number of the row group, from 0.
        columns: numbers of leaf columns, from 0, as in `footer.leaves`.
        limit: bytes that all these columns may decode to, together.

    Raises:
        ImageError: they are larger, or damaged.
        OSError: the file cannot be read.
    """
    total = 0
    with path.open("rb", buffering=0) as file:
        for number in sorted(columns):
            chunk, leaf = footer.groups[row_group][number], footer.leaves[number]
            key = (file_state(path), number, row_group)
            try:
                total += _ChunkReader(file.fileno(), chunk, leaf.max_definition, key).decoded_bytes(
                    is_text=leaf.physical_type == BYTE_ARRAY
                )
            except _PAGE_ERRORS:
                raise ImageError("has damaged pages") from None
            if total > limit:
                raise ImageError(f"decodes to more than {limit // 2**20:,} MiB")


def _find_column(path: Path, column: str) -> ImageColumn:
    footer = read_footer(path)
    places = {leaf.path: i for i, leaf in enumerate(footer.leaves)}
    number = places.get(f"{column}.bytes", places.get(column))
    if number is None:
        raise ImageError(f"no column {utf8_safe(column)} of images in its Parquet file")
    leaf = footer.leaves[number]
    if leaf.physical_type != BYTE_ARRAY or leaf.max_repetition or leaf.is_text:
        raise ImageError(f"the column {utf8_safe(column)} of its Parquet file does not hold one image a row")
    return ImageColumn(footer.num_rows, tuple(group[number] for group in footer.groups), leaf.max_definition)


class _ChunkReader:
    """Reads the values of one column chunk."""

    def __init__(self, fd: int, chunk: ColumnChunk, max_definition: int, key: tuple[FileState, object, int]) -> None:
        self._fd, self._chunk, self._max_definition, self._key = fd, chunk, max_definition, key

    def read(self, row: int) -> bytes | None:
        """The value of a row of this chunk; None = it is empty."""
        for page in self.pages():
            if page.kind != _DICTIONARY_PAGE and page.first_value <= row < page.first_value + page.num_values:
                key, place = (*self._key, page.start), row - page.first_value
                is_plain = page.kind == _DATA_PAGE and page.header[5].get(2) == _PLAIN
                if self._chunk.codec == UNCOMPRESSED and is_plain:
                    extent = _extents.get(key, lambda: self._find_values(page))[place]  # noqa: B023 - used here
                    return None if extent is None else os.pread(self._fd, extent[1], extent[0])
                value = _values.get(key, lambda: self._decode(page))[place]  # noqa: B023
                return None if value is None else bytes(value)
        raise ImageError("is in a Parquet file with fewer values than rows")

    def pages(self) -> list[Page]:
        """All pages of the chunk, from their headers."""
        return _directories.get(self._key, self._scan_pages)

    def decoded_bytes(self, *, is_text: bool) -> int:
        """The most that Arrow makes of the chunk."""
        total, longest = 0, 0
        for page in self.pages():
            encoding = page.header[5].get(2) if page.kind == _DATA_PAGE else page.header.get(8, {}).get(4)
            total += page.decoded_size
            if page.kind == _DICTIONARY_PAGE:
                longest = max(map(len, self._decode_dictionary(page)), default=0) if is_text else 0
            elif is_text and encoding == _DELTA_BYTE_ARRAY:  # values that share their starts
                total += page.num_values * (16 + page.decoded_size)
            else:
                total += page.num_values * (16 + longest)
        return total

    def _scan_pages(self) -> list[Page]:
        found: list[Page] = []
        at, end, first, total = self._chunk.start, self._chunk.start + self._chunk.size, 0, 0
        while at < end and len(found) < _MAX_PAGES:
            length = 512
            while True:
                data = os.pread(self._fd, min(length, end - at), at)
                try:
                    header, used = parse_struct(data)
                    break
                except IndexError:  # it is longer
                    if len(data) < length or length >= _MAX_PAGE_HEADER_BYTES:
                        raise ImageError(_DAMAGED) from None
                    length *= 16
            kind, decoded_size, size = (_whole(header.get(field)) for field in (1, 2, 3))
            start = at + used
            total += decoded_size
            if min(decoded_size, size) < 0 or start + size > end or total > MAX_COLUMN_BYTES:
                raise ImageError(_DAMAGED)
            if kind in _HEADER_FIELD:
                counts = header.get(_HEADER_FIELD[kind])
                num_values = _whole(counts.get(1)) if isinstance(counts, dict) else -1
                if not 0 <= num_values < 2**40 or first > 2**40:
                    raise ImageError(_DAMAGED)
                is_data = kind != _DICTIONARY_PAGE
                found.append(Page(kind, start, size, decoded_size, first if is_data else 0, num_values, header))
                first += num_values if is_data else 0
            at = start + size
        return found

    def _decode(self, page: Page) -> list[memoryview | None]:
        """The values of a page: None for an empty one."""
        data = self._read_page(page)
        if page.kind == _DATA_PAGE_V2:
            counts = page.header[8]
            levels_size = _whole(counts.get(5))
            if _whole(counts.get(6)) != 0 or not 0 <= levels_size <= min(len(data), page.decoded_size):
                raise ImageError(_DAMAGED)
            levels, encoding = data[:levels_size], counts.get(4)
            body = data[levels_size:]
            if counts.get(7, True) is True:
                body = self._decompress(body, page.decoded_size - levels_size)
        else:
            encoding, body, levels = page.header[5].get(2), self._decompress(data, page.decoded_size), memoryview(b"")
            if self._max_definition:
                (length,) = struct.unpack_from("<I", body)
                levels, body = body[4 : 4 + length], body[4 + length :]
        defined = self._is_defined(levels, page.num_values)
        count = sum(defined)
        if encoding == _PLAIN:
            values = split_plain(body, count)
        elif encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
            dictionary = self._dictionary()
            values = [dictionary[i] for i in decode_levels(body[1:], body[0], count).tolist()] if count else []
        else:
            raise ImageError("is in a Parquet file with a rare encoding; write it again with the encoding PLAIN")
        each = iter(values)
        return [next(each) if there else None for there in defined]

    def _find_values(self, page: Page) -> list[tuple[int, int] | None]:
        """(start, size) in the file of the values of a page that is stored as it is; None for an empty one."""
        at, end, levels = page.start, page.start + page.size, b""
        if self._max_definition:
            (length,) = struct.unpack("<I", os.pread(self._fd, 4, at))
            levels = os.pread(self._fd, min(length, page.size), at + 4)
            at += 4 + length
        found: list[tuple[int, int] | None] = []
        for there in self._is_defined(levels, page.num_values):
            if not there:
                found.append(None)
                continue
            (length,) = struct.unpack("<I", os.pread(self._fd, 4, at))
            if at + 4 + length > end:
                raise ImageError(_DAMAGED)
            found.append((at + 4, length))
            at += 4 + length
        return found

    def _is_defined(self, levels: bytes | memoryview, count: int) -> list[bool]:
        """Whether each of `count` values is there."""
        if count > min(self._chunk.num_rows, _MAX_PAGE_VALUES):
            raise ImageError(_DAMAGED)
        if not self._max_definition:
            return [True] * count
        there = decode_levels(levels, self._max_definition.bit_length(), count) == self._max_definition
        return [bool(one) for one in there.tolist()]

    def _dictionary(self) -> list[memoryview]:
        for page in self.pages():
            if page.kind == _DICTIONARY_PAGE:
                found = _values.get((*self._key, page.start), lambda: list(self._decode_dictionary(page)))  # noqa: B023
                return [value for value in found if value is not None]
        raise ImageError(_DAMAGED)

    def _decode_dictionary(self, page: Page) -> list[memoryview]:
        return split_plain(self._decompress(self._read_page(page), page.decoded_size), page.num_values)

    def _read_page(self, page: Page) -> memoryview:
        """The stored bytes of a page that is small enough to be decoded."""
        if (size := max(page.size, page.decoded_size)) > MAX_PAGE_BYTES:
            raise ImageError(f"is in a page of {size // 2**20:,} MiB; write the file with smaller pages")
        return memoryview(os.pread(self._fd, page.size, page.start))

    def _decompress(self, data: memoryview, size: int) -> memoryview:
        if self._chunk.codec == UNCOMPRESSED:
            return data
        if self._chunk.codec == "unknown":
            raise ImageError("is in a Parquet file with a rare compression; write it again with ZSTD")
        if not size:
            return memoryview(b"")
        try:
            found = pa.Codec(self._chunk.codec).decompress(data, decompressed_size=size)
            return memoryview(found).cast("B")  # Arrow's bytes are signed
        except OSError:  # Arrow's error for damaged data
            raise ImageError(_DAMAGED) from None


def _whole(value: object) -> int:
    """A number of a header; -1 if it is missing."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
