"""A window on a huge JSON text: steps over keys, brackets and values of any size, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from synthgen.errors import SynthgenError

#: Maximum size of a record, key or whitespace: some 1,000 times the largest of the known releases. Skipped values may
#: be of any size.
MAX_RECORD = 32 * 2**20

_MAX_DEPTH = 10_000
_QUOTE = ord('"')
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}

# All quantifiers are possessive: no backtracking, so no text is slow or needs a stack. The atomic group is for Python
# before 3.11.5, whose possessive repeats end in the middle of a part that does not match.
_WHITESPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STRING_BODY = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_UNTIL_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|(?>"(?:[^"\\]++|\\.)*+"))*+', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\n\r,:"\[\]{}]*+')


class JsonWindow:
    """A part of the file in memory, and a cursor in it. `read_more` drops `data[:at]`, which has been read."""

    def __init__(self, file: BinaryIO, path: Path, on_bytes: Callable[[int], None] | None, chunk_bytes: int) -> None:
        self.file, self.path, self.on_bytes, self.chunk_bytes = file, path, on_bytes, chunk_bytes
        self.data, self.position = b"", 0
        self.base_offset = 0  # offset of `data` in the file
        while len(self.data) < len(codecs.BOM_UTF8) and self.read_more():
            pass
        if self.data.startswith(codecs.BOM_UTF8):
            self.position = len(codecs.BOM_UTF8)

    def read_more(self) -> bool:
        """Read at least as many bytes as are unread, so that a long record is not scanned too often."""
        unread = len(self.data) - self.position
        if unread > MAX_RECORD:
            raise self.make_error(f"a value of more than {MAX_RECORD >> 20} MiB")
        fresh = self.file.read(max(self.chunk_bytes, unread))
        if not fresh:
            return False
        self.data = self.data[self.position :] + fresh
        self.base_offset += self.position
        self.position = 0
        if self.on_bytes:
            self.on_bytes(len(fresh))
        return True

    def peek(self) -> bytes:
        """Move the cursor to the next byte that is not whitespace, and return it; b"" at the end of the file."""
        while True:
            self.position = skip_whitespace(self.data, self.position)
            if self.position < len(self.data):
                return self.data[self.position : self.position + 1]
            if not self.read_more():
                return b""

    def expect(self, allowed: bytes) -> bytes:
        """Step over the next byte that is not whitespace; it must be one of `allowed`."""
        byte = self.peek()
        if not byte or byte not in allowed:
            raise self.make_error(f"{describe_byte(byte)} where {' or '.join(chr(b) for b in allowed)} should stand")
        self.position += 1
        return byte

    def read_string(self) -> str:
        """The string at the cursor."""
        if self.peek() != b'"':
            raise self.make_error(f"{describe_byte(self.peek())} where a key in quotes should stand")
        while (match := _STRING.match(self.data, self.position)) is None:
            if not self.read_more():
                raise self.make_error("an unfinished string")
        try:
            text: str = json.loads(match.group().decode())
        except ValueError:
            raise self.make_error("a key that is no JSON string in UTF-8") from None
        self.position = match.end()
        return text

    def skip_value(self) -> None:
        """Step over the value at the cursor, of any size."""
        closing = bytearray()
        while True:
            byte = self.peek()
            if byte == b'"':
                self._skip_string()
            elif byte and byte in b"[]{}":
                self.position = self.skip_brackets(self.position, closing)
            elif closing and byte:
                self.position = _match_end(_UNTIL_BRACKET, self.data, self.position)
            else:
                self._skip_scalar()
            if not closing:
                return

    def read_small_value(self, max_bytes: int) -> bytes | None:
        """Step over the value at the cursor. Returns its text if it is an array or object of up to `max_bytes`."""
        byte = self.peek()
        while byte and byte in b"[{" and len(self.data) - self.position <= max(max_bytes, self.chunk_bytes):
            closing = bytearray()
            end = self.skip_brackets(self.position, closing)
            if not closing:
                text = self.data[self.position : end]
                self.position = end
                return text if len(text) <= max_bytes else None
            if not self.read_more():
                break
        self.skip_value()
        return None

    def skip_brackets(self, position: int, closing: bytearray) -> int:
        """Continue from the bracket at `position` until all are closed, or to where the window cuts off.

        Args:
            position: index in `data`.
            closing: the closing brackets of all open ones, the innermost last; updated in place.

        Raises:
            SynthgenError: a bracket closes nothing, or too many are open.
        """
        data = self.data
        while position < len(data) and data[position] != _QUOTE:
            if data[position] in _CLOSING:
                closing.append(_CLOSING[data[position]])
                if len(closing) > _MAX_DEPTH:
                    raise self.make_error(f"more than {_MAX_DEPTH} nested brackets", position)
            elif not closing or closing.pop() != data[position]:
                raise self.make_error(f"{describe_byte(data[position : position + 1])} that closes nothing", position)
            position += 1
            if not closing:
                break
            position = _match_end(_UNTIL_BRACKET, data, position)
        return position

    def _skip_string(self) -> None:
        self.position += 1
        while True:
            self.position = _match_end(_STRING_BODY, self.data, self.position)
            if self.data[self.position : self.position + 1] == b'"':
                self.position += 1
                return
            if not self.read_more():  # the end of the window, or a backslash there without its character
                raise self.make_error("an unfinished string")

    def _skip_scalar(self) -> None:
        empty = True
        while True:
            end = _match_end(_SCALAR, self.data, self.position)
            empty = empty and end == self.position
            self.position = end
            if end < len(self.data) or not self.read_more():
                break
        if empty:
            raise self.make_error(f"{describe_byte(self.peek())} where a value should stand")

    def make_error(
        self, what: str, position: int | None = None, remedy: str = "is it whole, and JSON in UTF-8?"
    ) -> SynthgenError:
        """The error for invalid JSON; `position` is an index in `data`, by default the cursor."""
        byte = self.base_offset + (self.position if position is None else position)
        return SynthgenError(f"{self.path}: {what}, at byte {byte:,}; {remedy}")


def skip_whitespace(data: bytes, position: int) -> int:
    """The end of the whitespace at `position`."""
    return _match_end(_WHITESPACE, data, position)


def describe_byte(byte: bytes) -> str:
    """A byte for a message."""
    return ascii(byte.decode("latin-1")) if byte else "the end of the file"


def _match_end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    return match.end() if match else at  # the patterns always match, possibly nothing
