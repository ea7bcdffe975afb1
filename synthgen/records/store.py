"""Shards and their store. A shard is committed when its final name exists; nothing else says so.

Below the store's root a layer is a folder: `<dataset>/<split>/<layer>/00042-of-01743.parquet`. A layer is complete in
itself: it repeats what came before it, so no reader joins. Beside its shards lies `_log/`: what the runs told, for
people to read; nothing in the store depends on it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import SynthgenError
from synthgen.records.sample import Sample
from synthgen.records.schema import (
    SCHEMA_VERSION,
    BoxColumns,
    check_version,
    samples_from_batch,
    table_from_columns,
    table_from_samples,
)

#: Images in a row group: the grain in which readers stride and memory is counted.
ROW_GROUP_SIZE = 64

_FOOTER_KEY = b"synthgen"
_NAME = re.compile(r"(\d{5,})-of-(\d{5,})\.parquet")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """The name of a slice of a dataset's images in one layer: a name, not a file handle."""

    dataset: str
    split: str
    layer: str
    index: int
    count: int

    def __post_init__(self) -> None:
        for word in (self.dataset, self.split, self.layer):
            check_word(word)

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}/{self.layer}/{self.index:05d}-of-{self.count:05d}"

    @property
    def path(self) -> str:
        """Where it lies below the store's root."""
        return f"{self}.parquet"

    def of(self, layer: str) -> Shard:
        """The same slice of images in another layer."""
        return replace(self, layer=layer)


def check_word(word: str) -> str:
    """Return `word` if it can name a dataset, a split or a layer, and so a folder of the store.

    Raises:
        SynthgenError: it could not, or would climb out of the store.
    """
    if not _WORD.fullmatch(word):
        raise SynthgenError(f"'{word}' cannot name a dataset, split or layer; use letters, digits, '.', '_' and '-'")
    return word


class ShardStore:
    """A folder of layers. Only this class touches its paths."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def commit(self, shard: Shard, samples: Sequence[Sample] | BoxColumns, footer: dict[str, Any]) -> Path:
        """Write a shard under its final name, whole or not at all: temporary file, fsync, rename, fsync of the folder.

        Two writers of one shard are harmless: the last rename wins, and the same job gives the same bytes.

        Args:
            footer: what made the shard (recipe, fingerprint, categories, counts, ...); plain JSON, no clock in it.

        Returns:
            The path of the committed file.

        Raises:
            SynthgenError: the disk is full or the folder cannot be written; no file is left behind.
        """
        final = self.root / shard.path
        table = table_from_columns(samples) if isinstance(samples, BoxColumns) else table_from_samples(samples)
        text = json.dumps({**footer, "schema_version": SCHEMA_VERSION}, sort_keys=True, ensure_ascii=False)
        table = table.replace_schema_metadata({_FOOTER_KEY: text.encode()})
        with _new_file(final) as temporary:
            pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP_SIZE, store_schema=True)
        return final

    def read(self, shard: Shard) -> Iterator[Sample]:
        """The samples of a committed shard, in order, a row group in memory at a time."""
        with self._open(shard) as file:
            for batch in file.iter_batches(batch_size=ROW_GROUP_SIZE):
                yield from samples_from_batch(batch)

    def columns(self, shard: Shard, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Chosen columns of a committed shard, a row group in memory at a time; the others are not read from disk.

        Names are those of the schema, nested ones with dots: "image_key", "annotations.list.element.category".
        """
        with self._open(shard) as file:
            yield from file.iter_batches(batch_size=ROW_GROUP_SIZE, columns=list(names))

    def footer(self, shard: Shard) -> dict[str, Any] | None:
        """What made the shard; None = not committed."""
        path = self.root / shard.path
        if not path.exists():
            return None
        with self._open(shard) as file:
            return _footer_of(file)

    def layer(self, dataset: str, split: str, layer: str) -> list[Shard]:
        """The committed shards of a layer, in order; [] if there are none.

        Raises:
            SynthgenError: shards of two different plans lie in the folder.
        """
        folder = self.folder(dataset, split, layer)
        found = []
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            if match := _NAME.fullmatch(name):
                found.append(Shard(dataset, split, layer, int(match[1]), int(match[2])))
        counts = {shard.count for shard in found}
        if len(counts) > 1:
            raise SynthgenError(
                f"{folder} holds shards of two plans (of {' and of '.join(str(c) for c in sorted(counts))}); "
                "move one of them away or choose another --layer"
            )
        return found

    def layers(self) -> list[tuple[str, str, str]]:
        """All (dataset, split, layer) of the store that hold at least one committed shard, sorted."""
        found = {
            path.parent.relative_to(self.root).parts
            for path in self.root.glob("*/*/*/*.parquet")
            if _NAME.fullmatch(path.name)
        }
        return sorted((parts[0], parts[1], parts[2]) for parts in found)

    def folder(self, dataset: str, split: str, layer: str) -> Path:
        """The folder of a layer, whether it exists or not."""
        return self.root / check_word(dataset) / check_word(split) / check_word(layer)

    @contextlib.contextmanager
    def scratch(self, dataset: str, split: str, layer: str) -> Iterator[Path]:
        """A folder for what is too large for memory, on the store's own disk; deleted when the block ends."""
        folder = _temporary(self.folder(dataset, split, layer) / "scratch")
        with _in_words(folder):
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def remove_leftovers(self, dataset: str, split: str, layer: str) -> int:
        """Delete what writers killed on this machine left in a layer; returns how many files and folders it was."""
        removed = 0
        for path in self.folder(dataset, split, layer).glob(".*.tmp"):
            parts = path.name.rsplit(".", 4)  # .<name>, host, pid, random, tmp
            if len(parts) == 5 and parts[1] == _host() and not _alive(int(parts[2])):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                removed += 1
        return removed

    @contextlib.contextmanager
    def _open(self, shard: Shard) -> Iterator[pq.ParquetFile]:
        path = self.root / shard.path
        try:
            with pq.ParquetFile(path) as file:
                footer = _footer_of(file)
                if footer is None:
                    raise SynthgenError(f"{path} is Parquet but no synthgen shard; move it out of the store")
                check_version(int(footer.get("schema_version", 0)), str(path))
                yield file
        except FileNotFoundError:
            raise SynthgenError(f"no shard {shard} in {self.root}; `synthgen status` lists what is there") from None
        except pa.ArrowInvalid as why:
            raise SynthgenError(
                f"{path} is no readable Parquet file ({why}); delete it and run the job again"
            ) from None


def write_text(path: Path, text: str) -> None:
    """Put a small file in place, whole or not at all, as a shard is put."""
    with _new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_line(path: Path, text: str) -> None:
    """Add a line to a log with one write: the lines of two writers may interleave, their letters may not."""
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(text.encode() + b"\n")


@contextlib.contextmanager
def _new_file(final: Path) -> Iterator[Path]:
    """A temporary path in the folder of `final`; renamed to it when the block ends well, deleted when it does not."""
    with _in_words(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(final)
        try:
            yield temporary
            _fsync(temporary)
            os.replace(temporary, final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync(final.parent)


def _temporary(final: Path) -> Path:
    """A name beside `final` that says whose it is: `remove_leftovers` reads it."""
    return final.with_name(f".{final.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn what the file system refuses, and the user can mend, into a sentence."""
    try:
        yield
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SynthgenError(
                f"no space left to write {path}; make room and run the same command again: what is committed stays"
            ) from None
        if why.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise SynthgenError(f"cannot write {path} ({why.strerror}); choose another --store") from None
        raise


def _footer_of(file: pq.ParquetFile) -> dict[str, Any] | None:
    metadata = file.metadata.metadata or {}
    return json.loads(metadata[_FOOTER_KEY]) if _FOOTER_KEY in metadata else None


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
