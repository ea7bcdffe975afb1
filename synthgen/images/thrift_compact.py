"""Parses a struct in Thrift's compact protocol, which Parquet uses for the headers of its pages.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import struct
from typing import Any

_MAX_DEPTH = 16


def parse_struct(data: bytes, *, max_fields: int = 1_000) -> tuple[dict[int, Any], int]:
    """(the fields of the struct at the start of `data` by their number, the bytes that it takes).

    Numbers, bools, bytes, and structs as dictionaries; lists as lists.

    Args:
        data: untrusted bytes; they may go on after the struct.
        max_fields: of the struct and all structs and lists in it together.

    Raises:
        IndexError: it goes on after the end of `data`.
        ValueError: it is not valid.
    """
    reader = _Reader(data, max_fields)
    return reader.read_struct(0), reader.at


class _Reader:
    def __init__(self, data: bytes, max_fields: int) -> None:
        self._data, self.at, self._left = data, 0, max_fields

    def read_struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 15, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise ValueError("a struct is nested too deeply, or has too many fields")
        if kind in (1, 2):  # the kind is the value
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            # In a list, a bool has a byte of its own.
            return [self._value(3 if head & 15 in (1, 2) else head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.read_struct(depth)
        raise ValueError(f"a field has the unknown type {kind}")

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _bytes(self, count: int) -> bytes:
        if self.at + count > len(self._data):
            raise IndexError("the struct is longer")
        self.at += count
        return self._data[self.at - count : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number has more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
