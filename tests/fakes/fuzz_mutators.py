"""Mutators: each takes the bytes of a valid file and a random generator, and returns a file that may be invalid.

Some know a format (JSON trees, pickle opcodes, members of a zip, chunks of a PNG), so that what they make gets past the
first check. A payload that would run code makes a file named `CANARY` in the working directory.
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

#: The file that a payload makes if it is executed.
CANARY = "canary"

#: Longer results are cut: the readers are tested by content here, not by gigabytes.
MAX_LENGTH = 2**21

_EDGE_NUMBERS: tuple[Any, ...] = (
    *(0, -0.0, 1, -1, 0.5, -0.5, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**53 + 1),
    *(2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30, -(10**30), 10**400, 1e308, -1e308, 5e-324, 1e15),
    *(float("nan"), float("inf"), float("-inf"), 13_377, 178_956_970, 0.1 + 0.2),
)
_EDGE_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x.jpg",
        "a/../../b",
        "\ud800",
        "\udfff\ud800",
        "é",
        "日本",
    ),
    *("\u202e", "\x1b[31m", "nan", "Infinity", "-1", "1e400", "0x10", "null", "true", "NaN", "\n", "\r\n", "🦓" * 9),
    *("%s%n", "{0}", "a" * 300, "b/" * 300, "c" * 70_000, "con", "-", ".", "..", "1_0", "٣", " 7 ", "00", "1.0"),
)
_RAW_JSON = (
    *("[" * 200 + "]" * 200, "[" * 5_000 + "]" * 5_000, "[" * 100_000, '{"a":' * 3_000 + "1" + "}" * 3_000),
    *("1e999", "-1e999", "01", "+1", ".5", "1.", "--1", "0x1F", "1E+2", "-0", "1" * 5_000, "0." + "3" * 5_000),
    *("NaN", "Infinity", "-Infinity", "nul", "tru", "'a'", "undefined", "", ",", "//", "/**/1", '"\\ud800"', '"\\x41"'),
    *('"unfinished', "\\", "\x00", "\ufeff", '"\\u12"', "1 2", "[1,]", "{,}", '{"a"}', "[1 2]", "\x0b1"),
)
_NUMBER, _WORD = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"), re.compile(r"\w+")
_EDGE_BYTES = (
    *(b"\0", b"\xff", b"\x7f", b"\x80", b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 300),
    *(struct.pack("<Q", 2**63), struct.pack("<Q", 2**40), struct.pack(">I", 2**30), struct.pack("<I", 2**30)),
)

#: Opcodes that a plain pickle does not hold: imports, calls, instances, persistent ids, odd memo places.
_PICKLE_PAYLOADS = (
    b"cos\nsystem\n(S'touch " + CANARY.encode() + b"'\ntR",
    b"\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch " + CANARY.encode() + b"\x85R",
    b"(S'touch " + CANARY.encode() + b"'\nios\nsystem\n",
    b"(cos\nsystem\nS'touch " + CANARY.encode() + b"'\no",
    b"cbuiltins\neval\n(S'open(\"" + CANARY.encode() + b'","w")\'\ntR',
    b"c__builtin__\nexec\n(S'open(\"" + CANARY.encode() + b'","w")\'\ntR',
    b"ctorch.serialization\nload\n(S'x'\ntR",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR",
    b"cnumpy\nndarray\n",
    b"ccollections\nOrderedDict\n)R",
    b"ccodecs\nencode\n",
    b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00",  # extension codes
    b"Pid\n", b"Q", b"b", b"\x81", b"\x92", b"\x93", b"R", b"o", b"0", b"1", b"2", b"(", b"\x94", b"\x97", b"\x98",
    b"]\x94h\x00a", b"}\x94", b"\x8f\x90", b"\x91", b"\x96\x04\x00\x00\x00\x00\x00\x00\x00abcd", b"t", b"l", b"d",
    b"u", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"p999999999999999999\n", b"g-1\n",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"\x8a\xff" + b"\x7f" * 255, b"X\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"B\xff\xff\xff\x7f", b"I" + b"9" * 6_000 + b"\n", b"L" + b"9" * 6_000 + b"L\n", b"F1e999\n", b"Fnan\n", b"I01\n",
    b"S'\\x'\n", b"V\\ud800\n", b"G\x7f\xf8\0\0\0\0\0\0", b".", b"\x80\x63", b"\x80\x02", b"(" * 5_000, b"2" * 5_000,
    b"]" + b"]a" * 3_000, b")" + b"\x85" * 20_000, b"]\x94" + b"(h\x00h\x00l\x94" * 40,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, set, delete, insert, repeat, swap or cut bytes anywhere; the head and the tail more often."""
    if not data:
        return rng.choice(_EDGE_BYTES)
    at = _position(data, rng)
    length = min(rng.choice((1, 1, 2, 4, 8, 32, len(data) // 4 + 1)), len(data) - at)
    match rng.randrange(9):
        case 0:
            return _splice(data, at, 1, bytes([data[at] ^ 1 << rng.randrange(8)]))
        case 1:
            return _splice(data, at, length, rng.randbytes(length))
        case 2:
            return _splice(data, at, length, b"")
        case 3:
            return _splice(data, at, 0, data[at : at + length] * rng.choice((1, 2, 50)))
        case 4:
            return data[: rng.choice((at, len(data) - 1, len(data) // 2, 0))]
        case 5:
            edge = rng.choice(_EDGE_BYTES)
            return _splice(data, at, len(edge), edge)
        case 6:
            return _splice(data, at, 0, rng.choice(_EDGE_BYTES))
        case 7:
            other = _position(data, rng)
            moved = data[other : other + length]
            return _splice(data, at, len(moved), moved)
        case _:
            return data + (rng.randbytes(length) if rng.random() < 0.5 else data[at:])


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Change numbers, words and lines of a text; sometimes its bytes."""
    text = data.decode("utf-8", "surrogateescape")
    kind = rng.randrange(8)
    if kind < 4:
        pattern, new = (_NUMBER, _number_text(rng)) if kind < 2 else (_WORD, rng.choice((*_EDGE_TEXTS, *_RAW_JSON)))
        if (found := pattern.search(text, rng.randrange(len(text) + 1))) or (found := pattern.search(text)):
            text = text[: found.start()] + new + text[found.end() :]
    elif kind < 7 and (lines := text.splitlines(keepends=True)):
        i, k = rng.randrange(len(lines)), rng.randrange(len(lines))
        if kind == 4:
            del lines[i]
        elif kind == 5:
            lines.insert(i, lines[k] * rng.choice((1, 1, 40)))
        else:
            lines[i], lines[k] = lines[k], lines[i]
        text = "".join(lines)
    else:
        return mutate_bytes(data, rng)
    return text.encode("utf-8", "surrogatepass" if rng.random() < 0.2 else "replace")[:MAX_LENGTH]


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change one node of the tree: its value, its type, its place, its keys; one time in six the text itself."""
    try:
        tree = json.loads(data) if rng.random() < 5 / 6 else None
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict | list):
        return mutate_text(data, rng)
    raw: list[str] = []
    tree = _mutate_tree(tree, rng, raw)
    try:
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, None, 1)))
    except (ValueError, RecursionError, TypeError):  # a number of more than 4,300 digits
        return mutate_text(data, rng)
    for number, value in enumerate(raw):
        text = text.replace(f'"@raw{number}@"', value)
    return text.encode("utf-8", "surrogatepass")[:MAX_LENGTH]


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    """Delete, repeat, move, replace or insert opcodes; sometimes change bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    try:
        starts = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:  # mutated before: genops raises many types
        return mutate_bytes(data, rng)
    ends = [*starts[1:], len(data)]
    i, k = rng.randrange(len(starts)), rng.randrange(len(starts))
    some = data[starts[k] : ends[min(k + rng.choice((0, 0, 1, 5)), len(ends) - 1)]]
    payload = rng.choice(_PICKLE_PAYLOADS)
    before, after = (data[: starts[i]], data[ends[i] :])
    made = (
        before + after,
        before + some + data[starts[i] :],
        before + some + after,
        before + payload + data[starts[i] :],
        before + payload + after,
        data[: starts[-1]] + payload * rng.choice((1, 1, 500)) + data[starts[-1] :],
    )
    return rng.choice(made)[:MAX_LENGTH]


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """Change a member's content, name, size or place in an archive of `torch.save`; sometimes its bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # mutated before: any exception
        members = []
    if not members or rng.random() < 0.25:
        return mutate_bytes(data, rng)
    place = next((i for i, (name, _) in enumerate(members) if name.endswith(".pkl")), 0)
    i = place if rng.random() < 0.5 else rng.randrange(len(members))
    name, content = members[i]
    compression = zipfile.ZIP_STORED
    match rng.randrange(10):
        case 0:
            del members[i]
        case 1:
            members.insert(rng.randrange(len(members)), members[i])
        case 2:
            names = (name.upper(), f"../{name}", f"/{name}", name + "\0", "x", "", "archive/data.pkl", "a" * 60_000)
            members[i] = (rng.choice(names), content)
        case 3 if len(data) < 2**17:  # else it takes longer than to read it
            compression = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        case 4:
            members.append((rng.choice((f"{name}.pkl", "constants.pkl", "../../x", "code/a.py")), content))
        case 5:
            rng.shuffle(members)
        case _:
            members[i] = (name, mutate_pickle(content, rng) if name.endswith(".pkl") else mutate_bytes(content, rng))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for own, held in members:
            info = zipfile.ZipInfo(own.split("\0")[0] or "x", (1980, 1, 1, 0, 0, 0))
            info.compress_type = compression
            archive.writestr(info, held)
        if rng.random() < 0.03:
            archive.comment = b"PK\5\6" + bytes(18)
    return out.getvalue()[:MAX_LENGTH]


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON header and keep its length right, or wrong; sometimes change bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.25 or not 0 < length < len(data):
        return mutate_bytes(data, rng)
    header = mutate_json(data[8 : 8 + length], rng)
    stated = rng.choice(_EDGE_NUMBERS) if rng.random() < 0.1 else len(header)
    stated = stated if isinstance(stated, int) and 0 <= stated < 2**64 else len(header)
    return stated.to_bytes(8, "little") + header + data[8 + length :]


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Change chunks, sizes, or the pixels inside the deflated stream, with correct checksums; sometimes bytes."""
    if rng.random() < 0.3 or not data.startswith(b"\x89PNG"):
        return mutate_bytes(data, rng)
    chunks = _png_chunks(data)
    if not chunks:
        return mutate_bytes(data, rng)
    i = rng.randrange(len(chunks))
    kind, content = chunks[i]
    match rng.randrange(8):
        case 0 | 1 if chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13:
            fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
            at = rng.randrange(7)
            sizes = (0, 1, 2, 7, 9, 13_377, 13_378, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
            fields[at] = rng.choice(sizes) if at < 2 else rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
            chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *fields))
        case 2 if kind == b"IDAT":
            try:
                chunks[i] = (kind, zlib.compress(mutate_bytes(zlib.decompress(content), rng)))
            except zlib.error:
                chunks[i] = (kind, mutate_bytes(content, rng))
        case 3:
            del chunks[i]
        case 4:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[i])
        case 5:
            kinds = (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"tEXt", b"acTL", b"fcTL", b"fdAT", b"gAMA")
            chunks.insert(rng.randrange(len(chunks)), (rng.choice(kinds), _chunk_content(rng)))
        case _:
            chunks[i] = (kind, mutate_bytes(content, rng))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(held)) + own + held + struct.pack(">I", zlib.crc32(own + held)) for own, held in chunks
    )


def mutator_for(name: str) -> Mutator:
    """The mutator for a file by its name."""
    suffix = name.rpartition(".")[2].lower()
    by_suffix: dict[str, Mutator] = {
        "json": mutate_json,
        "p": mutate_pickle,
        **dict.fromkeys(("bin", "pt", "pth"), mutate_zip),
        "safetensors": mutate_safetensors,
        "png": mutate_png,
        **dict.fromkeys(("txt", "yaml", "jsonl", "csv", "data", "names", "xml"), mutate_text),
    }
    return by_suffix.get(suffix, mutate_bytes)


def _position(data: bytes, rng: random.Random) -> int:
    """A place in the data; a third of them in the first 64 bytes, a third in the last 512."""
    first, last = rng.choice(((0, len(data)), (0, min(64, len(data))), (max(0, len(data) - 512), len(data))))
    return rng.randrange(first, last)


def _splice(data: bytes, at: int, length: int, new: bytes) -> bytes:
    return (data[:at] + new + data[at + length :])[:MAX_LENGTH]


def _number_text(rng: random.Random) -> str:
    value = rng.choice(_EDGE_NUMBERS)
    return str(value) if not isinstance(value, float) or rng.random() < 0.7 else f"{value:.0f}"


class _DuplicatedKeys(dict[str, Any]):
    """A mapping that is written with some keys twice."""

    def items(self) -> Any:
        pairs = list(super().items())
        return pairs + pairs[: 1 + len(pairs) // 2]


def _mutate_tree(tree: Any, rng: random.Random, raw: list[str]) -> Any:
    """The tree with one node changed in place; `raw` collects texts that stand for `"@raw0@"`, `"@raw1@"`, ..."""
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(places) < 5_000:  # an earlier mutation may have made a huge tree
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(min(len(node), 500)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    if not places:
        return rng.choice((None, 1, [], {}, [[]], "x"))
    holder, key = rng.choice(places)
    other_holder, other_key = rng.choice(places)
    match rng.randrange(14):
        case 0 | 1 | 2:
            holder[key] = _near(holder[key], rng)
        case 3:
            holder[key] = rng.choice(_EDGE_NUMBERS)
        case 4:
            holder[key] = rng.choice(_EDGE_TEXTS)
        case 5:
            holder[key] = rng.choice((None, True, False, [], {}, [[]], [holder[key]], {"a": holder[key]}))
        case 6:
            raw.append(rng.choice(_RAW_JSON))
            holder[key] = f"@raw{len(raw) - 1}@"
        case 7:
            del holder[key]
        case 8:
            holder[key] = json.loads(json.dumps(other_holder[other_key]))
        case 9 if isinstance(holder, list):
            holder[key:key] = [holder[key]] * rng.choice((1, 1, 3, 2_000))
        case 10 if isinstance(holder, list):
            rng.shuffle(holder)
        case 9 | 10:
            holder[rng.choice((*_EDGE_TEXTS, "id", key.upper()))] = holder.pop(key)
        case 11 if isinstance(holder[key], dict):
            holder[key] = _DuplicatedKeys(holder[key])
        case 12 if isinstance(holder[key], list) and holder[key]:
            holder[key] = holder[key][: rng.randrange(len(holder[key]))]
        case _:
            holder[key] = rng.choice((str(holder[key])[:2_000], [1, 2, 3, 4], [0] * 5_000, {"id": 1}))
    return tree


def _near(value: Any, rng: random.Random) -> Any:
    """A value of the same type near the given one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 2, -2, 7, 100, -100, -2 * value))
    if isinstance(value, float):
        return rng.choice((value + 0.5, -value, value * 10, value / 10, value // 1))
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(("", " ", "0", "~", "/", "é", "\t")) + value[at + rng.randrange(2) :]
    return rng.choice(([], {}, None))


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _chunk_content(rng: random.Random) -> bytes:
    """Content of an added chunk: noise, EXIF with an orientation, a deflated bomb, a palette."""
    exif = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1" + bytes([0, rng.randrange(10)]) + b"\0\0\0\0\0\0"
    bomb = b"k\0\0" + zlib.compress(bytes(2**20))
    return rng.choice((rng.randbytes(rng.randrange(40)), exif, bomb, bytes(range(48)), bytes(768), b""))
