"""Reports the content of a store: layers, how complete they are, their recipes and their failures."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.records.recipe import format_recipe
from synthgen.records.sample import ANNOTATION_FLAGS
from synthgen.storage.identity import content_digest_of, is_stale, parent_shard
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.storage.update_record import UpdateRecord, describe_unfinished, read_update_record

#: A status file younger than this many seconds belongs to an active run.
ACTIVE_STATUS_SECONDS = 300.0

_SHARD_PATTERN = re.compile(r"\d{5,9}-of-\d{5,9}")

#: Flag of an object whose mask or captions failed -> what it lacks.
FAILURE_FLAGS = {
    "empty_mask": "mask",
    "segmenter_failed": "mask",
    "no_imported_mask": "mask",
    "no_caption": "caption",
    "captioner_failed": "caption",
}


@dataclass
class LayerStatus:
    """The footers of a layer, summed.

    Attributes:
        committed_shards: committed and readable; num_shards: of how many.
        recipes: recipe in words -> shards made by it.
        counts: images, annotations, masks, errors; flags: annotations by flag.
        failed_images: how many images the layer's stage could not process.
        shards_with_failures: shards with an image or an object that `failures` lists.
        damaged: a sentence for each shard that cannot be used, and for the layer as a whole.
        foreign: files that are ignored, though they are named as if they were shards -> what is wrong.
        unfinished: a sentence if an update of the layer has not finished, or its shards are not those of its last one.
        num_stale: shards made from other rows than those of their parent shards now; num_unverified: without identity.
    """

    name: str
    committed_shards: int = 0
    num_shards: int = 0
    size_bytes: int = 0
    recipes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    failed_images: int = 0
    shards_with_failures: list[Shard] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)
    unfinished: str | None = None
    num_stale: int = 0
    num_unverified: int = 0


def summarize_layers(store: Path) -> list[LayerStatus]:
    """Every layer of a store, in order of name. What is damaged in one does not hide the others."""
    shard_store = ShardStore(store)
    layers = []
    digests: dict[Shard, str | None] = {}
    footers: list[tuple[LayerStatus, Shard, dict[str, Any]]] = []  # of what is needed to tell stale shards
    for place in shard_store.list_layers(with_foreign=True):
        files = shard_store.scan_layer(*place)
        found = LayerStatus("/".join(place), foreign=files.foreign)
        found.num_shards = max((shard.num_shards for shard in files.shards), default=0)
        layers.append(found)
        record: UpdateRecord | None = None
        try:
            shard_store.list_shards(*place, check_update=False)
            record = read_update_record(store / found.name)
            found.unfinished = describe_unfinished(store / found.name)
        except SynthgenError as why:  # shards of two plans, a damaged record
            found.damaged.append(str(why))
        for shard in files.shards:
            try:
                footer = shard_store.read_footer(shard) or {}
            except SynthgenError as why:
                found.damaged.append(str(why))
                continue
            _add_footer(found, shard, footer)
            found.size_bytes += (store / shard.relative_path).stat().st_size
            digests[shard] = digest = content_digest_of(footer)
            if record is not None and digest is not None and not record.holds(shard.index, digest):
                found.unfinished = f"{shard} is not of its last update; ingest the dataset again with --update"
            found.num_unverified += digests[shard] is None
            footers.append((found, shard, {"parent": footer.get("parent")}))
    for found, shard, footer in footers:
        parent = parent_shard(shard, footer)
        found.num_stale += parent is not None and is_stale(footer, digests.get(parent))
    return layers


def _add_footer(found: LayerStatus, shard: Shard, footer: dict[str, Any]) -> None:
    found.committed_shards += 1
    found.recipes[format_recipe(footer.get("recipe", {}))] += 1
    counts = footer.get("counts", {})
    found.counts.update({key: n for key, n in counts.items() if isinstance(n, int)})
    found.flags.update(counts.get("flags", {}))
    found.failed_images += len(footer.get("failed", []))
    if counts.get("errors") or FAILURE_FLAGS.keys() & counts.get("flags", {}).keys():
        found.shards_with_failures.append(shard)


def format_status(store: Path, *, failures: bool = False, layers: Sequence[LayerStatus] | None = None) -> Iterator[str]:
    """The store as lines of text; with `failures`, every failed object, image and shard.

    Args:
        store: root folder of the shards.
        failures: also list every failed object, image and shard.
        layers: those of `summarize_layers`; None = look now.
    """
    seen = set()
    for layer in summarize_layers(store) if layers is None else layers:
        seen.add(layer.name)
        yield layer.name
        yield from _format_shards(layer)
        counts = layer.counts
        yield f"  images   {counts['images']:,}, {counts['errors']:,} with an error"
        yield f"  boxes    {counts['annotations']:,}" + (f", {counts['masks']:,} masks" if "masks" in counts else "")
        if counts["captions"]:
            share = f"{counts['varied'] / max(counts['described'], 1):.0%}"
            more = f", {share} of those described with as many as were asked for" if counts["described"] else ""
            yield f"  captions {counts['captions']:,} for {counts['captioned']:,} boxes{more}"
        if layer.flags:
            yield f"  flags    {', '.join(f'{flag} {n:,}' for flag, n in sorted(layer.flags.items()))}"
        yield from _format_active_runs(store / layer.name / "_log")
        if layer.failed_images and not failures:
            yield f"  failed   {layer.failed_images:,} images; --failures lists them, --retry-failed tries them again"
        if failures:
            for shard in layer.shards_with_failures:
                try:
                    yield from _format_failures(ShardStore(store), shard)
                except SynthgenError as why:  # a page is damaged
                    layer.damaged.append(str(why))
                    yield f"  damaged  {why}"
            for entry in list_failed_shards(store, layer.name):
                yield f"  failed   {entry['error']}"
    for name in _layers_with_failures_only(store, seen):
        failed = list_failed_shards(store, name)
        yield name
        yield "  shards   none committed"
        yield from _format_active_runs(store / name / "_log")
        yield from (f"  failed   {entry['error']}" for entry in failed if failures)
        if not failures:
            yield f"  failed   {len(failed):,} shards; --failures lists them"
        seen.add(name)
    if not seen:
        yield f"no shards in {store}; `synthgen demo` makes some, `synthgen masks --help` says how to make your own"


def _format_shards(layer: LayerStatus) -> Iterator[str]:
    """How many shards there are, what made them, and what is wrong with them."""
    if layer.num_shards:
        share = layer.committed_shards / layer.num_shards
        done = "complete" if layer.committed_shards == layer.num_shards else f"{share:.0%}"
        size = f"{layer.size_bytes / 1e6:,.2f} MB"
        yield f"  shards   {layer.committed_shards:,} of {layer.num_shards:,} ({done}), {size}"
    else:
        yield "  shards   none committed"
    yield from (f"  damaged  {sentence}" for sentence in layer.damaged)
    yield from (f"  foreign  {name} {what}; it is ignored" for name, what in layer.foreign.items())
    if layer.unfinished is not None:
        yield f"  update   {layer.unfinished}"
    if layer.num_stale:
        what = "the layers that they were made from have changed; run the same command again, with --update"
        yield f"  stale    {layer.num_stale:,} shards: {what}"
    if layer.num_unverified:
        what = f"are unverified, of an older release; `synthgen migrate {layer.name}` adds it"
        yield f"  identity {layer.num_unverified:,} shards {what}"
    if layer.recipes:
        yield f"  made by  {', '.join(layer.recipes)}"


def _format_failures(shard_store: ShardStore, shard: Shard) -> Iterator[str]:
    """The images with an error, and the objects without the mask or captions that were requested."""
    footer = shard_store.read_footer(shard) or {}
    reasons = {entry["image_id"]: entry["error"] for entry in footer.get("failed", [])}
    for sample in shard_store.read_samples(shard):
        image = f"{shard.index:05d} image {sample.image_id} {sample.file_name}"
        if sample.error is not None:
            yield f"  failed   {image}: {sample.error}"
        for a in sample.annotations:
            for flag in sorted(FAILURE_FLAGS.keys() & set(a.flags)):
                reason = (
                    reasons.get(sample.image_id, ANNOTATION_FLAGS[flag])
                    if flag.endswith("_failed")
                    else ANNOTATION_FLAGS[flag]
                )
                yield f"  no {FAILURE_FLAGS[flag]:<5} {image}, annotation {a.id} {a.category}: {reason}"


def list_failed_shards(store: Path, layer: str) -> list[dict[str, Any]]:
    """Shards that the run logs report as failed and that are still not committed; the last report of each.

    Args:
        store: root folder of the shards.
        layer: DATASET/SPLIT/LAYER.
    """
    last: dict[str, dict[str, Any]] = {}
    for path in sorted((store / layer / "_log").glob("failures*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            entry = _parse_json(line)
            shard = str(entry.get("shard"))
            named = shard.startswith(f"{layer}/") and _SHARD_PATTERN.fullmatch(shard.removeprefix(f"{layer}/"))
            if not named or "error" not in entry or (store / f"{shard}.parquet").exists():
                continue
            if shard not in last or _entry_time(entry) >= _entry_time(last[shard]):
                last[shard] = entry
    return [last[shard] for shard in sorted(last)]


def _layers_with_failures_only(store: Path, listed: set[str]) -> list[str]:
    """Layers without a committed shard whose run logs report failures."""
    logs = {path.parent for path in store.glob("*/*/*/_log/failures*.jsonl")}
    names = {path.parent.relative_to(store).as_posix() for path in logs} - listed
    return sorted(name for name in names if list_failed_shards(store, name))


def _entry_time(entry: dict[str, Any]) -> float:
    then = entry.get("time")
    return then if isinstance(then, float) else 0.0


def _format_active_runs(folder: Path) -> Iterator[str]:
    """Lines about the runs that are active."""
    for path in sorted(folder.glob("status*.json")):
        status = _parse_json(path.read_text(encoding="utf-8", errors="replace"))
        try:
            left = status["shards"] - status["committed"] - status["failed"]
            if left > 0 and time.time() - status["updated"] < ACTIVE_STATUS_SECONDS:
                eta = status["eta_seconds"]
                about = f", about {eta / 60:.0f} minutes" if eta is not None else ""
                yield f"  running  {status['images_per_second']:.1f} images/s, {left:,} shards left{about}"
        except (KeyError, TypeError, ValueError, OverflowError):
            continue  # truncated, or not ours


def _parse_json(text: str) -> dict[str, Any]:
    """Parse a line of a run log. A line may be truncated or damaged; then the result is empty."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
