"""The content digest of a shard: SHA-256 of its rows, whatever the encoding, row groups or version of the file.

Two shards have the same digest exactly if their samples are equal. Each column is digested alone, and one that holds
nothing is left out: so a nullable column that is added later does not change the digest of older rows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Columns of lists in which null says something else than an empty list. In all others the two are the same.
NULL_IS_NOT_EMPTY = frozenset({("neg_categories",)})

#: Names of a column, from the outermost to the innermost.
_Path = tuple[str, ...]


@dataclass(slots=True, eq=False)
class _ColumnDigest:
    """The digest of one column so far.

    Attributes:
        count: its values, nulls included.
        is_filled: whether any of them holds something.
        ends_valid: whether the last of them is not null.
        nulls: digest of the places at which values turn from valid to null or back.
        lengths, content: digests of the lengths and of the bytes of the valid values.
    """

    count: int = 0
    is_filled: bool = False
    ends_valid: bool = True
    nulls: Any = field(default_factory=hashlib.sha256)
    lengths: Any = field(default_factory=hashlib.sha256)
    content: Any = field(default_factory=hashlib.sha256)

    def add_validity(self, array: pa.Array) -> None:
        """Digest which values are null."""
        valid = np.ones(len(array) + 1, np.bool_)
        valid[0] = self.ends_valid
        if array.null_count:
            valid[1:] = _unpack_bits(array.buffers()[0], array.offset, len(array))
        turns = np.flatnonzero(valid[1:] != valid[:-1]) + self.count
        self.nulls.update(turns.astype("<i8"))
        self.ends_valid = bool(valid[-1])
        self.is_filled |= array.null_count < len(array)


class ContentDigest:
    """Digests rows batch by batch; how they are cut into batches makes no difference."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._columns: dict[tuple[_Path, str], _ColumnDigest] = {}

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch.

        Args:
            batch: the next rows of the shard, all columns, in the order of the file.

        Raises:
            ArrowInvalid: a column has a type without a digest.
        """
        self.num_rows += batch.num_rows
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            self._add((name,), array)

    def hexdigest(self) -> str:
        """The digest of all rows so far: 64 hexadecimal digits."""
        whole = hashlib.sha256(f"synthgen rows 1: {self.num_rows}\n".encode())
        for (path, kind), column in sorted(self._columns.items(), key=lambda item: item[0]):
            if column.is_filled:
                whole.update(json.dumps([*path, kind, column.count]).encode())
                for part in (column.nulls, column.lengths, column.content):
                    whole.update(part.digest())
        return whole.hexdigest()

    def _add(self, path: _Path, array: pa.Array) -> None:
        kind, types = array.type, pa.types
        if types.is_list(kind) or types.is_large_list(kind):
            self._add_lists(path, array)
        elif types.is_fixed_size_list(kind):
            self._start(path, "fixed-size list", array)
            self._add((*path, "element"), array.flatten())
        elif types.is_struct(kind):
            self._start(path, "struct", array)
            for part, child in zip(kind, array.flatten(), strict=True):  # a child is null wherever its struct is
                self._add((*path, part.name), child)
        elif (
            types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
        ):
            column = self._start(path, "bytes", array)
            valid = array.drop_null()
            ends = _offsets(valid)
            column.lengths.update(np.diff(ends).astype("<i8"))
            if ends[-1] > ends[0]:
                column.content.update(memoryview(valid.buffers()[2])[int(ends[0]) : int(ends[-1])])
        elif types.is_boolean(kind):
            column, valid = self._start(path, "bool", array), array.drop_null()
            column.content.update(_unpack_bits(valid.buffers()[1], valid.offset, len(valid)))
        elif types.is_primitive(kind):
            width = kind.bit_width // 8
            column, valid = self._start(path, f"{width} bytes", array), array.drop_null()
            if len(valid):
                first = valid.offset * width
                column.content.update(memoryview(valid.buffers()[1])[first : first + len(valid) * width])
        else:
            raise pa.ArrowInvalid(f"its column '{'.'.join(path)}' is of the unknown type {kind}")

    def _start(self, path: _Path, kind: str, array: pa.Array) -> _ColumnDigest:
        column = self._columns.setdefault((path, kind), _ColumnDigest())
        column.add_validity(array)
        column.count += len(array)
        return column

    def _add_lists(self, path: _Path, array: pa.Array) -> None:
        lengths = np.diff(_offsets(array)).astype("<i8")
        if array.null_count:
            lengths *= _unpack_bits(array.buffers()[0], array.offset, len(array))
        if path in NULL_IS_NOT_EMPTY:
            column = self._start(path, "list", array)
        else:
            column = self._columns.setdefault((path, "list"), _ColumnDigest())
            column.count += len(array)
            column.is_filled |= bool(lengths.any())
        column.lengths.update(lengths)
        self._add((*path, "element"), array.flatten())


def content_digest(table: pa.Table) -> str:
    """The content digest of a table: 64 hexadecimal digits."""
    digest = ContentDigest()
    for batch in table.to_batches():
        digest.update(batch)
    return digest.hexdigest()


def _offsets(array: pa.Array) -> NDArray[Any]:
    """The offsets of a list or text column: int32 or int64 [N + 1]."""
    kind = array.type
    is_large = pa.types.is_large_list(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    buffer = array.buffers()[1]
    if buffer is None or buffer.size == 0:  # an empty column may have none
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int64 if is_large else np.int32)[array.offset : array.offset + len(array) + 1]


def _unpack_bits(buffer: pa.Buffer | None, offset: int, length: int) -> NDArray[np.uint8]:
    """Bits of a buffer as 0 and 1. pyarrow's own conversion would import pandas."""
    if buffer is None or length == 0:
        return np.zeros(0, np.uint8)
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=offset + length, bitorder="little")[offset:]
