"""Streams the members of a large JSON object, or the elements of an array, such as one value an image.

Memory is that of the largest of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from synthgen.errors import SynthgenError
from synthgen.formats.readers._json_window import JsonWindow

_CHUNK_BYTES = 2**19


def stream_members(
    path: Path, inner: str, on_bytes: Callable[[int], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, value) of the members that are objects, of the object at the top of a file.

    Of a member with the key `inner`, its own members come instead. Members of other types are skipped. Memory is that
    of the largest member.

    Args:
        path: JSON file; untrusted.
        inner: key of a member whose own members are given instead.
        on_bytes: called with the number of further bytes read, for progress; None = not called.

    Raises:
        SynthgenError: the file cannot be read, or is not such JSON (with the byte position).
    """
    try:
        with path.open("rb") as file:
            window = JsonWindow(file, path, on_bytes, _CHUNK_BYTES)
            yield from _read_members(window, inner)
            if window.peek():
                raise window.make_error("more text after the end of its JSON")
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def stream_items(path: Path, on_bytes: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
    """The elements of the array at the top of a file; {} for one that is not an object.

    Args:
        path: JSON file; untrusted.
        on_bytes: called with the number of further bytes read, for progress; None = not called.

    Raises:
        SynthgenError: as `stream_members`.
    """
    try:
        with path.open("rb") as file:
            window = JsonWindow(file, path, on_bytes, _CHUNK_BYTES)
            window.expect(b"[")
            closed = window.peek() == b"]" and bool(window.expect(b"]"))
            while not closed:
                if window.peek() == b"{":
                    yield _read_object(window)
                else:
                    window.skip_value()
                    yield {}
                closed = window.expect(b",]") == b"]"
            if window.peek():
                raise window.make_error("more text after the end of its JSON")
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def _read_members(window: JsonWindow, inner: str) -> Iterator[tuple[str, dict[str, Any]]]:
    window.expect(b"{")
    if window.peek() == b"}":
        window.expect(b"}")
        return
    while True:
        key = window.read_string()
        window.expect(b":")
        if window.peek() != b"{":
            window.skip_value()
        elif key == inner:
            yield from _read_members(window, "")
        else:
            yield key, _read_object(window)
        if window.expect(b",}") == b"}":
            return


def _read_object(window: JsonWindow) -> dict[str, Any]:
    """The object at the cursor."""
    while True:
        closing = bytearray()
        end = window.skip_brackets(window.position, closing)
        if not closing:
            break
        if not window.read_more():
            raise window.make_error("the file ends inside an object")
    text = window.data[window.position : end]
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = _decode_leniently(window, text)
    window.position = end
    return value if isinstance(value, dict) else {}


def _decode_leniently(window: JsonWindow, text: bytes) -> Any:
    """JSON as Python writes it, with NaN and single halves of surrogate pairs."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise window.make_error("an object that is not valid JSON in UTF-8") from None
