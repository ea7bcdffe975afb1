"""One Parquet file of the store. Its footer has a digest of its own, which is compared before Arrow parses the footer.

Pages have checksums, a Parquet footer has none: a flipped bit in it gives other rows, or ends the process in Arrow. So
48 bytes lie between the last page and the footer: `SEAL_MAGIC`, and the SHA-256 of all bytes of the footer and of its
length. Offsets in a footer are absolute and point to earlier data; no reader looks at bytes that none of them names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import SynthgenError, describe_exhaustion
from synthgen.records.parquet_schema import DICTIONARY_COLUMNS, check_types, check_version

#: Before the digest of a footer. Its bytes are no text, so that no name in a footer can hold them.
SEAL_MAGIC = b"\x89synthgen-seal\r\n"

_FOOTER_KEY = b"synthgen"
_PARQUET_MAGIC = b"PAR1"
_TRAILER_BYTES = 8  # length of the footer, magic
_SEAL_BYTES = len(SEAL_MAGIC) + hashlib.sha256().digest_size

#: Where no seal precedes the footer, it is looked for in the end of the file: the length of the footer may be damaged.
_SEARCHED_BYTES = 2**20

#: Types of what our footer may hold; other members are allowed.
_MEMBER_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("synthgen", "fingerprint"), (str,)),
    **dict.fromkeys(("recipe", "counts", "identity"), (dict,)),
    **dict.fromkeys(("categories", "failed", "category_records", "licenses"), (list,)),
    "parent": (dict, type(None)),
}

#: What Arrow raises for a file that it cannot parse.
_PARSE_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError, RecursionError)


class DamagedShardError(SynthgenError):
    """The content of a file is not what was written."""


class ForeignShardError(SynthgenError):
    """A file is no shard, or another shard than its place says."""


def write_parquet(path: Path, table: pa.Table, footer: dict[str, Any], *, row_group_size: int) -> None:
    """Write a table with our footer, and the digest of the Parquet footer.

    Args:
        path: file to write, usually a temporary one.
        table: rows with the columns of `SCHEMA`.
        footer: plain JSON.
        row_group_size: rows in each row group, at most.
    """
    text = json.dumps(footer, sort_keys=True, ensure_ascii=False)
    pq.write_table(
        table.replace_schema_metadata({_FOOTER_KEY: text.encode()}),
        path,
        row_group_size=row_group_size,
        compression="zstd",
        use_dictionary=DICTIONARY_COLUMNS,
        write_page_checksum=True,  # detects flipped bits on reading, for 2 % of the time
    )
    with path.open("r+b") as file:
        size = file.seek(-_TRAILER_BYTES, os.SEEK_END) + _TRAILER_BYTES
        start = size - _TRAILER_BYTES - int.from_bytes(file.read(4), "little")
        file.seek(start)
        end = file.read()
        file.seek(start)
        file.write(SEAL_MAGIC + hashlib.sha256(end[:-4]).digest() + end)


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
    """A file and our footer, both checked. Errors of the block that come from the file's content are translated too.

    Args:
        path: file of a shard; untrusted.

    Raises:
        FileNotFoundError: there is none.
        DamagedShardError: the file is damaged; it says how.
        ForeignShardError: it is no regular file, or none of ours.
        SynthgenError: it cannot be read, or is of a newer version.
    """
    with _translate_errors(path, _PARSE_ERRORS):
        is_sealed = _check_seal(path)
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        with _translate_errors(path, _PARSE_ERRORS):
            footer = _parse_footer(file)
            if footer is None:
                raise ForeignShardError(f"{path} is Parquet but no synthgen shard; move it out of the store")
            check_version(footer["schema_version"], str(path))
            if "identity" in footer and not is_sealed:
                raise pa.ArrowInvalid("the digest of its footer is gone")
            check_types(file.schema_arrow)
        with _translate_errors(path, (pa.ArrowException, OSError, UnicodeDecodeError)):
            yield file, footer


def describe_irregular(path: Path) -> str | None:
    """What lies at a path if it is no regular file nor a link to one: "is a FIFO"; None = a file, or nothing."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else None
    except OSError:  # whoever opens it says why
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return f"is {next((name for test, name in kinds if test(mode)), 'a device')}"


@contextlib.contextmanager
def _translate_errors(path: Path, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except errors as why:
        if not isinstance(why, MemoryError) and describe_exhaustion(why):  # says nothing about the file
            raise
        if isinstance(why, OSError) and why.errno is not None:  # otherwise Arrow reports unreadable content
            raise SynthgenError(f"{path} cannot be read ({why.strerror}); check its disk and rights") from None
        reason = (str(why).splitlines() or [type(why).__name__])[0].rstrip(".")
        if isinstance(why, MemoryError):  # whoever lacks memory must not be told to delete a whole shard
            remedy = "if there is enough, it is damaged: delete it and run the job again"
            raise SynthgenError(f"{path} cannot be read for lack of memory ({reason}); {remedy}") from None
        raise DamagedShardError(f"{path} is damaged ({reason}); delete it and run the job again") from None


def _check_seal(path: Path) -> bool:
    """Whether the file has a digest of its footer, which is right; False = it is of an older release.

    Args:
        path: file of a shard; untrusted.

    Raises:
        ArrowInvalid: the footer or its digest is damaged.
        ForeignShardError: no regular file lies there.
    """
    if (what := describe_irregular(path)) is not None:
        raise ForeignShardError(f"{path} {what}, not a shard; move it out of the store")
    # O_NONBLOCK: if a FIFO takes its place now, nothing waits for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:  # noqa: PTH123
        size = file.seek(0, os.SEEK_END)
        if size < _TRAILER_BYTES:
            return False  # Arrow says what is wrong
        trailer = _read_at(file, size - _TRAILER_BYTES, _TRAILER_BYTES)
        start = size - _TRAILER_BYTES - int.from_bytes(trailer[:4], "little")
        if start >= _SEAL_BYTES and trailer[4:] == _PARQUET_MAGIC:
            seal = _read_at(file, start - _SEAL_BYTES, _SEAL_BYTES)
            if seal.startswith(SEAL_MAGIC):
                if seal[len(SEAL_MAGIC) :] != _digest_at(file, start, size - 4):
                    raise pa.ArrowInvalid("its footer is not what was written")
                return True
        searched = min(size, _SEARCHED_BYTES)
        if SEAL_MAGIC in _read_at(file, size - searched, searched):
            raise pa.ArrowInvalid("its end is not what was written")
    return False


def _read_at(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _digest_at(file: BinaryIO, start: int, end: int) -> bytes:
    digest = hashlib.sha256()
    while start < end and (part := _read_at(file, start, min(2**20, end - start))):
        digest.update(part)
        start += len(part)
    return digest.digest()


def _parse_footer(file: pq.ParquetFile) -> dict[str, Any] | None:
    text = (file.metadata.metadata or {}).get(_FOOTER_KEY)
    if text is None:
        return None
    try:
        footer = json.loads(text)
    except (ValueError, RecursionError):
        raise pa.ArrowInvalid("its synthgen footer is no JSON") from None
    if not isinstance(footer, dict) or type(footer.get("schema_version")) is not int:
        raise pa.ArrowInvalid("its synthgen footer has no schema version")
    for name in footer.keys() & _MEMBER_TYPES.keys():
        if not isinstance(footer[name], _MEMBER_TYPES[name]):
            raise pa.ArrowInvalid(f"the member '{name}' of its synthgen footer is of a wrong type")
    return footer
