"""Reads an array of integers from a MATLAB file of level 5, which MATLAB writes with -v6 and -v7.

The format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf, "Level 5 MAT-File Format". Only arrays of
numbers are understood. Cells, structures, objects, functions and sparse arrays are skipped or refused, so nothing of a
file is executed. The sizes that a file states are checked before memory is taken for them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.formats.readers._label_files import LabelFileError, read_label_file
from synthgen.images.decode import MAX_IMAGE_PIXELS, ImageError

_MAX_FILE_BYTES = 2**26
_MAX_UNPACKED_BYTES = 2**27  # of a file; a label map of VOC has half a million
_MAX_ELEMENTS = 1_000  # of a file
_HEADER_BYTES = 128
_VERSION_AT = 124  # two bytes of the version, then "MI" or "IM"

#: Types of data elements, and the numpy types of those that hold integers.
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15
_INTEGERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", _INT32: "i4", _UINT32: "u4", 12: "i8", 13: "u8"}

_NUMERIC_CLASSES = range(6, 16)  # double, single, and integers of 8 to 64 bits
_IS_COMPLEX = 0x08  # of the flags of an array


class _Element(NamedTuple):
    """A data element: its type, its bytes, and where the next one starts."""

    type: int
    content: memoryview
    next_at: int


def read_mat_array(path: Path, name: str) -> NDArray[np.integer[Any]]:
    """The first two-dimensional array of integers of this name in a file: [H, W], in the file's integer type.

    Args:
        path: untrusted file.
        name: of the variable, such as "LabelMap".

    Raises:
        ImageError: the file is none of level 5, is damaged or too large, or has no such array; the text continues a
            sentence such as "its label map ...".
        OSError: the machine lacks memory or open files.
    """
    try:
        content = memoryview(read_label_file(path, _MAX_FILE_BYTES))
        order = _byte_order(content)
        for element in _iter_elements(content, order):
            array = _parse_array(element.content, order, name) if element.type == _MATRIX else None
            if array is not None:
                return array
    except LabelFileError as why:
        raise ImageError(str(why)) from None
    except (zlib.error, struct.error, ValueError) as why:
        raise ImageError(f"is no usable MATLAB file ({str(why)[:200]})") from None
    raise ImageError(f"is a MATLAB file without a variable {name}")


def _byte_order(content: memoryview) -> str:
    """The byte order of a file, "<" or ">"."""
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[_VERSION_AT + 2 : _HEADER_BYTES]))
    if order is None:
        raise LabelFileError("is no MATLAB file of level 5")
    (version,) = struct.unpack_from(f"{order}H", content, _VERSION_AT)
    if version == 0x0200:
        raise LabelFileError("is a MATLAB file of version 7.3; save it with -v7 in MATLAB")
    if version != 0x0100:
        raise LabelFileError("is no MATLAB file of level 5")
    return order


def _iter_elements(content: memoryview, order: str) -> Iterator[_Element]:
    """The elements of a file, unpacked. A compressed element is not padded to eight bytes, the others are."""
    at, room = _HEADER_BYTES, _MAX_UNPACKED_BYTES
    for _ in range(_MAX_ELEMENTS):
        if at >= len(content):
            return
        element = _read_element(content, at, order)
        if element.type == _COMPRESSED:
            inner = _unpack(element.content, order, room)
            room -= len(inner)
            yield _read_element(memoryview(inner), 0, order)
            at += 8 + len(element.content)
        else:
            yield element
            at = element.next_at
    raise ValueError(f"it has more than {_MAX_ELEMENTS:,} elements")


def _unpack(packed: memoryview, order: str, room: int) -> bytes:
    """The element in a compressed one; its tag says how many bytes it has, at most `room`, and no more are unpacked."""
    unpacker = zlib.decompressobj()
    tag = unpacker.decompress(packed, 8)
    if len(tag) < 8:
        raise ValueError("a compressed element is cut off")
    (size,) = struct.unpack_from(f"{order}I", tag, 4)
    if size > room:
        raise ValueError(f"it unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB")
    return tag + unpacker.decompress(unpacker.unconsumed_tail, size) if size else tag


def _read_element(content: memoryview, at: int, order: str) -> _Element:
    """The element that starts at a position. A small one has its bytes inside its tag of eight bytes."""
    (kind,) = struct.unpack_from(f"{order}I", content, at)
    size, kind = kind >> 16, kind & 0xFFFF
    if size:
        if size > 4 or at + 8 > len(content):
            raise ValueError("a small element is larger than its place")
        return _Element(kind, content[at + 4 : at + 4 + size], at + 8)
    (size,) = struct.unpack_from(f"{order}I", content, at + 4)
    if size > len(content) - at - 8:
        raise ValueError("an element is cut off")
    return _Element(kind, content[at + 8 : at + 8 + size], at + 8 + -(-size // 8) * 8)


def _parse_array(content: memoryview, order: str, name: str) -> NDArray[np.integer[Any]] | None:
    """The array of a matrix element; None if it has another name."""
    flags = _read_element(content, 0, order)
    if flags.type != _UINT32 or len(flags.content) != 8:
        raise ValueError("a variable has no flags")
    (word,) = struct.unpack_from(f"{order}I", flags.content)
    kind, bits = word & 0xFF, word >> 8 & 0xFF
    shape = _read_element(content, flags.next_at, order)
    title = _read_element(content, shape.next_at, order)
    if bytes(title.content) != name.encode():
        return None
    if kind not in _NUMERIC_CLASSES or bits & _IS_COMPLEX:
        raise ValueError(f"{name} is no array of numbers")
    size = struct.unpack(f"{order}{len(shape.content) // 4}i", shape.content) if shape.type == _INT32 else ()
    if len(size) != 2 or min(size) < 1 or size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise ValueError(f"{name} has no size of an image")
    numbers = _read_element(content, title.next_at, order)
    if numbers.type not in _INTEGERS:
        raise ValueError(f"the numbers of {name} are no integers")
    values = np.frombuffer(numbers.content, f"{order}{_INTEGERS[numbers.type]}")
    if len(values) != size[0] * size[1]:
        raise ValueError(f"{name} has {len(values):,} numbers, and its size is {size[0]} x {size[1]}")
    return values.reshape(size, order="F").astype(values.dtype.newbyteorder("="))
