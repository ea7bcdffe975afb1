"""MATLAB files of level 5, byte by byte; scipy writes the time into its own."""

from __future__ import annotations

import struct
import zlib


def matrix(
    name: bytes,
    shape: tuple[int, ...],
    numbers: bytes,
    kind: int = 4,
    array_class: int = 11,
    flags: int = 0,
    order: str = "<",
) -> bytes:
    """A matrix element as MATLAB writes it."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)

    inner = element(6, struct.pack(f"{order}II", flags << 8 | array_class, 0))
    inner += element(5, struct.pack(f"{order}{len(shape)}i", *shape)) + element(1, name) + element(kind, numbers)
    return element(14, inner)


def mat_file(*elements: bytes, version: int = 0x0100, order: str = "<") -> bytes:
    """A file of these elements."""
    mark = {"<": b"IM", ">": b"MI"}[order]
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", version) + mark + b"".join(elements)


def packed(element: bytes) -> bytes:
    """The element in a compressed one."""
    content = zlib.compress(element)
    return struct.pack("<II", 15, len(content)) + content
