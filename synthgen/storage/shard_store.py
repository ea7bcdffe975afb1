"""Shards and their store. A shard is committed when its final name exists; there is no other record of it.

A layer is a folder below the root of the store: `<dataset>/<split>/<layer>/00042-of-01743.parquet`. A layer is complete
in itself: it repeats its input, so no reader joins. Its folder `_log/` holds the logs of the runs. They are for people;
the store does not depend on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import SynthgenError, describe_exhaustion
from synthgen.records.box_table import BoxColumns, table_from_columns
from synthgen.records.parquet_schema import (
    DICTIONARY_COLUMNS,
    SCHEMA_VERSION,
    check_version,
    samples_from_batch,
    table_from_samples,
)
from synthgen.records.sample import Sample
from synthgen.storage.atomic import atomic_write, remove_stale_files, scratch_folder
from synthgen.storage.disk import check_folder_exists, create_folder, gone_error

#: Images in a row group: the unit in which readers shuffle and memory is counted.
ROW_GROUP_SIZE = 64

#: The same for boxes only. They are small; with 64, half of the writing time would be overhead.
BOX_ROW_GROUP_SIZE = 256

_FOOTER_KEY = b"synthgen"
_SHARD_FILE_PATTERN = re.compile(r"(\d{5,})-of-(\d{5,})\.parquet")
_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """The name of a shard: a slice of a dataset's images in one layer. It holds no open file."""

    dataset: str
    split: str
    layer: str
    index: int
    num_shards: int

    def __post_init__(self) -> None:
        for word in (self.dataset, self.split, self.layer):
            check_name(word)

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}/{self.layer}/{self.index:05d}-of-{self.num_shards:05d}"

    @property
    def relative_path(self) -> str:
        """Its path below the root of the store."""
        return f"{self}.parquet"

    def in_layer(self, layer: str) -> Shard:
        """The same slice of images in another layer."""
        return replace(self, layer=layer)


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Statistics of a column in a shard's header.

    Attributes:
        count: values that are not null.
        minimum, maximum: of these values, in the order of their type; None = there are none.
    """

    count: int = 0
    minimum: Any = None
    maximum: Any = None

    def __add__(self, other: ColumnStats) -> ColumnStats:
        """The statistics of two shards together."""
        some = [column for column in (self, other) if column.minimum is not None]
        least, most = min((c.minimum for c in some), default=None), max((c.maximum for c in some), default=None)
        return ColumnStats(self.count + other.count, least, most)


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a dataset, a split or a layer, which is a folder of the store.

    Raises:
        SynthgenError: it is not valid, or would leave the store.
    """
    if not _NAME_PATTERN.fullmatch(name):
        raise SynthgenError(
            f"'{name}' cannot name a dataset, split or layer; use at most 200 letters, digits, '.', '_' and '-'"
        )
    return name


class ShardStore:
    """A folder of layers. Only this class uses paths below it.

    A job creates the root and its layer once, when it starts. Later commits create no folder. So a store that was
    unmounted meanwhile gets no second copy below its mount point.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._devices: dict[Path, int] = {}  # folder of a layer -> the device that it was on when the job started
        try:
            str(root).encode()
        except UnicodeEncodeError:
            raise SynthgenError(f"the path {root} is not in UTF-8, as Arrow's are; choose another --store") from None

    def create_root(self) -> None:
        """Create the root of the store, when a job starts.

        Raises:
            SynthgenError: it cannot be created.
        """
        create_folder(self.root)

    def create_layer(self, dataset: str, split: str, layer: str) -> None:
        """Create the folder of a layer and of its logs, when a job starts. The root must exist.

        Raises:
            SynthgenError: the root is gone, or the folder cannot be created.
        """
        folder = self.layer_folder(dataset, split, layer)
        check_folder_exists(self.root)
        create_folder(folder / "_log")
        self._devices[folder] = check_folder_exists(folder).st_dev

    def _create_for_commit(self, folder: Path) -> None:
        """Create the folder of a layer, and the root, for a commit that no `create_layer` preceded."""
        create_folder(folder)
        self._devices[folder] = check_folder_exists(folder).st_dev

    def _check_layer(self, folder: Path) -> None:
        """Check that a layer is where `create_layer` made it. Another device means that its disk was unmounted."""
        # Not the inode: file systems in user space may number a folder anew.
        if check_folder_exists(folder).st_dev != self._devices[folder]:
            raise gone_error(folder, "another disk is in its place")

    def commit(self, shard: Shard, samples: Sequence[Sample] | BoxColumns, footer: dict[str, Any]) -> Path:
        """Write a shard atomically: temporary file, fsync, rename, fsync of the folder.

        If `create_layer` was not called before, the first commit to a layer creates its folder, and the root.
        Two writers of one shard are harmless: the last rename wins, and the same job gives the same bytes.

        Args:
            footer: what made the shard (recipe, fingerprint, categories, counts, ...); plain JSON without times.

        Returns:
            The path of the committed file.

        Raises:
            SynthgenError: the disk is full, the folder cannot be written, or a value does not fit its column; no file
                is left behind.
        """
        final = self.root / shard.relative_path
        try:
            table = table_from_columns(samples) if isinstance(samples, BoxColumns) else table_from_samples(samples)
        except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid) as why:
            raise SynthgenError(
                f"{shard} cannot be written: a text in it is no Unicode, or a number too large for its column ({why})"
            ) from None
        text = json.dumps({**footer, "schema_version": SCHEMA_VERSION}, sort_keys=True, ensure_ascii=False)
        table = table.replace_schema_metadata({_FOOTER_KEY: text.encode()})
        if final.parent not in self._devices:
            self._create_for_commit(final.parent)
        self._check_layer(final.parent)
        with atomic_write(final) as temporary:
            pq.write_table(
                table,
                temporary,
                row_group_size=BOX_ROW_GROUP_SIZE if isinstance(samples, BoxColumns) else ROW_GROUP_SIZE,
                compression="zstd",
                use_dictionary=DICTIONARY_COLUMNS,
                write_page_checksum=True,  # detects flipped bits on reading, for 2 % of the time
            )
        return final

    def read_samples(self, shard: Shard, row_groups: Sequence[int] | None = None) -> Iterator[Sample]:
        """The samples of a committed shard, in order, a row group in memory at a time.

        Args:
            row_groups: only of these row groups, in this order; None = of all.
        """
        with self._open_shard(shard) as file:
            if row_groups is not None and max(row_groups, default=-1) >= file.metadata.num_row_groups:
                raise SynthgenError(f"{shard} is another one than a moment ago; run the same command again")
            for batch in _read_batches(file, row_groups=row_groups):
                yield from samples_from_batch(batch)

    def read_row_group_sizes(self, shard: Shard) -> tuple[dict[str, Any], list[int]]:
        """The footer of a committed shard and the number of rows of each row group. Reads no data."""
        with self._open_shard(shard) as file:
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            return _parse_footer(file) or {}, [group.num_rows for group in groups]

    def read_columns(self, shard: Shard, column_names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of a committed shard, one row group in memory at a time. Reads no other column.

        Names are those of the schema, nested ones with dots: "image_key", "annotations.list.element.category".

        Raises:
            ValueError: the shard has no such column (pyarrow would give batches without it).
        """
        with self._open_shard(shard) as file:
            paths = [file.schema.column(i).path for i in range(len(file.schema))]
            if unknown := [n for n in column_names if not any(p == n or p.startswith(f"{n}.") for p in paths)]:
                raise ValueError(f"{shard} has no column {unknown[0]}")
            yield from _read_batches(file, list(column_names))

    def read_footer(self, shard: Shard) -> dict[str, Any] | None:
        """The footer of a shard; None = not committed."""
        path = self.root / shard.relative_path
        if not path.exists():
            return None
        with self._open_shard(shard) as file:
            return _parse_footer(file)

    def read_column_stats(
        self, shard: Shard, column_names: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, ColumnStats]]:
        """The footer of a committed shard and the header statistics of the columns `column_names`. Reads no data.

        A column that an older shard lacks has no values.
        """
        with self._open_shard(shard) as file:
            schema = file.schema
            places = {schema.column(i).path: i for i in range(len(schema))}
            found = dict.fromkeys(column_names, ColumnStats())
            for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
                for name in found.keys() & places.keys():
                    if (values := group.column(places[name]).statistics) is not None:
                        ends = (values.min, values.max) if values.has_min_max else (None, None)
                        found[name] += ColumnStats(values.num_values, *ends)
            return _parse_footer(file) or {}, found

    def list_shards(self, dataset: str, split: str, layer: str) -> list[Shard]:
        """The committed shards of a layer, in order; [] if there are none.

        Raises:
            SynthgenError: the folder has shards of two different numbers of shards.
        """
        folder = self.layer_folder(dataset, split, layer)
        found = []
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            if match := _SHARD_FILE_PATTERN.fullmatch(name):
                found.append(Shard(dataset, split, layer, int(match[1]), int(match[2])))
        counts = {shard.num_shards for shard in found}
        if len(counts) > 1:
            raise SynthgenError(
                f"{folder} holds shards of two plans (of {' and of '.join(str(c) for c in sorted(counts))}); "
                "move one of them away or choose another --layer"
            )
        return found

    def list_layers(self) -> list[tuple[str, str, str]]:
        """All (dataset, split, layer) of the store that hold at least one committed shard, sorted."""
        return [
            (dataset.name, split.name, layer.name)
            for dataset in (_list_folders(self.root) if self.root.exists() else ())
            for split in _list_folders(dataset)
            for layer in _list_folders(split)
            if any(_SHARD_FILE_PATTERN.fullmatch(name) for name in os.listdir(layer))
        ]

    def layer_folder(self, dataset: str, split: str, layer: str) -> Path:
        """The folder of a layer, whether it exists or not."""
        return self.root / check_name(dataset) / check_name(split) / check_name(layer)

    def layer_scratch_folder(self, dataset: str, split: str, layer: str) -> AbstractContextManager[Path]:
        """A scratch folder on the disk of the store, in a layer that exists; deleted when the block ends."""
        return scratch_folder(self.layer_folder(dataset, split, layer))

    def remove_stale_files(self, dataset: str, split: str, layer: str) -> int:
        """Delete the temporary files of killed writers in a layer and its run log; returns how many."""
        folder = self.layer_folder(dataset, split, layer)
        return remove_stale_files(folder) + remove_stale_files(folder / "_log")

    @contextlib.contextmanager
    def _open_shard(self, shard: Shard) -> Iterator[pq.ParquetFile]:
        path = self.root / shard.relative_path
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                footer = _parse_footer(file)
                if footer is None:
                    raise SynthgenError(f"{path} is Parquet but no synthgen shard; move it out of the store")
                check_version(footer["schema_version"], str(path))
                yield file
        except FileNotFoundError:
            raise SynthgenError(f"no shard {shard} in {self.root}; `synthgen status` lists what is there") from None
        except (pa.ArrowException, OSError, UnicodeDecodeError) as why:
            if describe_exhaustion(why):  # says nothing about the file
                raise
            if isinstance(why, OSError) and why.errno is not None:  # otherwise Arrow reports unreadable content
                raise SynthgenError(f"{path} cannot be read ({why.strerror}); check its disk and rights") from None
            reason = str(why).splitlines()[0].rstrip(".")
            raise SynthgenError(f"{path} is damaged ({reason}); delete it and run the job again") from None


def _list_folders(folder: Path) -> list[Path]:
    """Folders that may be a dataset, a split or a layer. Raises OSError for an unreadable folder."""
    return sorted(path for path in folder.iterdir() if _NAME_PATTERN.fullmatch(path.name) and path.is_dir())


def _read_batches(
    file: pq.ParquetFile, columns: list[str] | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    whole, count = file.metadata, 0
    rows = whole.num_rows if row_groups is None else sum(whole.row_group(group).num_rows for group in row_groups)
    # Single row groups are small: threads cost more than they save.
    for batch in file.iter_batches(ROW_GROUP_SIZE, row_groups, columns, use_threads=row_groups is None):
        count += len(batch)
        yield batch
    if count != rows:  # Arrow skips a page with a damaged header
        raise pa.ArrowInvalid(f"it has {count} rows of {rows}")


def _parse_footer(file: pq.ParquetFile) -> dict[str, Any] | None:
    text = (file.metadata.metadata or {}).get(_FOOTER_KEY)
    if text is None:
        return None
    try:
        footer = json.loads(text)
    except ValueError:
        raise pa.ArrowInvalid("its synthgen footer is no JSON") from None
    if not isinstance(footer, dict) or type(footer.get("schema_version")) is not int:
        raise pa.ArrowInvalid("its synthgen footer has no schema version")
    return footer
