"""Streams the records of a huge JSON file: typed, in the order of the file, in bounded memory.

It knows JSON, but no dataset. Normally `msgspec` decodes some megabytes of an array at a time. Whatever it cannot
decode that way (odd spacing, nested records, NaN, numbers in quotes) is decoded record by record.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from synthgen.errors import SynthgenError, describe_exhaustion
from synthgen.formats.readers._json_file import open_json
from synthgen.formats.readers._json_window import JsonWindow, describe_byte, skip_whitespace

#: Bytes read at once; records come in batches of this size, which fit a CPU cache: 4 MiB take a third longer.
CHUNK_BYTES = 2**19

_MAX_TRIES = 64
_WHITESPACE = b" \t\n\r"
_REMEDY = "mend it in the file"

# The first key of a record, with its brace.
_RECORD_START = re.compile(rb'\{(?:[ \t\n\r]{0,64}+"[^"\\]{0,64}+")?')


def stream_records(
    path: Path,
    record_types: dict[str, type[msgspec.Struct]],
    *,
    on_bytes: Callable[[int], None] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    small_keys: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[tuple[str, list[Any]]]:
    """Yield (key, records) for the arrays under the `record_types` keys of a JSON file, in the order of the file.

    An existing key yields at least one batch, which may be empty; a repeated key is read again. Memory is a few times
    `chunk_bytes` or the largest single record. Other keys are skipped: only their brackets and strings are parsed.

    If a record does not fit its type strictly, the type's own `coerce(value: dict) -> Struct` gets it, if there is one;
    it raises ValueError to refuse. For a type without `coerce`, strings are accepted as numbers.

    A gzip file is decompressed while it is read. Then `on_bytes` counts compressed bytes, and errors name the byte of
    the content.

    Args:
        path: JSON file, or JSON compressed with gzip; untrusted.
        record_types: type of the records, by top-level key; "" stands for a file whose top level is itself an array.
        on_bytes: called with the number of further bytes read, for progress; None = not called.
        chunk_bytes: bytes read at once.
        small_keys: by other top-level key, a number of bytes. If the value is an array or object of at most so many,
            (key, [value]) is yielded; any other value is skipped.

    Raises:
        SynthgenError: the file cannot be read, is not such JSON (with the byte position), or a record is invalid.
    """
    try:
        with open_json(path, on_bytes) as (file, count_bytes):
            window = JsonWindow(file, path, count_bytes, chunk_bytes)
            first = window.peek()
            if first == b"[" and "" in record_types:
                for batch in _read_records(window, "", record_types[""]):
                    yield "", batch
            elif first == b"{" and "" not in record_types:
                yield from _read_members(window, record_types, small_keys)
            else:
                raise window.make_error(_top_level_error(first, record_types))
            if window.peek():
                raise window.make_error("more text after the end of its JSON")
    except OSError as why:
        if describe_exhaustion(why):  # says nothing about the file
            raise
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def _read_members(
    window: JsonWindow, wanted: dict[str, type[msgspec.Struct]], small: Mapping[str, int]
) -> Iterator[tuple[str, list[Any]]]:
    """The requested members of the object at the cursor."""
    window.expect(b"{")
    if window.peek() == b"}":
        window.expect(b"}")
        return
    while True:
        key = window.read_string()
        window.expect(b":")
        if key in small:
            text = window.read_small_value(small[key])
            with contextlib.suppress(ValueError, RecursionError):  # what nobody needs stops no reading
                yield key, [] if text is None else [json.loads(text.decode())]
        elif key not in wanted:
            window.skip_value()
        elif window.peek() == b"[":
            for batch in _read_records(window, key, wanted[key]):
                yield key, batch
        else:
            raise window.make_error(f"{describe_byte(window.peek())} where the array of '{key}' should begin")
        if window.expect(b",}") == b"}":
            return


def _read_records(window: JsonWindow, key: str, kind: type[msgspec.Struct]) -> Iterator[list[Any]]:
    """The records of the array at the cursor."""
    several = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    window.expect(b"[")
    if window.peek() == b"]":
        window.expect(b"]")
        yield []
        return
    count = 0
    while True:
        window.peek()
        batch = _decode_window(window, several)
        closed = False
        if batch is None:
            spans, closed, after = _record_spans(window, f"record {count + 1:,} of {_array_name(key)}")
            batch = _decode_spans(window, key, kind, several, spans, count) if spans else []
            window.position = after
        count += len(batch)
        if batch:
            yield batch
        if closed:
            return
        if not window.read_more() and not batch:
            raise window.make_error(f"the file ends inside record {count + 1:,} of {_array_name(key)}")


def _decode_window(window: JsonWindow, several: msgspec.json.Decoder[list[Any]]) -> list[Any] | None:
    """The fast path: decode all records up to the last `}, {` of the window at once; None if that fails.

    That `}, {` may be anywhere: inside a record, in a string, after the array. But if the text from the start of a
    record up to it, in brackets, is a valid JSON array, then it ends a record. JSON is parsed from left to right: in
    the file the same text leads to the same parser state, in which a comma separates two records.
    """
    cut = _last_record_boundary(window.data, window.position)
    if cut < 0:
        return None
    try:
        batch = several.decode(b"[" + window.data[window.position : cut] + b"]")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    window.position = cut + 1
    return batch


def _last_record_boundary(data: bytes, at: int) -> int:
    """Position of the comma in the last `}` `,` `{` after `at`; -1 if there is none near the end.

    The search uses `{` with the first key of the record at `at`, which nested records rarely share.
    """
    opening = _RECORD_START.match(data, at)
    brace = len(data)
    for _ in range(_MAX_TRIES):
        brace = data.rfind(opening.group() if opening else b"{", at, brace)
        if brace < 0:
            break
        start = max(at, brace - 256)
        text = data[start:brace].rstrip(_WHITESPACE)
        if text.endswith(b",") and text[:-1].rstrip(_WHITESPACE).endswith(b"}"):
            return start + len(text) - 1
    return -1


def _record_spans(window: JsonWindow, what: str) -> tuple[list[tuple[int, int]], bool, int]:
    """The exact path: start and end of the records that are complete in the window.

    Args:
        window: its position is at a record of the array.
        what: names the current record in an error message.

    Returns:
        [(begin, end), ...] in `window.data`; whether the array ended; where to continue.

    Raises:
        SynthgenError: the text is not valid JSON there.
    """
    data, at = window.data, window.position
    spans: list[tuple[int, int]] = []
    while at < len(data):
        if data[at] not in b"{[":
            raise window.make_error(
                f"{describe_byte(data[at : at + 1])} where {what} or one of the next should begin", at
            )
        closing = bytearray()
        end = window.skip_brackets(at, closing)
        after = len(data) if closing else skip_whitespace(data, end)
        if after == len(data):  # incomplete, or the next byte is not read yet
            break
        if data[after] not in b",]":
            raise window.make_error(f"{describe_byte(data[after : after + 1])} where , or ] should stand", after)
        spans.append((at, end))
        if data[after : after + 1] == b"]":
            return spans, True, after + 1
        at = skip_whitespace(data, after + 1)
    return spans, False, at


def _decode_spans(
    window: JsonWindow,
    key: str,
    kind: type[msgspec.Struct],
    several: msgspec.json.Decoder[list[Any]],
    spans: list[tuple[int, int]],
    count: int,
) -> list[Any]:
    """Decode the records in `spans`: together if all fit their type, else one by one."""
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
            batch.append(_decode_leniently(window, f"record {number:,} of {_array_name(key)}", kind, text, begin))
    return batch


def _decode_leniently(window: JsonWindow, what: str, kind: type[msgspec.Struct], text: bytes, begin: int) -> Any:
    """Decode a record that does not fit its type strictly."""
    try:
        value = json.loads(text.decode())
        if b"\\u" in text:  # half a surrogate pair, which JSON allows and no column can hold, becomes a question mark
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as why:
        raise window.make_error(f"{what} is no JSON ({why.msg})", begin + len(why.doc[: why.pos].encode())) from None
    except UnicodeDecodeError as why:
        raise window.make_error(f"{what} is not in UTF-8", begin + why.start) from None
    except ValueError as why:
        raise window.make_error(f"{what} cannot be read ({why})", begin) from None
    except RecursionError:
        raise window.make_error(f"{what} is nested too deeply", begin) from None
    coerce = getattr(kind, "coerce", None)
    try:
        # Not both: `convert` reads an id "7.0" as 7, and so takes two texts for one id.
        if coerce is not None and isinstance(value, dict):
            return coerce(value)
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as why:
        raise window.make_error(f"{what} cannot be understood ({_lowercase_first(why)})", begin, _REMEDY) from None


def _top_level_error(first: bytes, wanted: dict[str, type[msgspec.Struct]]) -> str:
    should = "a JSON array" if "" in wanted else f"a JSON object with {', '.join(map(repr, wanted))}"
    found = {b"": "nothing", b"[": "a JSON array", b"{": "a JSON object"}.get(first, describe_byte(first))
    return f"{found} where {should} should be"


def _array_name(key: str) -> str:
    return f"'{key}'" if key else "the array"


def _lowercase_first(why: Exception) -> str:
    text = str(why) or type(why).__name__
    return text[:1].lower() + text[1:]
