"""Stream the records of a giant JSON file: typed, in the order of the file, in bounded memory.

It knows JSON and nothing of datasets. The usual file goes through `msgspec`, some megabytes of an array at a time;
whatever does not fit that way (odd spacing, nested records, NaN, numbers in quotes) goes record by record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from synthgen.errors import SynthgenError
from synthgen.formats.readers._json_window import Window, end_of_blank, shown

#: Bytes read at once; records come in batches of this size. What is made of one fits a processor's cache: 4 MiB take a
#: third longer.
CHUNK = 2**19

_TRIES = 64
_BLANKS = b" \t\n\r"
_REMEDY = "mend it in the file"

# The first key of a record, with its bracket.
_OPENING = re.compile(rb'\{(?:[ \t\n\r]{0,64}+"[^"\\]{0,64}+")?')


def stream(
    path: Path,
    wanted: dict[str, type[msgspec.Struct]],
    *,
    on_bytes: Callable[[int], None] | None = None,
    chunk: int = CHUNK,
) -> Iterator[tuple[str, list[Any]]]:
    """Yield (key, records) for the arrays of objects under the `wanted` keys of a JSON file, in the order of the file.

    A key that is there yields at least one batch, if an empty one; a key that is there twice is read twice. Memory is
    a few `chunk`s, or a few times the largest single record. What is not wanted is passed over: only its brackets and
    strings are looked at.

    Where a record does not fit its type strictly, text with a number in it passes for the number. What does not fit
    then either goes to the type's own `mend(value: dict) -> Struct` where it has one; it refuses by a ValueError.

    Args:
        wanted: type of the records, by top-level key; "" stands for a file whose top level is itself an array.
        on_bytes: told how many further bytes were read, for progress.
        chunk: bytes read at once.

    Raises:
        SynthgenError: the file cannot be read, is no such JSON (with the byte where), or a record cannot be understood.
    """
    try:
        with path.open("rb") as file:
            window = Window(file, path, on_bytes, chunk)
            first = window.peek()
            if first == b"[" and "" in wanted:
                for batch in _records(window, "", wanted[""]):
                    yield "", batch
            elif first == b"{" and "" not in wanted:
                yield from _members(window, wanted)
            else:
                raise window.error(_wrong_kind(first, wanted))
            if window.peek():
                raise window.error("more text after the end of its JSON")
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def _members(window: Window, wanted: dict[str, type[msgspec.Struct]]) -> Iterator[tuple[str, list[Any]]]:
    """The wanted members of the object at the cursor."""
    window.take(b"{")
    if window.peek() == b"}":
        window.take(b"}")
        return
    while True:
        key = window.string()
        window.take(b":")
        if key not in wanted:
            window.skip()
        elif window.peek() == b"[":
            for batch in _records(window, key, wanted[key]):
                yield key, batch
        else:
            raise window.error(f"{shown(window.peek())} where the array of '{key}' should begin")
        if window.take(b",}") == b"}":
            return


def _records(window: Window, key: str, kind: type[msgspec.Struct]) -> Iterator[list[Any]]:
    """The records of the array at the cursor."""
    several = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    window.take(b"[")
    if window.peek() == b"]":
        window.take(b"]")
        yield []
        return
    count = 0
    while True:
        window.peek()
        batch = _sliced(window, several)
        closed = False
        if batch is None:
            spans, closed, after = _spans(window, f"record {count + 1:,} of {_named(key)}")
            batch = _decoded(window, key, kind, several, spans, count) if spans else []
            window.at = after
        count += len(batch)
        if batch:
            yield batch
        if closed:
            return
        if not window.more() and not batch:
            raise window.error(f"the file ends inside record {count + 1:,} of {_named(key)}")


def _sliced(window: Window, several: msgspec.json.Decoder[list[Any]]) -> list[Any] | None:
    """The usual way: all records up to the window's last `}, {`, decoded at one go; None if that does not work.

    That `}, {` may lie anywhere: within a record, in a string, behind the array. But if the text from the start of a
    record up to it, in brackets, is a JSON array, then it ends a record of ours. JSON is read from left to right: in
    the file the same text leads into the same state, and a comma in that state parts two records.
    """
    cut = _last_cut(window.data, window.at)
    if cut < 0:
        return None
    try:
        batch = several.decode(b"[" + window.data[window.at : cut] + b"]")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    window.at = cut + 1
    return batch


def _last_cut(data: bytes, at: int) -> int:
    """Place of the comma in the last `}` `,` `{` behind `at`, with blanks between; -1 if there is none near the end.

    That `{` is looked for with the first key of the record at `at`, which records within records rarely share.
    """
    opening = _OPENING.match(data, at)
    brace = len(data)
    for _ in range(_TRIES):
        brace = data.rfind(opening.group() if opening else b"{", at, brace)
        if brace < 0:
            break
        start = max(at, brace - 256)
        text = data[start:brace].rstrip(_BLANKS)
        if text.endswith(b",") and text[:-1].rstrip(_BLANKS).endswith(b"}"):
            return start + len(text) - 1
    return -1


def _spans(window: Window, what: str) -> tuple[list[tuple[int, int]], bool, int]:
    """The exact way: where the records that are whole in the window begin and end.

    Returns:
        [(begin, end), ...] in `window.data`; whether the array ended; where to read on.
    """
    data, at = window.data, window.at
    spans: list[tuple[int, int]] = []
    while at < len(data):
        if data[at] not in b"{[":
            raise window.error(f"{shown(data[at : at + 1])} where {what} or one of the next should begin", at)
        closing = bytearray()
        end = window.pass_brackets(at, closing)
        after = len(data) if closing else end_of_blank(data, end)
        if after == len(data):  # unfinished, or it is not known yet what follows
            break
        if data[after] not in b",]":
            raise window.error(f"{shown(data[after : after + 1])} where , or ] should stand", after)
        spans.append((at, end))
        if data[after : after + 1] == b"]":
            return spans, True, after + 1
        at = end_of_blank(data, after + 1)
    return spans, False, at


def _decoded(
    window: Window,
    key: str,
    kind: type[msgspec.Struct],
    several: msgspec.json.Decoder[list[Any]],
    spans: list[tuple[int, int]],
    count: int,
) -> list[Any]:
    """The records in `spans`: together if they all fit their type, else each on its own."""
    try:
        return several.decode(b"[" + window.data[spans[0][0] : spans[-1][1]] + b"]")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    one = msgspec.json.Decoder(kind)
    batch = []
    for number, (begin, end) in enumerate(spans, start=count + 1):
        text = window.data[begin:end]
        try:
            batch.append(one.decode(text))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            batch.append(_mended(window, f"record {number:,} of {_named(key)}", kind, text, begin))
    return batch


def _mended(window: Window, what: str, kind: type[msgspec.Struct], text: bytes, begin: int) -> Any:
    """A record that does not fit its type strictly."""
    try:
        value = json.loads(text.decode())
        if b"\\u" in text:  # half a surrogate pair, which JSON allows and no column can hold, becomes a question mark
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as why:
        raise window.error(f"{what} is no JSON ({why.msg})", begin + len(why.doc[: why.pos].encode())) from None
    except UnicodeDecodeError as why:
        raise window.error(f"{what} is not in UTF-8", begin + why.start) from None
    except ValueError as why:
        raise window.error(f"{what} cannot be read ({why})", begin) from None
    except RecursionError:
        raise window.error(f"{what} is nested too deeply", begin) from None
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as why:
        mend = getattr(kind, "mend", None)
        if mend is None or not isinstance(value, dict):
            raise window.error(f"{what} cannot be understood ({_lower(why)})", begin, _REMEDY) from None
    try:
        return mend(value)
    except (ValueError, RecursionError) as why:
        raise window.error(f"{what} cannot be understood ({_lower(why)})", begin, _REMEDY) from None


def _wrong_kind(first: bytes, wanted: dict[str, type[msgspec.Struct]]) -> str:
    should = "a JSON array" if "" in wanted else f"a JSON object with {', '.join(map(repr, wanted))}"
    found = {b"": "nothing", b"[": "a JSON array", b"{": "a JSON object"}.get(first, shown(first))
    return f"{found} where {should} should be"


def _named(key: str) -> str:
    return f"'{key}'" if key else "the array"


def _lower(why: Exception) -> str:
    text = str(why) or type(why).__name__
    return text[:1].lower() + text[1:]
