"""Checks a manifest against the store: layers, images, exclude lists, leakage. Reports all errors at once.

The trainer starts with this check; `synthgen check` runs only this check.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from synthgen import plugins
from synthgen.dataloading.command_hints import describe_missing_layer
from synthgen.dataloading.layer_stats import LayerStats, estimate_kept_shares, load_layer_stats
from synthgen.dataloading.leakage import checks
from synthgen.dataloading.leakage.image_keys import KeyScan
from synthgen.dataloading.learnable_counts import LearnableCounts, count_learnable
from synthgen.dataloading.manifest import Manifest, load_draft
from synthgen.dataloading.manifest_errors import Location, ManifestIssue
from synthgen.dataloading.padding_estimate import PaddingEstimate, estimate_padding
from synthgen.dataloading.source_checks import check_eval_source, check_flip, check_learnable, check_train_source
from synthgen.dataloading.source_config import TASKS_PACKAGE, UNKNOWN_TASK, EvalSource, LayerSource, TrainSource
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError, find_image
from synthgen.progress import NoProgress, OpenProgress
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import ShardStore

#: Number of a layer's first images to look for; if all are missing, number of further images.
_FIRST_PROBE, _SECOND_PROBE = 8, 2_000


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The result for one source.

    Attributes:
        draw_probability: share of the draws; None = an evaluated layer.
        stats: statistics of the shards that it takes; learnable: what its task can learn of them.
        num_excluded: its images that a list names.
        kept_shares: estimated shares of "mask"s and "caption"s that pass its filters; {} = it has no filters.
        image_folder: the folder of its images.
    """

    source: LayerSource
    draw_probability: float | None
    stats: LayerStats
    learnable: LearnableCounts
    num_excluded: int
    kept_shares: dict[str, float]
    image_folder: Path


@dataclass(frozen=True, slots=True)
class ManifestReport:
    """The result for a manifest without errors.

    Attributes:
        sources: the training sources, then the evaluated layers, in the manifest's order.
        warnings: one sentence each.
        excluded_keys: every key of the exclude lists; readers skip them.
        num_unique_images: training images, each counted once even if several sources have it.
        padding: how much of the batches is padding; None = the manifest does not train the network of `model`.
    """

    manifest: Manifest
    sources: tuple[SourceReport, ...]
    warnings: tuple[str, ...]
    excluded_keys: frozenset[str]
    num_unique_images: int
    padding: PaddingEstimate | None = None


@dataclass(slots=True)
class _CheckState:
    """The results so far."""

    errors: list[ManifestIssue] = field(default_factory=list)
    warnings: list[ManifestIssue] = field(default_factory=list)
    stats: dict[Location, LayerStats] = field(default_factory=dict)
    learnable: dict[Location, LearnableCounts] = field(default_factory=dict)
    kept_shares: dict[Location, dict[str, float]] = field(default_factory=dict)
    image_folders: dict[Location, Path] = field(default_factory=dict)


def check_manifest(
    path: Path, *, store: Path | None = None, open_progress: OpenProgress = NoProgress
) -> ManifestReport:
    """Find all errors of a manifest without training.

    Args:
        path: a YAML file.
        store: root of the shards, instead of the manifest's.
        open_progress: opens a progress bar.

    Raises:
        SynthgenError: all errors, one per line, with location and fix.
    """
    given = load_draft(path, store=store)
    found = _CheckState()
    sources: dict[Location, TrainSource] = {("mixture", i): source for i, source in given.mixture.items()}
    evaluated: dict[Location, EvalSource] = {("eval", i): source for i, source in given.eval.items()}
    shard_store = ShardStore(given.store) if given.store is not None else None
    known = ["/".join(layer) for layer in shard_store.list_layers()] if shard_store is not None else []
    if shard_store is not None and not known and (sources or evaluated):
        remedy = "name the folder of the shards with --store or SYNTHGEN_STORE, or make some: `synthgen masks --help`"
        found.errors.append(ManifestIssue(("store",), f"no shards in {shard_store.root}; {remedy}"))
    lists, wrong = checks.read_exclude_lists(given)
    found.errors += wrong
    scanned: dict[Location, KeyScan] = {}
    if shard_store is not None and known:
        every = {**evaluated, **sources}
        with open_progress("reading headers", len(every), "layers") as done:
            for at, source in every.items():
                _check_source(shard_store, at, source, known, found)
                done.advance(1)
        shards = {at: held.shards for at, held in found.stats.items()}
        with open_progress("comparing keys", sum(map(len, set(shards.values()))), "shards") as done:
            try:
                scanned = checks.scan_sources(
                    shard_store, given, shards, found.image_folders, lists, partial(done.advance, 1)
                )
            except SynthgenError as why:  # a shard with a readable header and unreadable keys
                found.errors.append(ManifestIssue(("store",), str(why)))
        for remark, is_mistake in checks.report_leakage(given, lists, scanned):
            (found.errors if is_mistake else found.warnings).append(remark)
    if found.errors or given.manifest is None:
        raise given.to_exception(found.errors)
    if given.manifest.augment.flip:
        for at, source in sources.items():
            remarks = check_flip(found.stats[at], plugins.load_plugin(TASKS_PACKAGE, source.task).METRIC)
            found.warnings += [ManifestIssue((*at, remark.key), remark.message) for remark in remarks]
    ratios = sum(source.ratio for source in sources.values())
    rows = [
        SourceReport(
            source,
            source.ratio / ratios if isinstance(source, TrainSource) else None,
            found.stats[at],
            found.learnable[at],
            scanned[at].num_excluded if at in scanned else 0,
            found.kept_shares.get(at, {}),
            found.image_folders[at],
        )
        for at, source in {**sources, **evaluated}.items()
    ]
    excluded = frozenset().union(*lists.values())
    photographs = np.concatenate([np.zeros(0, np.int64), *(np.array(one.image_hashes) for one in scanned.values())])
    return ManifestReport(
        given.manifest,
        tuple(rows),
        tuple(map(str, found.warnings)),
        excluded,
        num_unique_images=len(np.unique(photographs)),
        padding=_estimate_padding(shard_store, given.manifest, [found.stats[at] for at in sources]),
    )


def _estimate_padding(
    store: ShardStore | None, manifest: Manifest, stats: Sequence[LayerStats]
) -> PaddingEstimate | None:
    """See `estimate_padding`; from the images of the first row group of each source, whose `stats` are given."""
    if store is None or not stats or manifest.captioner is not None or manifest.box_segmenter is not None:
        return None
    sizes = []
    for held in stats:
        first = next(store.read_columns(held.shards[0], ["height", "width"]), None)
        columns = [first.column(name).to_pylist() for name in ("height", "width")] if first is not None else [[], []]
        sizes.append([(height or 0, width or 0) for height, width in zip(*columns, strict=True)])
    return estimate_padding(manifest, sizes)


def _check_source(
    store: ShardStore, location: Location, source: LayerSource, known_layers: list[str], state: _CheckState
) -> None:
    """Read the headers of a source's shards, find its images, and check both against its task."""
    if source.shards not in known_layers:
        state.errors.append(ManifestIssue((*location, "shards"), describe_missing_layer(store, source, known_layers)))
        return
    try:
        held = load_layer_stats(store, source)
    except SynthgenError as why:
        state.errors.append(ManifestIssue((*location, "shards"), str(why)))
        return
    if not held.shards:
        what = "none of the shards that it takes is there yet; let its job go on, or raise share"
        state.errors.append(ManifestIssue((*location, "shards"), what))
        return
    if held.num_missing_shards:
        total = held.num_missing_shards + len(held.shards)
        what = (
            f"{held.num_missing_shards:,} of {total:,} shards of {source.shards} are missing, and so are their images"
        )
        if isinstance(source, TrainSource):
            state.warnings.append(ManifestIssue((*location, "shards"), what))
        else:  # without them, leakage cannot be excluded
            state.errors.append(ManifestIssue((*location, "shards"), f"{what}; let its job go on"))
    if held.num_stale_shards:
        what = (
            f"{held.num_stale_shards:,} of {len(held.shards):,} shards of {source.shards} are stale: the layer that "
            "they were made from has changed; run their job again"
        )
        state.warnings.append(ManifestIssue((*location, "shards"), what))
    if errors := held.count("errors"):
        what = f"{errors:,} of {held.count('images'):,} images of {source.shards} have an error, and are passed over"
        state.warnings.append(ManifestIssue((*location, "shards"), what))
    state.stats[location] = held
    inside = f"{source.parts[0]}/{source.parts[1]}/"
    siblings = [name for name in known_layers if name.startswith(inside) and name != source.shards]
    if source.task != UNKNOWN_TASK:
        metric = plugins.load_plugin(TASKS_PACKAGE, source.task).METRIC
        judge = (
            check_train_source(store, source, held, metric, siblings)
            if isinstance(source, TrainSource)
            else check_eval_source(source, held, metric, siblings)
        )
        learnable = state.learnable[location] = count_learnable(store, held, metric)
        for remark in chain(judge, check_learnable(source, held, learnable, metric)):
            (state.errors if remark.is_error else state.warnings).append(
                ManifestIssue((*location, remark.key), remark.message)
            )
    try:
        if isinstance(source, TrainSource):
            state.kept_shares[location] = estimate_kept_shares(store, source, held)
        state.image_folders[location], lost = _locate_images(store, source, held)
        if lost:
            folder = state.image_folders[location]
            what = f"{len(lost)} of the first {_FIRST_PROBE} images are not in {folder}, e.g. {lost[0]}"
            state.warnings.append(ManifestIssue((*location, "images"), what))
    except SynthgenError as why:
        state.errors.append(ManifestIssue((*location, "images"), str(why)))


def _locate_images(store: ShardStore, source: LayerSource, stats: LayerStats) -> tuple[Path, list[str]]:
    """The image folder of a source, and which of its first images are missing there.

    Args:
        store: where the layer is.
        source: names the layer, and perhaps its image folder.
        stats: of the layer's shards.

    Raises:
        SynthgenError: the folder is unknown or missing, or it has none of the first images.
    """
    dataset, split, layer = source.parts
    folder = source.images or find_image_folder(store, dataset, split, layer)
    if folder is None:
        raise SynthgenError(f"where are the images of {dataset}/{split}? Add images: FOLDER")
    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib's raises where a name is too long
        raise SynthgenError(f"no folder {folder}; name that of the images of {dataset}/{split}")
    batches = (batch for shard in stats.shards for batch in store.read_columns(shard, ["file_name"]))
    names = islice(
        (name for batch in batches for name in batch.column("file_name").to_pylist()), _FIRST_PROBE + _SECOND_PROBE
    )
    first = list(islice(names, _FIRST_PROBE))
    lost = [name for name in first if not _image_exists(folder, name)]
    if len(lost) < len(first):
        return folder, lost
    more = list(names)
    if any(_image_exists(folder, name) for name in more):
        return folder, lost
    total = len(first) + len(more)
    raise SynthgenError(f"{folder} has none of the first {total:,} images of {source.shards}, e.g. {first[0]}")


def _image_exists(folder: Path, name: str) -> bool:
    try:
        find_image(folder, name)
    except ImageError:
        return False
    return True
