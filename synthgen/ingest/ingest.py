"""Ingest: writes the first layer of a dataset from its annotation files, sorted by image, checked, in shards."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from synthgen import __version__
from synthgen.errors import SynthgenError, job_has_started
from synthgen.formats.readers import DatasetFiles, DatasetPart, DatasetReader
from synthgen.ingest.image_table import StringColumn
from synthgen.ingest.name_matching import match_names as find_matches
from synthgen.ingest.origin_checks import HUMAN_LAYER, check_origin, refuse_machine_masks
from synthgen.ingest.sharding import ShardSlice, split_into_shards, treat_crowds_as_objects
from synthgen.ingest.source_digests import digest_sources, remember_digests, source_states
from synthgen.ingest.text_limits import check_captions
from synthgen.progress import ReportPhase
from synthgen.records.box_checks import flag_sample_boxes
from synthgen.records.box_table import BoxColumns, table_from_columns
from synthgen.records.parquet_schema import samples_from_batch
from synthgen.records.recipe import fingerprint, format_recipe
from synthgen.records.sample import UNPROMPTED_FLAGS, Sample
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

log = logging.getLogger(__name__)

#: Raise it when the same file would give other shards than before.
INGEST_VERSION = 1

#: With more category names than this, such as free-form names, a footer lists only those of its shard.
MAX_FOOTER_NAMES = 5_000

_WRITER_THREADS = 2  # writing a shard takes about twice as long as building it


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingest. Existing shards count by their footers.

    Attributes:
        shards: in the layer; committed: by this run.
        images, annotations, masks: how many; errors: images that have one.
        flags: how many annotations carry each flag.
        has_usable_box: whether a job can prompt a box, or there are masks.
    """

    shards: int
    committed: int
    images: int
    annotations: int
    masks: int
    errors: int
    flags: dict[str, int]
    has_usable_box: bool


def ingest(
    store: ShardStore,
    reader: DatasetReader,
    files: DatasetFiles,
    *,
    name: str,
    split: str,
    layer: str = "annotations",
    shard_size: int = 0,
    match_names: bool = False,
    crowds_as_objects: bool = False,
    on_progress: ReportPhase | None = None,
) -> IngestReport:
    """Write the layer `name`/`split`/`layer` from the dataset's files. Existing shards are kept.

    Args:
        store: where the shards are written.
        reader: the dataset's format.
        files: as `reader.files` returns them.
        name: the dataset's name in the store.
        split: the split's name in the store.
        layer: one of the reader's `LAYERS`.
        shard_size: images per shard; 0 = as in existing shards, else a 64th of the images, at least 16 and at
            most 1000.
        match_names: also take image files that are there under another form of their name; see `name_matching`.
        crowds_as_objects: take annotations with `iscrowd` for single objects; `files` may say so, too.
        on_progress: called with the phase, the units done and the units in all.

    Raises:
        SynthgenError: the files are not of this format, or changed meanwhile; two images have one id; the layer was
            made from other files or in another way; it is "human", and the files say that a machine drew a mask.
    """
    if layer not in reader.LAYERS:
        raise SynthgenError(f"{name} has no layer '{layer}' of its own (have: {', '.join(reader.LAYERS)})")
    files = replace(files.for_layer(layer), crowds_as_objects=files.crowds_as_objects or crowds_as_objects)
    tell = on_progress or (lambda *_: None)
    check_origin(files, layer)
    store.remove_stale_files(name, split, layer)
    log = store.layer_folder(name, split, layer) / "_log" / "source.json"
    present = store.list_shards(name, split, layer)
    if present and not shard_size:
        shard_size = (store.read_footer(present[0]) or {}).get("recipe", {}).get("shard_size", 0)
    before = source_states(files, store.root)
    recipe: dict[str, Any] = {
        "stage": "ingest",
        "dataset": name,
        "reader": getattr(reader, "__name__", "").rsplit(".", 1)[-1],
        "split": split,
        "layer": layer,
        "shard_size": shard_size,
        "version": INGEST_VERSION,
        **({"match_names": True} if match_names else {}),
        **({"crowds_as_objects": True} if files.crowds_as_objects else {}),
    }
    # The digest reads the files a second time, parallel to the parser, so mostly from the page cache.
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        digests = pool.submit(digest_sources, files, log, store.root)
        if present:
            recipe["sources"] = digests.result().by_role
            theirs = (store.read_footer(present[0]) or {}).get("recipe", {})
            if match_names and "image_names" in theirs:  # compared when the missing shards are made
                recipe["image_names"] = theirs["image_names"]
            _check_same_recipe(store, present, recipe)
            if len(present) == present[0].num_shards:
                store.create_layer(name, split, layer)
                remember_digests(log, digests.result())
                record_image_folder(store, name, split, layer, files.image_folder)
                return _build_report(store, present, committed=0)
        else:
            store.create_root()
        store.create_layer(name, split, layer)
        done, total = 0, files.total_bytes()

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            tell("reading", min(done, total), total)

        with store.layer_scratch_folder(name, split, layer) as scratch:
            batches: Iterable[DatasetPart] = reader.read(replace(files, on_bytes=on_bytes), layer)
            batches = refuse_machine_masks(batches, layer, next(iter(files.sources.values()), files.image_folder))
            if files.crowds_as_objects:
                batches = treat_crowds_as_objects(batches)
            where = ", ".join(map(str, files.sources.values()))
            matched: list[str] = []  # the digest of the names, where they are matched
            cuts = split_into_shards(
                batches,
                name,
                scratch,
                where=where,
                expected_bytes=total,
                shard_size=shard_size,
                resolve_names=partial(_resolve_names, name, files.image_folder, matched) if match_names else None,
            )
            first = next(cuts)  # arrives when everything is read
            if matched and recipe.setdefault("image_names", matched[0]) != matched[0]:
                raise SynthgenError(
                    f"--match-names finds other images in {files.image_folder} than when {name}/{split}/{layer} was "
                    f"begun; delete {store.layer_folder(name, split, layer)}, or choose another --name"
                )
            with job_has_started():
                recipe["sources"] = digests.result().by_role
                if source_states(files, store.root) != before:
                    raise SynthgenError(f"a file of {name} changed while it was read; run the same command again")
                remember_digests(log, digests.result())
                complete = reader.complete(files, layer) if layer != reader.LAYERS[0] else None
                complete = complete and _with_checked_captions(complete, where)
                record_image_folder(
                    store, name, split, layer, files.image_folder
                )  # before the last shard, which has no next one
                committed = _write_shards(store, chain([first], cuts), recipe, complete, set(present), tell)
    return _build_report(store, store.list_shards(name, split, layer), committed)


def describe_source_change(
    store: ShardStore,
    files: DatasetFiles,
    *,
    name: str,
    split: str,
    layer: str = "annotations",
    match_names: bool = False,
) -> str | None:
    """A sentence if the layer was made from other files, or by other options; None if not, or if it is not there.

    Files that are certainly unchanged are not read again; others are hashed at 1 to 2 GB per second.

    Args:
        store: where the shards lie.
        files: as `reader.files` returns them.
        name: the dataset's name in the store.
        split: the split's name in the store.
        layer: the layer to compare.
        match_names: the option of `ingest` with which the layer would be made now.
    """
    present = store.list_shards(name, split, layer)
    footer = store.read_footer(present[0]) if present else None
    recipe = (footer or {}).get("recipe", {})
    then = recipe.get("sources")
    if then is None:
        return None
    for option, is_set in (("match_names", match_names), ("crowds_as_objects", files.crowds_as_objects)):
        if is_set != recipe.get(option, False):
            return (
                f"{name}/{split}/{layer} was made {'without' if is_set else 'with'} --{option.replace('_', '-')}; "
                f"choose another --name, or delete {store.layer_folder(name, split, layer)}"
            )
    files = files.for_layer(layer)
    log = store.layer_folder(name, split, layer) / "_log" / "source.json"
    now = digest_sources(files, log, store.root)
    changed = [str(files.sources[role]) for role in files.sources if now.by_role[role] != then.get(role)]
    if not changed:
        with contextlib.suppress(SynthgenError, OSError):  # it only saves time
            remember_digests(log, now)
        return None
    roboflow = [path.absolute().parent.parent for path in map(Path, changed) if path.name.startswith("_annotations.")]
    whole = f", or give the folder {roboflow[0]}, of which all splits are read" if roboflow else ""
    return (
        f"{', '.join(changed)} is not what {name}/{split}/{layer} was made from; choose another --name{whole}, "
        f"or delete {store.layer_folder(name, split, layer)}"
    )


def _write_shards(
    store: ShardStore,
    cuts: Iterable[ShardSlice],
    recipe: dict[str, Any],
    complete: Callable[[Sample, list[bytes | None]], Sample] | None,
    present: set[Shard],
    tell: ReportPhase,
) -> int:
    """Commit the missing shards on threads while the next ones are built; returns their number."""
    committed = images = 0
    waiting: deque[Future[Path]] = deque()
    with ThreadPoolExecutor(_WRITER_THREADS, thread_name_prefix="commit") as pool:
        for one in cuts:
            shard = Shard(recipe["dataset"], recipe["split"], recipe["layer"], one.index, one.num_shards)
            images += len(one.columns.image_id)
            if shard not in present:
                content = one.columns if complete is None else _complete_samples(one, complete)
                if len(waiting) == _WRITER_THREADS:
                    waiting.popleft().result()
                waiting.append(pool.submit(store.commit, shard, content, _build_footer(one, content, recipe)))
                committed += 1
            tell("writing", images, one.total_images)
        for future in waiting:
            future.result()
    return committed


def _resolve_names(dataset: str, folder: Path, digests: list[str], names: StringColumn) -> StringColumn:
    """The names of all images, those of files under another form of their name replaced by their paths.

    Appends the digest of the result to `digests`.
    """
    found = find_matches(folder, names)
    digests.append(found.names.digest())
    if found.missing:
        log.info(
            "%s: %d of %d missing image files are there under another form of their name",
            dataset,
            found.matched,
            found.missing,
        )
    return found.names


def _with_checked_captions(
    complete: Callable[[Sample, list[bytes | None]], Sample], where: str
) -> Callable[[Sample, list[bytes | None]], Sample]:
    def complete_and_check(sample: Sample, payloads: list[bytes | None]) -> Sample:
        richer = complete(sample, payloads)
        check_captions(richer, where)
        return richer

    return complete_and_check


def _complete_samples(one: ShardSlice, complete: Callable[[Sample, list[bytes | None]], Sample]) -> list[Sample]:
    """The samples of a shard with the content of their payloads.

    A box computed from a mask is checked again, and so are the boxes of an image whose size became known.
    """
    rows = (sample for batch in table_from_columns(one.columns).to_batches() for sample in samples_from_batch(batch))
    payloads: list[bytes | None] = one.payloads or [None] * len(one.columns.id)
    ends = one.columns.offsets.tolist()
    done = []
    for sample, start, end in zip(rows, ends[:-1], ends[1:], strict=True):
        richer = complete(sample, payloads[start:end])
        is_new = (richer.height, richer.width) != (sample.height, sample.width)
        is_new = is_new or any("no_box" in a.flags for a in richer.annotations)
        done.append(flag_sample_boxes(richer) if is_new else richer)
    return done


def _build_footer(one: ShardSlice, content: BoxColumns | list[Sample], recipe: dict[str, Any]) -> dict[str, Any]:
    """The footer of a shard; with more names than `MAX_FOOTER_NAMES`, only the names it uses."""
    columns = one.columns
    names, records = one.category_names, one.category_records
    if len(names) > MAX_FOOTER_NAMES:
        names = sorted({columns.categories[code] for code in set(columns.category.tolist())} - {""})
        kept = set(names)
        records = [record for record in records if record["name"] in kept]
    if isinstance(content, BoxColumns):
        masks, flags = 0, {flag: int(there.sum()) for flag, there in columns.flags.items()}
    else:
        flat = [annotation for sample in content for annotation in sample.annotations]
        masks, flags = sum(a.segmentation is not None for a in flat), Counter(flag for a in flat for flag in a.flags)
    return {
        "synthgen": __version__,
        "recipe": recipe,
        "fingerprint": fingerprint(recipe),
        "parent": None,
        "categories": names,
        **({"category_records": records} if records else {}),
        **({"licenses": one.licenses} if one.licenses else {}),
        # Not in the recipe: nobody can check it, and the same file gives the same fingerprint as in older releases.
        **({"provenance": {"source": "file"}} if recipe["layer"] == HUMAN_LAYER else {}),
        "counts": {
            "images": len(columns.image_id),
            "annotations": len(columns.id),
            "masks": masks,
            "errors": sum(error is not None for error in columns.error),
            "flags": {flag: count for flag, count in sorted(flags.items()) if count},
        },
    }


def _build_report(store: ShardStore, shards: list[Shard], committed: int) -> IngestReport:
    counts = [footer["counts"] for shard in shards if (footer := store.read_footer(shard)) is not None]
    flags: Counter[str] = Counter()
    for of_shard in counts:
        flags.update(of_shard["flags"])
    images, annotations, masks, errors = (
        sum(of_shard[what] for of_shard in counts) for what in ("images", "annotations", "masks", "errors")
    )
    # A box may carry several of these flags. So the counts alone may not tell, and the shards are read.
    usable = annotations - sum(flags[flag] for flag in UNPROMPTED_FLAGS) > 0 or masks > 0
    return IngestReport(
        len(shards),
        committed,
        images,
        annotations,
        masks,
        errors,
        dict(sorted(flags.items())),
        usable or (annotations > 0 and _has_usable_box(store, shards)),
    )


def _has_usable_box(store: ShardStore, shards: list[Shard]) -> bool:
    samples = chain.from_iterable(map(store.read_samples, shards))
    return any(not UNPROMPTED_FLAGS.intersection(a.flags) for sample in samples for a in sample.annotations)


def _check_same_recipe(store: ShardStore, present: list[Shard], recipe: dict[str, Any]) -> None:
    for shard in present:
        footer = store.read_footer(shard) or {}
        theirs = footer.get("recipe", {})
        if footer.get("fingerprint") == fingerprint(recipe):
            continue
        differ = [key for key in {**recipe, **theirs} if recipe.get(key) != theirs.get(key)]
        if differ == ["sources"]:
            how = "from other annotation files than those there now"
        elif theirs.get("stage") != "ingest":
            how = f"by another stage ({format_recipe(theirs)})"
        else:
            how = "with " + ", ".join(
                f"{key} {theirs.get(key)} (now {recipe.get(key)})" for key in differ if key != "sources"
            )
        folder = store.layer_folder(shard.dataset, shard.split, shard.layer)
        raise SynthgenError(f"{shard} was made {how}; choose another --name, or delete {folder}")
