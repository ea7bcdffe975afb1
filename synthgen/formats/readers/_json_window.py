"""A window on the text of a giant JSON file: steps over keys, brackets and values of any size, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from synthgen.errors import SynthgenError

#: One record, key or blank space may be this large: some 1,000 times the largest of the known releases. What is
#: skipped may be of any size.
MAX_RECORD = 32 * 2**20

_MAX_DEPTH = 10_000
_QUOTE = ord('"')
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}

# Possessive throughout: nothing is tried twice, so no text is slow, and none needs a stack. The atomic group is for
# Python before 3.11.5, whose possessive repeats end in the middle of a part that does not fit.
_BLANK = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_LETTERS = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_UNTIL_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|(?>"(?:[^"\\]++|\\.)*+"))*+', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\n\r,:"\[\]{}]*+')


class Window:
    """A stretch of the file in memory, and a cursor in it. `data[:at]` has been read and is forgotten by `more`."""

    def __init__(self, file: BinaryIO, path: Path, on_bytes: Callable[[int], None] | None, chunk: int) -> None:
        self.file, self.path, self.on_bytes, self.chunk = file, path, on_bytes, chunk
        self.data, self.at = b"", 0
        self.before = 0  # bytes of the file before `data`
        while len(self.data) < len(codecs.BOM_UTF8) and self.more():
            pass
        if self.data.startswith(codecs.BOM_UTF8):
            self.at = len(codecs.BOM_UTF8)

    def more(self) -> bool:
        """Read on, at least as much again as is still unread, so that a long record is not looked at too often."""
        unread = len(self.data) - self.at
        if unread > MAX_RECORD:
            raise self.error(f"a value of more than {MAX_RECORD >> 20} MiB")
        fresh = self.file.read(max(self.chunk, unread))
        if not fresh:
            return False
        self.data = self.data[self.at :] + fresh
        self.before += self.at
        self.at = 0
        if self.on_bytes:
            self.on_bytes(len(fresh))
        return True

    def peek(self) -> bytes:
        """The next byte that is not blank, with the cursor on it; b"" at the end of the file."""
        while True:
            self.at = end_of_blank(self.data, self.at)
            if self.at < len(self.data):
                return self.data[self.at : self.at + 1]
            if not self.more():
                return b""

    def take(self, allowed: bytes) -> bytes:
        """Step over the next byte that is not blank; it has to be one of `allowed`."""
        byte = self.peek()
        if not byte or byte not in allowed:
            raise self.error(f"{shown(byte)} where {' or '.join(chr(b) for b in allowed)} should stand")
        self.at += 1
        return byte

    def string(self) -> str:
        """The string at the cursor."""
        if self.peek() != b'"':
            raise self.error(f"{shown(self.peek())} where a key in quotes should stand")
        while (match := _STRING.match(self.data, self.at)) is None:
            if not self.more():
                raise self.error("an unfinished string")
        try:
            text: str = json.loads(match.group().decode())
        except ValueError:
            raise self.error("a key that is no JSON string in UTF-8") from None
        self.at = match.end()
        return text

    def skip(self) -> None:
        """Step over the value at the cursor, of whatever size."""
        closing = bytearray()
        while True:
            byte = self.peek()
            if byte == b'"':
                self._skip_string()
            elif byte and byte in b"[]{}":
                self.at = self.pass_brackets(self.at, closing)
            elif closing and byte:
                self.at = _end(_UNTIL_BRACKET, self.data, self.at)
            else:
                self._skip_scalar()
            if not closing:
                return

    def pass_brackets(self, at: int, closing: bytearray) -> int:
        """Go on from the bracket at `at` until none is open, or to the string or the end that the window cuts off.

        Args:
            closing: what closes the open brackets, the innermost last; it is kept up to date.
        """
        data = self.data
        while at < len(data) and data[at] != _QUOTE:
            if data[at] in _CLOSING:
                closing.append(_CLOSING[data[at]])
                if len(closing) > _MAX_DEPTH:
                    raise self.error(f"more than {_MAX_DEPTH} nested brackets", at)
            elif not closing or closing.pop() != data[at]:
                raise self.error(f"{shown(data[at : at + 1])} that closes nothing", at)
            at += 1
            if not closing:
                break
            at = _end(_UNTIL_BRACKET, data, at)
        return at

    def _skip_string(self) -> None:
        self.at += 1
        while True:
            self.at = _end(_LETTERS, self.data, self.at)
            if self.data[self.at : self.at + 1] == b'"':
                self.at += 1
                return
            if not self.more():  # the end of the window, or a backslash there whose letter is yet to come
                raise self.error("an unfinished string")

    def _skip_scalar(self) -> None:
        empty = True
        while True:
            end = _end(_SCALAR, self.data, self.at)
            empty = empty and end == self.at
            self.at = end
            if end < len(self.data) or not self.more():
                break
        if empty:
            raise self.error(f"{shown(self.peek())} where a value should stand")

    def error(self, what: str, at: int | None = None, remedy: str = "is it whole, and JSON in UTF-8?") -> SynthgenError:
        """The sentence for a file that is no good JSON; `at` is a place in `data`, by default the cursor."""
        byte = self.before + (self.at if at is None else at)
        return SynthgenError(f"{self.path}: {what}, at byte {byte:,}; {remedy}")


def end_of_blank(data: bytes, at: int) -> int:
    """Where the blank space at `at` ends."""
    return _end(_BLANK, data, at)


def shown(byte: bytes) -> str:
    """A byte as a sentence names it."""
    return ascii(byte.decode("latin-1")) if byte else "the end of the file"


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    return match.end() if match else at  # the patterns match everywhere, if with nothing
