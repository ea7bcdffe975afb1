"""Verifies a layer: reads every page of its shards and compares their content with their identities. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from synthgen.errors import SynthgenError
from synthgen.review.show import resolve_shards
from synthgen.storage.identity import content_digest_of, parent_shard
from synthgen.storage.parquet_file import ForeignShardError
from synthgen.storage.shard_store import LayerFiles, Shard, ShardStore
from synthgen.storage.update_record import UpdateRecord, describe_unfinished, read_update_record


class ShardState(StrEnum):
    """What is true of a shard.

    ok: its place, its pages and its rows are those that were written, from what its parent shard holds now.
    unverified: its pages are whole, but it is of an older release and does not say what it is.
    stale: it is whole, but its parent shard has other rows now, or it is not of the last update of its layer.
    damaged: its content is not what was written, or cannot be read.
    foreign: another shard, or no shard at all, has its name; or a file that is ignored.
    missing: it is not committed.
    """

    OK = "ok"
    UNVERIFIED = "unverified"
    STALE = "stale"
    DAMAGED = "damaged"
    FOREIGN = "foreign"
    MISSING = "missing"


#: More missing shards than this are counted.
MAX_LISTED_MISSING = 20

#: States that need nothing to be done.
SOUND_STATES = frozenset({ShardState.OK, ShardState.UNVERIFIED})


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """The result for one shard or file.

    Attributes:
        name: of its file.
        reason: why it is not ok, and what to do.
    """

    name: str
    state: ShardState
    reason: str = ""


def verify_layer(
    store: ShardStore, layer: str, on_shard: Callable[[int], object] = lambda _: None
) -> Iterator[ShardVerdict]:
    """The verdict on every shard of a layer, then on files that are ignored, and on shards that are missing.

    Args:
        store: where the shards lie.
        layer: DATASET/SPLIT/LAYER.
        on_shard: called after each committed shard with the number done; for progress only.

    Raises:
        SynthgenError: there is no such layer.
    """
    parts = layer.strip("/").split("/")
    files = store.scan_layer(*parts) if len(parts) == 3 else None
    if files is None or not (files.shards or files.foreign):
        resolve_shards(layer, store.root)  # says what there is
        return
    record = read_update_record(store.layer_folder(*parts))
    for shard in files.shards:
        yield ShardVerdict(shard.relative_path.rpartition("/")[2], *_examine(store, shard, record))
        on_shard(1)
    for name, what in files.foreign.items():
        yield ShardVerdict(name, ShardState.FOREIGN, f"it {what}; move it out of the store")
    if (unfinished := describe_unfinished(store.layer_folder(*parts))) is not None:
        yield ShardVerdict(layer, ShardState.STALE, unfinished)
    try:
        store.list_shards(*parts, check_update=False)
    except SynthgenError as why:  # shards of two plans
        yield ShardVerdict(layer, ShardState.FOREIGN, str(why))
        return
    yield from _list_missing(files)


def _list_missing(files: LayerFiles) -> Iterator[ShardVerdict]:
    """Of very many, their number: whoever names a file may name any number of shards."""
    if not files.shards:
        return
    first = files.shards[0]
    count = first.num_shards - len(files.shards)
    if count > MAX_LISTED_MISSING:
        yield ShardVerdict(f"{count:,} shards", ShardState.MISSING, "run the job that writes them")
        return
    there = {shard.index for shard in files.shards}
    for index in (index for index in range(first.num_shards) if index not in there):
        name = replace(first, index=index).relative_path.rpartition("/")[2]
        if name not in files.foreign:
            yield ShardVerdict(name, ShardState.MISSING, "run the job that writes it")


def format_verdicts(layer: str, verdicts: list[ShardVerdict]) -> Iterator[str]:
    """The verdicts as lines of text, then how many there are of each.

    Args:
        layer: the layer's name, DATASET/SPLIT/LAYER.
        verdicts: the verdict of each shard.
    """
    for verdict in verdicts:
        yield f"{verdict.state:<10}  {verdict.name}{f': {verdict.reason}' if verdict.reason else ''}"
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in ShardState}
    yield f"{layer}: {', '.join(f'{count:,} {state}' for state, count in counts.items() if count)}"
    if counts[ShardState.UNVERIFIED]:
        yield f"  `synthgen migrate {layer}` gives an identity to shards of older releases"


def _examine(store: ShardStore, shard: Shard, record: UpdateRecord | None) -> tuple[ShardState, str]:
    try:
        footer = store.read_footer(shard) or {}
        found = store.compute_content_digest(shard)
    except ForeignShardError as why:
        return ShardState.FOREIGN, str(why)
    except SynthgenError as why:
        return ShardState.DAMAGED, str(why)
    written = content_digest_of(footer)
    if written is None:
        return ShardState.UNVERIFIED, ""
    if found != written:
        return ShardState.DAMAGED, "its rows are not those that were written; delete it and run the job again"
    if store.is_stale(shard, footer):
        return ShardState.STALE, f"{parent_shard(shard, footer)} has other rows now; run the job again"
    if record is not None and not record.holds(shard.index, found):
        return ShardState.STALE, "its rows are not those of the last update; ingest the dataset again with --update"
    return ShardState.OK, ""
