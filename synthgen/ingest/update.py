"""Updates of a layer whose annotation files have changed: only the shards whose rows change are written again.

Images are matched by their ids. Each existing shard keeps the range of ids that it has, so a new image belongs in the
shard whose range has its id. An image whose row is equal keeps its row, and a shard without any change keeps its file,
unless the categories or the licences changed, which its footer holds.
Annotation ids are not compared: many formats and tools number annotations anew each time. Neither is what an older
release did not store.

An update that was killed is done by the same call again: what is written already is equal to what the files give.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError, job_has_started
from synthgen.ingest.layer_source import LayerSource, ReadSlices, build_footer
from synthgen.ingest.sharding import ShardSlice
from synthgen.ingest.source_digests import remember_digests
from synthgen.records.box_table import BoxColumns, table_from_columns
from synthgen.records.content_digest import content_digest
from synthgen.records.parquet_schema import samples_from_batch, table_from_samples
from synthgen.records.sample import Sample
from synthgen.storage.atomic import remove_stale_files, scratch_folder
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.locks import file_lock, use_folder
from synthgen.storage.shard_store import Shard
from synthgen.storage.update_record import UpdateRecord, read_update_record, write_update_record

#: What the user does about a layer that cannot be updated.
_START_ANEW = "choose another --name, or delete the layer with `synthgen rm {layer}` and run the same command again"


@dataclass(frozen=True, slots=True)
class ImageChanges:
    """How the images of a shard or a layer differ from those of the annotation files.

    Attributes:
        added: in the files only; changed: with other rows; unchanged: with the same row.
        removed: in the layer only; kept: those of them that stay in the layer.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0

    def __add__(self, other: ImageChanges) -> ImageChanges:
        """The changes of two shards together."""
        return ImageChanges(
            self.added + other.added,
            self.changed + other.changed,
            self.removed + other.removed,
            self.unchanged + other.unchanged,
            self.kept + other.kept,
        )

    @property
    def is_nothing(self) -> bool:
        """Whether all rows stay."""
        return not (self.added or self.changed or self.removed - self.kept)

    def __str__(self) -> str:
        kept = f" ({self.kept:,} of them stay)" if self.kept else ""
        return (
            f"{self.added:,} images added, {self.changed:,} changed, {self.removed:,} removed{kept}, "
            f"{self.unchanged:,} unchanged"
        )


@dataclass(frozen=True, slots=True)
class LayerChanges:
    """The changes of a layer.

    Attributes:
        total: of all images.
        by_shard: of the shards that are written again, by their index.
        num_shards: shards of the layer.
    """

    total: ImageChanges
    by_shard: dict[int, ImageChanges]
    num_shards: int


@dataclass(slots=True)
class _Tally:
    """The changes so far, and the digest of each shard after the update."""

    total: ImageChanges = ImageChanges()
    by_shard: dict[int, ImageChanges] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)


def needs_update(
    source: LayerSource, present: Sequence[Shard], sources: dict[str, str], *, removed: str | None = None
) -> bool:
    """Whether a layer that is there holds other rows than its files now, or may do so.

    Args:
        source: the layer and its files.
        present: its committed shards.
        sources: the digests of its files now, by role.
        removed: what an update would do with removed images; see `UpdateRecord`. None = as the last one did.

    Raises:
        SynthgenError: the record of its updates, or a shard, is damaged.
    """
    record = read_update_record(source.folder)
    if record is None:
        footers = (source.store.read_footer(shard) or {} for shard in present)
        return any(footer.get("recipe", {}).get("sources") != sources for footer in footers)
    if removed is not None and record.removed != removed:
        return True
    if record.digests is None or dict(record.sources) != sources or len(present) != len(record.digests):
        return True
    return not all(record.holds(shard.index, source.store.read_content_digest(shard)) for shard in present)


def preview_update(source: LayerSource, shard_size: int, *, removed: str = "drop") -> LayerChanges:
    """Read the files and count what an update would change. Writes nothing to the store.

    Args:
        source: the layer and its files.
        shard_size: as in the recipe of the layer's shards.
        removed: see `UpdateRecord`.

    Raises:
        SynthgenError: the files are not of their format, or the layer cannot be updated.
    """
    plan = _plan(source, read_update_record(source.folder), {}, removed)
    tally = _Tally()
    place = Path(tempfile.gettempdir())
    remove_stale_files(place)
    with scratch_folder(place, remedy="set $TMPDIR to another folder") as scratch:
        read = source.read(scratch, shard_size=shard_size, first_ids=plan.first_ids)
        for _ in _merge_slices(source, read, plan.removed, tally):
            pass
    return LayerChanges(tally.total, tally.by_shard, len(plan.first_ids) + 1)


def update_layer(source: LayerSource, recipe: dict[str, Any], *, removed: str = "drop") -> LayerChanges | None:
    """Write the shards of a layer whose rows differ from those of its files now. Another update is waited for.

    Args:
        source: the layer and its files.
        recipe: of the shards that are written, without the digests of the files.
        removed: see `UpdateRecord`.

    Returns:
        The changes; None = another process has made them meanwhile.

    Raises:
        SynthgenError: the files are not of their format, or changed meanwhile; the layer cannot be updated.
    """
    store, place = source.store, (source.name, source.split, source.layer)
    store.create_layer(*place)
    lock = file_lock(source.folder / "_log" / "update.lock", remedy="choose another --store")
    with use_folder(source.folder), lock:
        before, digests = source.states(), source.digest()
        if not needs_update(source, source.present_shards(), digests.by_role, removed=removed):
            return None
        plan = _plan(source, read_update_record(source.folder), digests.by_role, removed)
        tally = _Tally()
        with store.layer_scratch_folder(*place) as scratch:
            read = source.read(scratch, shard_size=recipe["shard_size"], first_ids=plan.first_ids)
            source.check_unchanged(before)
            plan = replace(plan, image_names=read.image_names)
            names = {"image_names": read.image_names} if read.image_names is not None else {}
            recipe = {**recipe, "sources": digests.by_role, **names}
            with job_has_started():
                write_update_record(source.folder, plan)
                for shard, one, rows in _merge_slices(source, read, plan.removed, tally):
                    if rows is not None:
                        store.commit(shard, rows, build_footer(one, rows, recipe))
                    tally.digests.append(store.read_content_digest(shard))
                remember_digests(source.log, digests)
                record_image_folder(store, *place, source.files.image_folder)
                write_update_record(source.folder, replace(plan, digests=tuple(tally.digests)))
    return LayerChanges(tally.total, tally.by_shard, len(plan.first_ids) + 1)


def merge_rows(old: Sequence[Sample], new: Sequence[Sample], removed: str) -> tuple[list[Sample], ImageChanges]:
    """The rows of a shard after an update, and what changed.

    Args:
        old: its rows now, in the order of their image ids.
        new: the rows that the files give, in the same order.
        removed: see `UpdateRecord`.
    """
    before, now = {sample.image_id: sample for sample in old}, {sample.image_id for sample in new}
    rows, added, unchanged = [], 0, 0
    for sample in new:
        known = before.get(sample.image_id)
        added += known is None
        stays = known is not None and _is_same(known, sample)
        unchanged += stays
        rows.append(known if known is not None and stays else sample)
    gone = [sample for sample in old if sample.image_id not in now]
    kept = gone if removed == "keep" else []
    changes = ImageChanges(added, len(new) - added - unchanged, len(gone), unchanged, len(kept))
    return list(merge(rows, kept, key=lambda sample: sample.image_id)), changes


def _is_same(old: Sample, new: Sample) -> bool:
    """Whether two rows are equal but for the ids of annotations, and for what older releases did not store."""
    old, new = _comparable(old, old), _comparable(new, old)
    return old == new or repr(old) == repr(new)  # a box may hold NaN, which is not equal to itself


def _comparable(sample: Sample, old: Sample) -> Sample:
    """The sample without the ids of annotations, and without the members that the `old` row lacks."""
    lacks: dict[str, Any] = {
        name: None for name in ("category_id", "area") if all(getattr(a, name) is None for a in old.annotations)
    }
    plain = tuple(replace(annotation, id=0, **lacks) for annotation in sample.annotations)
    return replace(sample, annotations=plain, license_id=None if old.license_id is None else sample.license_id)


def _plan(source: LayerSource, record: UpdateRecord | None, sources: dict[str, str], removed: str) -> UpdateRecord:
    """The record of an update that begins or goes on.

    Args:
        source: the layer and its files.
        record: the record of earlier updates.
        sources: the digests of the files now, by role.
        removed: what the user says about removed images.

    Raises:
        SynthgenError: the layer is not complete, or an update with another `removed` was begun.
    """
    if record is not None:
        if record.digests is None and record.removed != removed:
            raise SynthgenError(
                f"an update of {source} was begun with --removed {record.removed}; finish it with the same option first"
            )
        return replace(record, sources=sources, removed=removed, digests=None)
    present = source.present_shards()
    if len(present) < present[0].num_shards:
        raise SynthgenError(
            f"{source} has {len(present)} of {present[0].num_shards} shards, and they are of an earlier version of "
            f"{source.where}; {_START_ANEW.format(layer=source)}"
        )
    first_ids: list[int] = []
    for shard in present[1:]:
        least = source.store.read_column_stats(shard, ["image_id"])[1]["image_id"].minimum
        if least is None:  # the shard is empty, and the record of the update that emptied it is gone
            least = first_ids[-1] if first_ids else -(2**63)
        first_ids.append(least)
    return UpdateRecord(sources, None, removed, tuple(first_ids))


def _merge_slices(
    source: LayerSource, read: ReadSlices, removed: str, tally: _Tally
) -> Iterator[tuple[Shard, ShardSlice, list[Sample] | None]]:
    """Each shard with its rows after the update; None = its file stays. Counts the changes in `tally`."""
    store, present, images = source.store, set(source.present_shards()), 0
    for one in read.slices:
        shard = Shard(source.name, source.split, source.layer, one.index, one.num_shards)
        content = read.content(one)
        table = table_from_columns(content) if isinstance(content, BoxColumns) else table_from_samples(content)
        rows: list[Sample] | None = None
        if shard in present and store.read_content_digest(shard) == content_digest(table):
            changes = ImageChanges(unchanged=len(table))
            if not _has_same_names(source, shard, one, content):
                rows = list(store.read_samples(shard))
                tally.by_shard[one.index] = changes
        else:
            old = list(store.read_samples(shard)) if shard in present else []
            new = [sample for batch in table.to_batches() for sample in samples_from_batch(batch)]
            rows, changes = merge_rows(old, new, removed)
            if changes.is_nothing and shard in present and _has_same_names(source, shard, one, rows):
                rows = None
            else:
                tally.by_shard[one.index] = changes
        tally.total += changes
        yield shard, one, rows
        images += len(one.columns.image_id)
        source.on_progress("writing", images, one.total_images)


def _has_same_names(source: LayerSource, shard: Shard, one: ShardSlice, content: BoxColumns | list[Sample]) -> bool:
    """Whether the footer of a committed shard says what its rows need from the files now: categories and licences.

    Args:
        source: the layer and its files.
        shard: a committed shard of the layer.
        one: what the files give for it.
        content: its rows after the update.
    """
    have, now = source.store.read_footer(shard) or {}, build_footer(one, content, {"layer": source.layer})
    return all(have.get(name) == now.get(name) for name in ("categories", "category_records", "licenses"))
