"""Images in a column of an Arrow file: the stream format, as `datasets` writes it, or the file format.

The file is mapped into memory, and one value is copied. The format, with the framing of messages that is read here:
https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthgen.images.image_error import ImageError, utf8_safe
from synthgen.images.stat_cache import StatCache, file_state

#: Maximum bytes of one image.
MAX_VALUE_BYTES = 2**30

_FILE_MAGIC = b"ARROW1\0\0"
_MAX_METADATA_BYTES = 2**27
_MAX_BATCHES = 5_000_000
_SCHEMA, _DICTIONARY_BATCH, _RECORD_BATCH = 1, 2, 3
_PARSE_ERRORS = (pa.ArrowException, ValueError, LookupError, OverflowError, MemoryError, struct.error)


@dataclass(frozen=True, slots=True)
class ArrowIndex:
    """Where the record batches of a file lie.

    Attributes:
        schema: of the file.
        starts: int64 [B], byte at which the message of each batch starts.
        first_rows: int64 [B + 1], first row of each batch; ends with the number of rows.
        damage: why the file is not read to its end; "" = it is.
    """

    schema: pa.Schema
    starts: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    damage: str

    @property
    def num_rows(self) -> int:
        """Rows that can be read."""
        return int(self.first_rows[-1])


_indexes: StatCache[ArrowIndex] = StatCache(5_000_000, lambda index: 100 + len(index.starts))
_batches: StatCache[pa.RecordBatch] = StatCache(64, lambda _: 1)  # they hold no bytes, only places in the file


def open_stream(path: Path) -> ArrowIndex:
    """The index of a file; remembered while the file does not change.

    Args:
        path: an Arrow file or stream; untrusted.

    Raises:
        ImageError: it is not in Arrow's format, or is compressed.
        OSError: it cannot be read.
    """
    return _indexes.get(file_state(path), lambda: _build_index(path))


def read_value(path: Path, column: str, row: int) -> bytes:
    """The bytes of the image in one row.

    Args:
        path: an Arrow file or stream; untrusted.
        column: name of a column of byte strings, or of structs with the field "bytes".
        row: in the whole file, from 0.

    Raises:
        ImageError: the row is empty, or its batch is damaged.
        OSError: the file cannot be read.
    """
    index = open_stream(path)
    if not 0 <= row < index.num_rows:
        rest = f"; the file {index.damage}" if index.damage else ""
        raise ImageError(f"no row {row:,} in its Arrow file of {index.num_rows:,} rows{rest}")
    number = int(np.searchsorted(index.first_rows, row, side="right")) - 1
    batch = _batches.get((file_state(path), number), lambda: _read_batch(path, index, number))
    if column not in batch.schema.names:
        raise ImageError(f"no column {utf8_safe(column)} of images in its Arrow file")
    values = batch.column(column)
    if pa.types.is_struct(values.type):
        if values.type.get_field_index("bytes") < 0:
            raise ImageError(f"the column {utf8_safe(column)} of its Arrow file does not hold images")
        if not values[row - int(index.first_rows[number])].is_valid:
            raise ImageError("its row has no image")
        values = values.field("bytes")
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        raise ImageError(f"the column {utf8_safe(column)} of its Arrow file does not hold images")
    value = values[row - int(index.first_rows[number])]
    if not value.is_valid:
        raise ImageError("its row has no image")
    buffer = value.as_buffer()
    if buffer.size > MAX_VALUE_BYTES:
        raise ImageError(f"has {buffer.size:,} bytes, more than an image can have")
    found: bytes = buffer.to_pybytes()
    return found


def read_batch(path: Path, number: int) -> pa.RecordBatch:
    """One record batch of a file, checked; its bytes stay in the file.

    Args:
        path: an Arrow file or stream; untrusted.
        number: of the batch, from 0.

    Raises:
        ImageError: it is damaged.
        OSError: the file cannot be read.
    """
    return _read_batch(path, open_stream(path), number)


def check_names(schema: pa.Schema) -> None:
    """Refuse names of columns, and of parts of columns, that are not in UTF-8.

    Args:
        schema: of an untrusted file.

    Raises:
        UnicodeDecodeError: there is one.
    """
    waiting = list(schema)
    while waiting:
        column = waiting.pop()
        _ = column.name
        if pa.types.is_nested(column.type):
            waiting += [column.type.field(number) for number in range(column.type.num_fields)]


def _build_index(path: Path) -> ArrowIndex:
    with path.open("rb", buffering=0) as file:
        fd, size = file.fileno(), os.fstat(file.fileno()).st_size
        at = len(_FILE_MAGIC) if os.pread(fd, len(_FILE_MAGIC), 0) == _FILE_MAGIC else 0
        schema: pa.Schema | None = None
        starts, rows, damage = [], [0], ""
        while at < size:
            head = os.pread(fd, 8, at)
            marker, length = struct.unpack("<Ii", head) if len(head) == 8 else (0, -1)
            if marker == 0xFFFFFFFF and length == 0:
                break
            if marker != 0xFFFFFFFF or not 0 < length <= _MAX_METADATA_BYTES or at + 8 + length > size:
                damage = f"is cut off or damaged at byte {at:,}"
                break
            try:
                kind, num_rows, body, is_compressed = _describe(os.pread(fd, length, at + 8))
            except (struct.error, IndexError):
                damage = f"is cut off or damaged at byte {at:,}"
                break
            if kind == _SCHEMA and schema is None:
                schema = _read_schema(os.pread(fd, 8 + length, at))
            elif kind == _DICTIONARY_BATCH:
                raise ImageError("is in an Arrow file with dictionaries; write it with `save_to_disk` of datasets")
            elif kind == _RECORD_BATCH:
                if is_compressed:
                    raise ImageError("is in an Arrow file that is compressed; write it without compression")
                if body < 0 or at + 8 + length + body > size or not 0 <= num_rows <= size - rows[-1]:
                    damage = f"is cut off or damaged at byte {at:,}"
                    break
                starts.append(at)
                rows.append(rows[-1] + num_rows)
            at += 8 + length + max(body, 0)
            if schema is None or len(starts) > _MAX_BATCHES:
                break
    if schema is None:
        raise ImageError("is in a file that is not in Arrow's format")
    return ArrowIndex(schema, np.array(starts, np.int64), np.array(rows, np.int64), damage)


def _read_schema(message: bytes) -> pa.Schema:
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(message))
        check_names(schema)
        return schema
    except (*_PARSE_ERRORS, OSError):  # it is in memory
        raise ImageError("is in an Arrow file whose schema is damaged") from None


def _read_batch(path: Path, index: ArrowIndex, number: int) -> pa.RecordBatch:
    try:
        with pa.memory_map(str(path)) as file:
            file.seek(int(index.starts[number]))
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(file), index.schema)
            batch.validate(full=True)  # the offsets in it come from the file
    except (*_PARSE_ERRORS, OSError) as why:
        if isinstance(why, OSError) and why.errno is not None:  # of the system; Arrow's own have no number
            raise
        raise ImageError(f"is in a damaged part of its Arrow file (batch {number + 1:,})") from None
    if batch.num_rows != int(index.first_rows[number + 1] - index.first_rows[number]):
        raise ImageError(f"is in a damaged part of its Arrow file (batch {number + 1:,})")
    return batch


def _describe(metadata: bytes) -> tuple[int, int, int, bool]:
    """(kind of a message, its rows, the bytes of its body, whether they are compressed), from its flatbuffer.

    The tables `Message` and `RecordBatch` of https://github.com/apache/arrow/blob/main/format/Message.fbs.

    Args:
        metadata: flatbuffer of one message; untrusted.

    Raises:
        struct.error, IndexError: it is damaged.
    """
    message = _follow(metadata, 0)
    kind = metadata[at] if (at := _field(metadata, message, 1)) else 0
    body = struct.unpack_from("<q", metadata, at)[0] if (at := _field(metadata, message, 3)) else 0
    if kind != _RECORD_BATCH or not (at := _field(metadata, message, 2)):
        return kind, 0, body, False
    batch = _follow(metadata, at)
    rows = struct.unpack_from("<q", metadata, at)[0] if (at := _field(metadata, batch, 0)) else 0
    return kind, rows, body, _field(metadata, batch, 3) != 0


def _follow(data: bytes, at: int) -> int:
    """Where the table lies that the offset at `at` points to."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a table lies; 0 = the table has none."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0 or table < 0:
        raise IndexError("a table lies before its data")
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + int(offset) if offset else 0
