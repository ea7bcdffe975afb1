"""Decodes two encodings of Parquet: plain byte strings, and runs of small numbers.

https://github.com/apache/parquet-format/blob/master/Encodings.md
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray


def split_plain(data: memoryview, count: int) -> list[memoryview]:
    """`count` values, each after its length in four bytes; they share the memory of `data`.

    Args:
        data: untrusted bytes; they may go on after the values.
        count: how many values to read.

    Raises:
        ValueError: there are fewer.
    """
    if count * 4 > len(data):
        raise ValueError("the values end early")
    found, at = [], 0
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            raise ValueError("the values end early")
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def decode_levels(data: bytes | memoryview, width: int, count: int) -> NDArray[np.int64]:
    """`count` numbers of `width` bits, encoded as runs and groups of eight: int64 [count].

    Args:
        data: untrusted bytes; they may go on after the numbers.
        width: bits of each number.
        count: how many numbers to read.

    Raises:
        ValueError: a run is not valid.
        IndexError: there are fewer.
    """
    if not 0 <= width <= 32:
        raise ValueError("numbers of more than 32 bits")
    found = np.empty(count, np.int64)
    at = done = 0
    while done < count:
        head = shift = 0
        while True:
            byte = data[at]  # IndexError: there are fewer
            at += 1
            head |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 35:
                raise ValueError("a run is too long")
        if not head >> 1:
            raise ValueError("a run is empty")
        if head & 1:
            num = min((head >> 1) * 8, count - done)
            size = min((head >> 1) * width, -(-num * width // 8))
            packed = np.frombuffer(data[at : at + size], np.uint8)
            if len(packed) < size:
                raise IndexError("the numbers end early")
            bits = np.unpackbits(packed, bitorder="little")[: num * width].reshape(num, width)
            found[done : done + num] = bits.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
            at += (head >> 1) * width
        else:
            num, size = min(head >> 1, count - done), -(-width // 8)
            found[done : done + num] = int.from_bytes(data[at : at + size], "little")
            at += size
        done += num
    return found
