"""Reads pickles of plain data from untrusted files: lists, dicts, texts and numbers. Nothing is imported or called.

Python's `pickle.Unpickler` builds the data, with a `find_class` that refuses every name. A scan of the opcodes comes
first, for what `find_class` does not see: calls, extension codes, persistent ids, and small files that take much memory
or time. Tuples are refused too: to hash a nested tuple, as the key of a dict, can take forever or overflow the stack.

A small file may still contain its own parts many times, or itself, so code that walks the result must count.
"""

from __future__ import annotations

import codecs
import pickle
import pickletools
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NoReturn

from synthgen.errors import SynthgenError, escape_control_chars

#: Maximum bytes; the refs of RefCOCOg, the largest, have some 40 MB.
MAX_BYTES = 2**27

#: Maximum number of opcodes, each of which makes at most one small object; RefCOCOg has some 6 million.
MAX_OPCODES = 2**24

#: Maximum bytes of a binary integer, and characters of a number in text. Python's hashes of longer integers can be
#: made equal, and a dict of such keys takes quadratic time.
_MAX_LONG_BYTES, _MAX_NUMBER_CHARS = 8, 25
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_PLAIN = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET NONE NEWTRUE "
    "NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS".split()
)
#: Number of bytes of each plain opcode's argument, or why it varies: a negative constant of `pickletools`.
_ARGUMENT_SIZES = {
    ord(opcode.code): opcode.arg.n if opcode.arg else 0 for opcode in pickletools.opcodes if opcode.name in _PLAIN
}
#: Number of bytes of the length before an argument.
_LENGTH_SIZES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_STOP, _PUT, _LONG_BINPUT, _FRAME = b".pr\x95"
_TEXT_LINES, _LONGS, _FIND_CLASS = frozenset(b"SV"), frozenset(b"\x8a\x8b"), frozenset(b"ci\x93")


def load_plain_pickle(path: Path) -> Any:
    """The content of a pickle of protocol 0 to 5: nested lists, dicts, str, int, float, bool and None.

    Byte strings of Python 2 are decoded as UTF-8, from the first byte that is not UTF-8 on as Latin-1.

    Args:
        path: untrusted file.

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
    try:
        _check_opcodes(data)
        # A BufferedReader is faster than the BytesIO alone: the unpickler can read ahead.
        return _PlainUnpickler(BufferedReader(BytesIO(data)), encoding="utf-8", errors=_LATIN_1).load()
    except _NotPlainError as why:
        problem = str(why)
    except (pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError):
        problem = "it is damaged, truncated, or not a pickle"
    raise SynthgenError(f"{path}: {problem}; take the file from the dataset's release")


class _NotPlainError(Exception):
    """The pickle contains something else than plain data, or more than the limits."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise _NotPlainError(_refusal(f"{module}.{name}"))


def _check_opcodes(data: bytes) -> None:
    """Refuse opcodes that are not plain, and arguments that ask for more memory than the file has bytes.

    Args:
        data: the whole pickle.

    Raises:
        _NotPlainError, IndexError, ValueError: it is no such pickle, or truncated.
    """
    position = frame_end = 0
    for count in range(MAX_OPCODES):
        opcode = data[position]
        start = position
        position += 1
        size = _ARGUMENT_SIZES.get(opcode)
        if size == 0:
            if opcode == _STOP:
                return
        elif size is None:
            if opcode in _FIND_CLASS:  # the unpickler stops there, and knows the name
                _check_frame(start, position, frame_end)
                return
            raise _NotPlainError(
                _refusal(f"the opcode {_NAMES[opcode]}") if opcode in _NAMES else "it is damaged, or not a pickle"
            )
        elif size == pickletools.UP_TO_NEWLINE:
            end = data.index(b"\n", position)
            if opcode not in _TEXT_LINES and end - position > _MAX_NUMBER_CHARS:
                raise _NotPlainError(f"it holds a number of {end - position:,} digits")
            if opcode == _PUT:
                _check_memo_index(int(data[position:end]), count)
            position = end + 1
        elif size > 0:
            value = int.from_bytes(data[position : position + size], "little")
            position += size
            if opcode == _LONG_BINPUT:
                _check_memo_index(value, count)
            elif opcode == _FRAME:
                if value > len(data) - position or start < frame_end:
                    raise IndexError
                frame_end = position + value
                continue
        else:
            length_size = _LENGTH_SIZES[size]
            length = int.from_bytes(data[position : position + length_size], "little")
            if opcode in _LONGS and length > _MAX_LONG_BYTES:
                raise _NotPlainError(f"it holds a number of {length:,} bytes")
            position += length_size + length
        _check_frame(start, position, frame_end)
    raise _NotPlainError(f"it has more than {MAX_OPCODES:,} opcodes, several times as many as the largest release")


def _check_frame(start: int, end: int, frame_end: int) -> None:
    """Refuse an opcode that crosses the end of its frame: there, the unpickler reads on at another byte than the scan.

    Args:
        start: position of the opcode.
        end: position after the opcode and its argument.
        frame_end: position after the frame; 0 = there is no frame.

    Raises:
        IndexError: it does.
    """
    if start < frame_end < end:
        raise IndexError


def _check_memo_index(index: int, count: int) -> None:
    """The unpickler's memo is an array up to the highest index, and picklers number its places one after the other."""
    if index > count:
        raise _NotPlainError(f"it uses place {index:,} of the memo after {count:,} opcodes")


def _refusal(what: str) -> str:
    return (
        f"it holds {escape_control_chars(what)[:80]}, and only lists, dicts, texts and numbers are read here: "
        "nothing was executed"
    )


def _decode_latin_1(error: UnicodeError) -> tuple[str, int]:
    """Error handler of codecs: the rest of a text as Latin-1. One call for each bad byte would be slow."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start :].decode("latin-1"), len(error.object)


codecs.register_error(_LATIN_1 := "synthgen.latin-1", _decode_latin_1)
