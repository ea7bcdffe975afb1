"""Shards and their store. A shard is committed when its final name exists; there is no other record of it.

A layer is a folder below the root of the store: `<dataset>/<split>/<layer>/00042-of-01743.parquet`. A layer is complete
in itself: it repeats its input, so no reader joins. Its folder `_log/` holds the logs of the runs. They are for people;
the store does not depend on them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import SynthgenError
from synthgen.records.box_table import BoxColumns, table_from_columns
from synthgen.records.content_digest import ContentDigest, content_digest
from synthgen.records.parquet_schema import SCHEMA_VERSION, samples_from_batch, table_from_samples
from synthgen.records.sample import Sample
from synthgen.storage.atomic import atomic_write, remove_stale_files, scratch_folder
from synthgen.storage.disk import check_folder_exists, create_folder, gone_error
from synthgen.storage.identity import (
    NAME_PATTERN,
    Shard,
    ShardIdentity,
    check_identity,
    check_name,
    content_digest_of,
    is_stale,
    parent_digest,
    parent_shard,
)
from synthgen.storage.parquet_file import ForeignShardError, describe_irregular, open_parquet, write_parquet
from synthgen.storage.update_record import describe_unfinished

__all__ = ["ColumnStats", "LayerFiles", "Shard", "ShardStore", "check_name"]

#: Images in a row group: the unit in which readers shuffle and memory is counted.
ROW_GROUP_SIZE = 64

#: The same for boxes only. They are small; with 64, half of the writing time would be overhead.
BOX_ROW_GROUP_SIZE = 256

_SHARD_FILE_PATTERN = re.compile(r"([0-9]{5,9})-of-([0-9]{5,9})\.parquet")


class LayerFiles(NamedTuple):
    """The files of a layer.

    Attributes:
        shards: the committed ones, in order.
        foreign: other entries whose name ends as those of shards do -> what is wrong with them. Readers ignore them.
    """

    shards: list[Shard]
    foreign: dict[str, str]


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

        Args:
            dataset: name of the dataset, the first folder below the root.
            split: name of the split, the second folder.
            layer: name of the layer, the third folder.

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
            shard: names the file.
            samples: rows, in the order of the file.
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
        self.check_place(shard)
        identity = ShardIdentity(shard, len(table), content_digest(table))
        footer = {**footer, "schema_version": SCHEMA_VERSION, "identity": identity.to_json()}
        group = BOX_ROW_GROUP_SIZE if isinstance(samples, BoxColumns) else ROW_GROUP_SIZE
        if final.parent not in self._devices:
            self._create_for_commit(final.parent)
        self._check_layer(final.parent)
        with atomic_write(final) as temporary:
            write_parquet(temporary, table, footer, row_group_size=group)
        return final

    def read_samples(self, shard: Shard, row_groups: Sequence[int] | None = None) -> Iterator[Sample]:
        """The samples of a committed shard, in order, a row group in memory at a time.

        Args:
            shard: a committed one.
            row_groups: only of these row groups, in this order; None = of all.

        Raises:
            SynthgenError: the shard has fewer row groups than asked for, because it was replaced meanwhile.
        """
        with self._open_shard(shard) as (file, _):
            if row_groups is not None and max(row_groups, default=-1) >= file.metadata.num_row_groups:
                raise SynthgenError(f"{shard} is another one than a moment ago; run the same command again")
            for batch in _read_batches(file, row_groups=row_groups):
                yield from samples_from_batch(batch)

    def read_row_group_sizes(self, shard: Shard) -> tuple[dict[str, Any], list[int]]:
        """The footer of a committed shard and the number of rows of each row group. Reads no data."""
        with self._open_shard(shard) as (file, footer):
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            return footer, [group.num_rows for group in groups]

    def read_columns(self, shard: Shard, column_names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of a committed shard, one row group in memory at a time. Reads no other column.

        Names are those of the schema, nested ones with dots: "image_key", "annotations.list.element.category".

        Args:
            shard: a committed one.
            column_names: columns to read; the name of a struct means all its leaves.

        Raises:
            ValueError: the shard has no such column (pyarrow would give batches without it).
        """
        with self._open_shard(shard) as (file, _):
            paths = [file.schema.column(i).path for i in range(len(file.schema))]
            if unknown := [n for n in column_names if not any(p == n or p.startswith(f"{n}.") for p in paths)]:
                raise ValueError(f"{shard} has no column {unknown[0]}")
            yield from _read_batches(file, list(column_names))

    def read_footer(self, shard: Shard) -> dict[str, Any] | None:
        """The footer of a shard; None = not committed."""
        if not os.path.lexists(self.root / shard.relative_path):
            return None
        with self._open_shard(shard) as (_, footer):
            return footer

    def read_content_digest(self, shard: Shard) -> str:
        """The digest of the rows of a committed shard: that of its footer, of an older shard that of its pages."""
        return content_digest_of(self.read_footer(shard) or {}) or self.compute_content_digest(shard)

    def is_stale(self, shard: Shard, footer: Mapping[str, Any]) -> bool:
        """Whether a committed shard was made from other rows than those that its parent shard says it has now.

        Args:
            shard: a committed one.
            footer: our part of its footer, as JSON.
        """
        parent = parent_shard(shard, footer)
        if parent is None or parent_digest(footer) is None:
            return False
        try:
            return is_stale(footer, content_digest_of(self.read_footer(parent) or {}))
        except SynthgenError:  # of a damaged parent nothing is known
            return False

    def compute_content_digest(self, shard: Shard) -> str:
        """The digest of the rows of a committed shard, from all its pages.

        Args:
            shard: a committed one.

        Raises:
            DamagedShardError: a page is damaged.
        """
        digest = ContentDigest()
        with self._open_shard(shard) as (file, _):
            for batch in _read_batches(file):
                digest.update(batch)
        return digest.hexdigest()

    def read_column_stats(
        self, shard: Shard, column_names: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, ColumnStats]]:
        """The footer of a committed shard and the header statistics of the columns `column_names`. Reads no data.

        A column that an older shard lacks has no values.
        """
        with self._open_shard(shard) as (file, footer):
            schema = file.schema
            places = {schema.column(i).path: i for i in range(len(schema))}
            found = dict.fromkeys(column_names, ColumnStats())
            for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
                for name in found.keys() & places.keys():
                    if (values := group.column(places[name]).statistics) is not None:
                        ends = (values.min, values.max) if values.has_min_max else (None, None)
                        found[name] += ColumnStats(values.num_values, *ends)
            return footer, found

    def list_shards(self, dataset: str, split: str, layer: str, *, check_update: bool = True) -> list[Shard]:
        """The committed shards of a layer, in order; [] if there are none.

        Args:
            dataset: name of the dataset.
            split: name of the split.
            layer: name of the layer.
            check_update: refuse a layer that an update left unfinished.

        Raises:
            SynthgenError: the folder has shards of two different numbers of shards, or of two versions of their source.
        """
        if check_update and (unfinished := describe_unfinished(self.layer_folder(dataset, split, layer))) is not None:
            raise SynthgenError(unfinished)
        found = self.scan_layer(dataset, split, layer).shards
        counts = {shard.num_shards for shard in found}
        if len(counts) > 1:
            raise SynthgenError(
                f"{self.layer_folder(dataset, split, layer)} holds shards of two plans "
                f"(of {' and of '.join(str(c) for c in sorted(counts))}); "
                "move one of them away or choose another --layer"
            )
        return found

    def scan_layer(self, dataset: str, split: str, layer: str) -> LayerFiles:
        """The files of the layer `layer` of a `dataset` and `split`, of all plans. Opens none."""
        found = LayerFiles([], {})
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self.layer_folder(dataset, split, layer)) as entries,
        ):
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or not entry.name.endswith(".parquet"):
                    continue
                match = _SHARD_FILE_PATTERN.fullmatch(entry.name)
                shard = Shard(dataset, split, layer, int(match[1]), int(match[2])) if match else None
                if shard is None or not shard.relative_path.endswith(f"/{entry.name}"):
                    found.foreign[entry.name] = "is not named as a shard"
                elif shard.index >= shard.num_shards:
                    found.foreign[entry.name] = f"is none of {shard.num_shards} shards, which count from 0"
                elif not _is_file(entry):
                    found.foreign[entry.name] = describe_irregular(Path(entry.path)) or "cannot be read"
                else:
                    found.shards.append(shard)
        return found

    def list_layers(self, *, with_foreign: bool = False) -> list[tuple[str, str, str]]:
        """All (dataset, split, layer) of the store that hold at least one committed shard, sorted.

        Args:
            with_foreign: also those that only hold foreign files.
        """
        return [
            place
            for dataset in (_list_folders(self.root) if self.root.exists() else ())
            for split in _list_folders(dataset)
            for layer in _list_folders(split)
            for place in [(dataset.name, split.name, layer.name)]
            for files in [self.scan_layer(*place)]
            if files.shards or (with_foreign and files.foreign)
        ]

    def check_place(self, shard: Shard) -> None:
        """Check that nothing but a file may be replaced by a shard.

        Args:
            shard: one to be written.

        Raises:
            ForeignShardError: something else has its name.
        """
        path = self.root / shard.relative_path
        what = describe_irregular(path)
        if what is not None and not path.is_dir():  # the rename refuses a folder
            raise ForeignShardError(f"cannot write {path}: it {what}; move it out of the store")

    def layer_folder(self, dataset: str, split: str, layer: str) -> Path:
        """The folder of a layer, whether it exists or not.

        Args:
            dataset: name of the dataset, the first folder below the root.
            split: name of the split, the second folder.
            layer: name of the layer, the third folder.
        """
        return self.root / check_name(dataset) / check_name(split) / check_name(layer)

    def layer_scratch_folder(self, dataset: str, split: str, layer: str) -> AbstractContextManager[Path]:
        """A scratch folder in the existing `layer` of a `dataset` and `split`; deleted when the block ends."""
        return scratch_folder(self.layer_folder(dataset, split, layer))

    def remove_stale_files(self, dataset: str, split: str, layer: str) -> int:
        """Delete temporary files of killed writers in `layer` of `dataset` and `split` and its log; return how many."""
        folder = self.layer_folder(dataset, split, layer)
        return remove_stale_files(folder) + remove_stale_files(folder / "_log")

    @contextlib.contextmanager
    def _open_shard(self, shard: Shard) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
        path = self.root / shard.relative_path
        try:
            with open_parquet(path) as (file, footer):
                check_identity(path, shard, footer, file.metadata.num_rows)
                yield file, footer
        except FileNotFoundError:
            raise SynthgenError(f"no shard {shard} in {self.root}; `synthgen status` lists what is there") from None


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, a folder without rights
        return False


def _list_folders(folder: Path) -> list[Path]:
    """Folders that may be a dataset, a split or a layer. Raises OSError for an unreadable folder."""
    return sorted(path for path in folder.iterdir() if NAME_PATTERN.fullmatch(path.name) and path.is_dir())


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
