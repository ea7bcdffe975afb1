"""A safe pickle reader for untrusted files: it supports only the opcodes of lists, dicts, strings and numbers.

It imports and calls nothing. Memory is bounded by the size of the file and the number of its opcodes, each of which
makes at most one small object; lengths in the file are not trusted. A small file may still contain its own parts many
times, or itself, so code that walks the result must count.
"""

from __future__ import annotations

import codecs
import pickletools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any

from synthgen.errors import SynthgenError

#: Maximum bytes; the refs of RefCOCOg, the largest, have some 40 MB.
MAX_BYTES = 2**27

#: Maximum number of opcodes; RefCOCOg has some 6 million.
MAX_OPCODES = 2**24

_MAX_PROTOCOL = 5
_MAX_NUMBER_BYTES = 40  # in bytes
_OPCODE_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def load_plain_pickle(path: Path) -> Any:
    """The content of a pickle of protocol 0 to 5: nested lists, tuples, dicts, str, int, float, bool and None.

    Byte strings of Python 2 are decoded as UTF-8, else as Latin-1.

    Raises:
        SynthgenError: it cannot be read, is damaged or truncated or larger than the limits, or builds anything else.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise SynthgenError(
                f"{path} has {size / 1e6:,.0f} MB, more than the limit of {MAX_BYTES / 1e6:,.0f} MB for refs; "
                "is it the right file?"
            )
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    machine = _PickleReader(data)
    try:
        return machine.run()
    except _UnsafePickleError as why:
        what = str(why)
    except (IndexError, StructError):
        what = "it ends too early or takes what is not there"
    except (KeyError, ValueError, TypeError, OverflowError):
        what = "it is damaged, or no pickle"
    raise SynthgenError(
        f"{path}: {what}, at byte {machine.opcode_position:,}; take the file from the dataset's release"
    )


class _UnsafePickleError(Exception):
    """The pickle contains something else than plain data."""


class _PickleReader:
    """The stack machine of `pickletools`, restricted to plain data.

    Attributes:
        position: the next byte; opcode_position: the start of the current opcode.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.position, self.opcode_position = data, 0, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Execute the opcodes, and return the top of the stack."""
        data, table = self.data, self._opcode_table()
        for _ in range(MAX_OPCODES):
            self.opcode_position = self.position
            opcode = data[self.position]
            self.position += 1
            if opcode in table:
                table[opcode]()
            elif opcode == ord("."):
                return self.stack[-1]
            else:
                raise _UnsafePickleError(self._unsupported_opcode(opcode))
        raise _UnsafePickleError(
            f"it has more than {MAX_OPCODES:,} opcodes, several times as many as the largest release"
        )

    def _opcode_table(self) -> dict[int, Callable[[], object]]:
        """The method of each opcode; `sized` are those with a length before the data."""
        push, since_mark, line = self._push, self._pop_to_mark, self._read_line
        table: dict[str, Callable[[], object]] = {
            "\x80": self._check_protocol,
            "(": lambda: self.marks.append(len(self.stack)),
            "0": self._pop,
            "1": since_mark,
            "2": lambda: push(self.stack[-1]),
            "N": lambda: push(None),
            "\x88": lambda: push(True),
            "\x89": lambda: push(False),
            "]": lambda: push([]),
            "}": lambda: push({}),
            ")": lambda: push(()),
            "l": lambda: push(since_mark()),
            "t": lambda: push(tuple(since_mark())),
            "d": lambda: push(_update_dict({}, since_mark())),
            "\x85": lambda: push(tuple(self._pop_last(1))),
            "\x86": lambda: push(tuple(self._pop_last(2))),
            "\x87": lambda: push(tuple(self._pop_last(3))),
            "a": lambda: self._extend(self._pop_last(1)),
            "e": lambda: self._extend(since_mark()),
            "s": lambda: self._set_items(self._pop_last(2)),
            "u": lambda: self._set_items(since_mark()),
            "I": lambda: push(_parse_int_line(line(_MAX_NUMBER_BYTES))),
            "L": lambda: push(int(line(_MAX_NUMBER_BYTES).rstrip(b"L"))),
            "F": lambda: push(float(line(_MAX_NUMBER_BYTES))),
            "S": lambda: push(_decode_py2_string(_unquote(line()))),
            "V": lambda: push(codecs.raw_unicode_escape_decode(line())[0]),
            "p": lambda: self._memoize(int(line(_MAX_NUMBER_BYTES))),
            "g": lambda: push(self.memo[int(line(_MAX_NUMBER_BYTES))]),
            "\x94": lambda: self._memoize(len(self.memo)),
        }
        sized: dict[str, tuple[Callable[[Struct], object], str]] = {
            "\x95": (self._read_number, "<Q"),  # a frame: its length
            "J": (self._push_number, "<i"),
            "K": (self._push_number, "<B"),
            "M": (self._push_number, "<H"),
            "G": (self._push_number, ">d"),
            "\x8a": (self._push_long, "<B"),
            "\x8b": (self._push_long, "<I"),
            "X": (self._push_text, "<I"),
            "\x8c": (self._push_text, "<B"),
            "\x8d": (self._push_text, "<Q"),
            "T": (self._push_py2_string, "<I"),
            "U": (self._push_py2_string, "<B"),
            "q": (lambda size: self._memoize(self._read_number(size)), "<B"),
            "r": (lambda size: self._memoize(self._read_number(size)), "<I"),
            "h": (lambda size: push(self.memo[self._read_number(size)]), "<B"),
            "j": (lambda size: push(self.memo[self._read_number(size)]), "<I"),
        }
        table |= {opcode: partial(do, Struct(size)) for opcode, (do, size) in sized.items()}
        return {ord(opcode): do for opcode, do in table.items()}

    def _push(self, value: object) -> None:
        self.stack.append(value)

    def _read_number(self, size: Struct) -> Any:
        (value,) = size.unpack_from(self.data, self.position)
        self.position += size.size
        return value

    def _push_number(self, size: Struct) -> None:
        self.stack.append(self._read_number(size))

    def _push_text(self, size: Struct) -> None:
        self.stack.append(str(self._read_bytes(self._read_number(size)), "utf-8", "surrogatepass"))

    def _push_py2_string(self, size: Struct) -> None:
        self.stack.append(_decode_py2_string(self._read_bytes(self._read_number(size))))

    def _push_long(self, size: Struct) -> None:
        if (count := self._read_number(size)) > _MAX_NUMBER_BYTES:
            raise _UnsafePickleError(f"it holds a number of {count:,} bytes")
        self.stack.append(int.from_bytes(self._read_bytes(count), "little", signed=True))

    def _read_bytes(self, count: int) -> bytes:
        found = self.data[self.position : self.position + count]
        if len(found) < count:
            raise IndexError
        self.position += count
        return found

    def _read_line(self, longest: int = MAX_BYTES) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise IndexError
        found = self._read_bytes(end - self.position)
        self.position += 1
        if len(found) > longest:
            raise _UnsafePickleError(f"it holds a number of {len(found):,} digits")
        return found

    def _pop_last(self, count: int) -> list[Any]:
        """Pop that many items."""
        if len(self.stack) < count:
            raise IndexError
        found = self.stack[-count:]
        del self.stack[-count:]
        return found

    def _pop_to_mark(self) -> list[Any]:
        """Pop all items above the last mark."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def _pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _memoize(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(values)

    def _set_items(self, values: list[Any]) -> None:
        _update_dict(self.stack[-1], values)

    def _check_protocol(self) -> None:
        if (version := self._read_number(Struct("<B"))) > _MAX_PROTOCOL:
            raise _UnsafePickleError(
                f"it is a pickle of protocol {version}, and the latest that is known is {_MAX_PROTOCOL}"
            )

    def _unsupported_opcode(self, opcode: int) -> str:
        """What an unsupported opcode would build."""
        name = _OPCODE_NAMES.get(opcode)
        if name is None:
            return "it is damaged, or no pickle"
        names: list[object] = []
        if name in ("GLOBAL", "INST"):
            names = [str(self._read_line(), "utf-8", "replace") for _ in range(2)]
        elif name == "STACK_GLOBAL":
            names = self._pop_last(2)
        what = ascii(".".join(one for one in names if isinstance(one, str))[:80])[1:-1] if names else f"a {name}"
        return f"it holds {what}, and only lists, dicts, texts and numbers are read here: nothing was executed"


def _update_dict(target: object, values: list[Any]) -> dict[Any, Any]:
    """Update a dict from alternating keys and values: str or numbers, as hashing deep tuples overflows the stack."""
    if type(target) is not dict or len(values) % 2:
        raise TypeError
    if not {type(key) for key in values[::2]} <= {str, int, float, bool, type(None)}:
        raise _UnsafePickleError("it holds a dict with keys that are neither texts nor numbers")
    target.update(zip(values[::2], values[1::2], strict=True))
    return target


def _parse_int_line(line: bytes) -> int:
    """An integer or, with a leading zero, protocol 0's True and False."""
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _unquote(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError
    return bytes(codecs.escape_decode(line[1:-1])[0])


def _decode_py2_string(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
