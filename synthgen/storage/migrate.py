"""Migrates shards of older releases: adds their identity and the digest of their footer; renames them on request.

A shard is read whole, written beside itself, read again and renamed, so an interrupted migration leaves old and new
shards, and both can be read. Rows, recipe and fingerprint stay. The digest of the parent's rows is not added: nothing
tells which rows a shard was made from, and those that the parent has now would hide that the shard is stale.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthgen.errors import SynthgenError
from synthgen.records.content_digest import content_digest
from synthgen.records.parquet_schema import SCHEMA
from synthgen.records.recipe import fingerprint
from synthgen.storage.atomic import atomic_write
from synthgen.storage.identity import Shard, ShardIdentity, check_identity, parse_identity
from synthgen.storage.parquet_file import DamagedShardError, open_parquet, write_parquet
from synthgen.storage.shard_store import ROW_GROUP_SIZE, ShardStore


class _UnfitShardError(SynthgenError):
    """A shard is left as it is; the others are migrated."""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """The result of a migration.

    Attributes:
        num_migrated: shards written anew; num_unchanged: shards that were up to date.
        refused: a sentence for each shard that was left as it is.
    """

    num_migrated: int
    num_unchanged: int
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _OldShard:
    """A shard as it was read.

    Attributes:
        state: of its file; another one means that somebody has replaced it.
    """

    table: pa.Table
    footer: dict[str, Any]
    row_group_size: int
    identity: ShardIdentity
    state: tuple[int, ...]


def migrate_shards(
    store: ShardStore,
    shards: Sequence[Shard],
    *,
    is_renamed: bool = False,
    on_shard: Callable[[int], object] = lambda _: None,
) -> MigrationReport:
    """Migrate the shards of one layer.

    Args:
        store: where the shards lie; they are written again in place.
        shards: committed shards of the layer.
        is_renamed: the folder was renamed: write the new dataset, split and layer into the shards. The index stays.
        on_shard: called after each shard with the number done; for progress only.

    Raises:
        SynthgenError: a file cannot be written; a renamed layer holds shards of several layers.
    """
    if is_renamed:
        _check_one_origin(store, shards)
    num_migrated, refused = 0, []
    for shard in shards:
        path = store.root / shard.relative_path
        try:
            if (old := _read_old(path, shard, is_renamed=is_renamed)) is not None:
                _replace(path, old)
                num_migrated += 1
        except _UnfitShardError as why:
            refused.append(str(why))
        on_shard(1)
    return MigrationReport(num_migrated, len(shards) - num_migrated - len(refused), tuple(refused))


def format_migration(layer: str, report: MigrationReport) -> Iterator[str]:
    """The result for a layer as lines of text.

    Args:
        layer: the layer's name, DATASET/SPLIT/LAYER.
        report: what was done with its shards.
    """
    left = f", {len(report.refused):,} left as they are" if report.refused else ""
    yield f"{layer}: {report.num_migrated:,} shards migrated, {report.num_unchanged:,} up to date{left}"
    yield from (f"  {sentence}" for sentence in report.refused)


def _read_old(path: Path, shard: Shard, *, is_renamed: bool) -> _OldShard | None:
    """What is to be written again, from all pages of a shard; None = it is up to date.

    Args:
        path: file of the shard.
        shard: which one belongs there.
        is_renamed: see `migrate_shards`.

    Raises:
        _UnfitShardError: it is gone, damaged, or another shard.
    """
    state = _file_state(path)
    try:
        with open_parquet(path) as (file, footer):
            before, num_rows = parse_identity(footer), file.metadata.num_rows
            if before is None or not (is_renamed and _is_moved(before.shard, shard)):
                check_identity(path, shard, footer, num_rows)
                if before is not None:
                    return None
            table = file.read()
            digest = content_digest(table)
            if len(table) != num_rows or (before is not None and before.content_sha256 != digest):
                raise pa.ArrowInvalid("its rows are not those that were written")
            groups = file.metadata.num_row_groups
            group_size = (file.metadata.row_group(0).num_rows if groups else 0) or ROW_GROUP_SIZE
    except FileNotFoundError:
        raise _UnfitShardError(f"{path} is gone; run the same command again") from None
    except SynthgenError as why:
        raise _UnfitShardError(str(why)) from None
    return _OldShard(_with_own_names(table), footer, group_size, ShardIdentity(shard, num_rows, digest), state)


def _replace(path: Path, old: _OldShard) -> None:
    """Write a shard anew, compare what the disk holds, rename.

    Args:
        path: file of the shard.
        old: its content, as `_read_old` returns it.

    Raises:
        SynthgenError: it cannot be written.
        _UnfitShardError: the disk holds something else; or a job has replaced it meanwhile, and its shard stays.
    """
    with atomic_write(path) as temporary:
        footer = {**old.footer, "identity": old.identity.to_json()}
        write_parquet(temporary, old.table, footer, row_group_size=old.row_group_size)
        try:
            with open_parquet(temporary) as (file, _):
                written = content_digest(file.read())
        except DamagedShardError:
            written = ""
        if written != old.identity.content_sha256:
            raise _UnfitShardError(f"{path} cannot be written as it was read; check the disk and the memory")
        if _file_state(path) != old.state:
            raise _UnfitShardError(f"{path} was written by a job meanwhile; run the same command again")


def _check_one_origin(store: ShardStore, shards: Sequence[Shard]) -> None:
    """A folder that was renamed on purpose holds the shards of one layer, made by one recipe.

    Otherwise a shard that was copied here by mistake would become one of the layer.
    """
    origins: set[str] = set()
    recipes: set[str] = set()
    inputs: set[tuple[str, str]] = set()
    for shard in shards:
        with (
            contextlib.suppress(SynthgenError, FileNotFoundError),
            open_parquet(store.root / shard.relative_path) as (_, footer),
        ):
            recipe, made_from = _recipe_ids(footer)
            recipes.add(recipe)
            inputs.add(made_from)
            if (identity := parse_identity(footer)) is not None and identity.shard != shard:
                origins.add(str(identity.shard).rpartition("/")[0])
    # Shards of one recipe and one input have one fingerprint.
    if len(origins) > 1 or len(recipes) > 1 or len({source for source, _ in inputs}) < len(inputs):
        layer = str(shards[0]).rpartition("/")[0]
        what = f"layers ({', '.join(sorted(origins))})" if len(origins) > 1 else "recipes"
        raise SynthgenError(
            f"{layer} holds shards of several {what}; `synthgen verify {layer}` lists them, move the wrong ones away"
        )


def _recipe_ids(footer: dict[str, Any]) -> tuple[str, tuple[str, str]]:
    """The recipe without its input, and the input with the fingerprint. An update changes the input of some shards."""
    recipe, parent = footer.get("recipe", {}), footer.get("parent") or {}
    own = {key: recipe[key] for key in recipe.keys() - {"sources", "image_names"}}
    source = fingerprint({"sources": recipe.get("sources"), "parent": parent.get("fingerprint")})
    return fingerprint(own), (source, str(footer.get("fingerprint")))


def _is_moved(before: Shard, now: Shard) -> bool:
    """Whether only the folder has another name."""
    return before != now and (before.index, before.num_shards) == (now.index, now.num_shards)


def _with_own_names(table: pa.Table) -> pa.Table:
    """The table with our names of list elements, so that its bytes are those of a new commit of the same rows.

    A table with other columns is of another release, and keeps them.
    """
    same = [str(kind).replace("<element: ", "<item: ") for kind in table.schema.types] == list(map(str, SCHEMA.types))
    return table.cast(SCHEMA) if same and table.schema.names == SCHEMA.names else table


def _file_state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
