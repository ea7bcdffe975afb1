"""What lies in a store, in words: layers, how complete they are, what made them, what failed."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.records.recipe import in_words
from synthgen.records.sample import FLAGS
from synthgen.storage.shard_store import Shard, ShardStore

#: A status file younger than this many seconds tells of a run that is under way.
FRESH = 300.0

_SHARD = re.compile(r"\d{5,9}-of-\d{5,9}")

#: Flags of objects that were to get a mask or captions and did not -> what they lack.
FAILED = {
    "empty_mask": "mask",
    "segmenter_failed": "mask",
    "no_caption": "caption",
    "captioner_failed": "caption",
}


@dataclass
class Layer:
    """A layer, added up over its footers.

    Attributes:
        shards: committed; count: of how many.
        recipes: recipe in words -> shards made by it.
        counts: images, annotations, masks, errors; flags: annotations by flag.
        failed: how many images the layer's stage could not process.
        to_tell: shards with an image or an object that `failures` lists.
    """

    name: str
    shards: int = 0
    count: int = 0
    bytes: int = 0
    recipes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    to_tell: list[Shard] = field(default_factory=list)


def layers(store: Path) -> Iterator[Layer]:
    """Every layer of a store, in order of name."""
    house = ShardStore(store)
    for dataset, split, layer in house.layers():
        found = Layer(f"{dataset}/{split}/{layer}")
        for shard in house.layer(dataset, split, layer):
            footer = house.footer(shard) or {}
            found.shards, found.count = found.shards + 1, shard.count
            found.bytes += (store / shard.path).stat().st_size
            found.recipes[in_words(footer.get("recipe", {}))] += 1
            counts = footer.get("counts", {})
            found.counts.update({key: n for key, n in counts.items() if isinstance(n, int)})
            found.flags.update(counts.get("flags", {}))
            found.failed += len(footer.get("failed", []))
            if counts.get("errors") or FAILED.keys() & counts.get("flags", {}).keys():
                found.to_tell.append(shard)
        yield found


def say(store: Path, *, failures: bool = False) -> Iterator[str]:
    """The store as lines of text; with `failures`, every failed object, image and shard."""
    seen = set()
    for layer in layers(store):
        seen.add(layer.name)
        yield layer.name
        done = "complete" if layer.shards == layer.count else f"{layer.shards / layer.count:.0%}"
        yield f"  shards   {layer.shards:,} of {layer.count:,} ({done}), {layer.bytes / 1e6:,.2f} MB"
        yield f"  made by  {', '.join(layer.recipes)}"
        counts = layer.counts
        yield f"  images   {counts['images']:,}, {counts['errors']:,} with an error"
        yield f"  boxes    {counts['annotations']:,}" + (f", {counts['masks']:,} masks" if "masks" in counts else "")
        if counts["captions"]:
            share = f"{counts['varied'] / max(counts['described'], 1):.0%}"
            more = f", {share} of those described with as many as were asked for" if counts["described"] else ""
            yield f"  captions {counts['captions']:,} for {counts['captioned']:,} boxes{more}"
        if layer.flags:
            yield f"  flags    {', '.join(f'{flag} {n:,}' for flag, n in sorted(layer.flags.items()))}"
        yield from _runs(store / layer.name / "_log")
        if layer.failed and not failures:
            yield f"  failed   {layer.failed:,} images; --failures lists them, the command's --retry-failed retries"
        if failures:
            for shard in layer.to_tell:
                yield from _failures(ShardStore(store), shard)
            for entry in failed_shards(store, layer.name):
                yield f"  failed   {entry['error']}"
    for name in _only_failures(store, seen):
        failed = failed_shards(store, name)
        yield name
        yield "  shards   none committed"
        yield from _runs(store / name / "_log")
        yield from (f"  failed   {entry['error']}" for entry in failed if failures)
        if not failures:
            yield f"  failed   {len(failed):,} shards; --failures lists them"
        seen.add(name)
    if not seen:
        yield f"no shards in {store}; `synthgen demo` makes some, `synthgen masks --help` says how to make your own"


def _failures(house: ShardStore, shard: Shard) -> Iterator[str]:
    """Each image with an error and each object without the mask or the captions that it was to get."""
    footer = house.footer(shard) or {}
    reasons = {entry["image_id"]: entry["error"] for entry in footer.get("failed", [])}
    for sample in house.read(shard):
        image = f"{shard.index:05d} image {sample.image_id} {sample.file_name}"
        if sample.error is not None:
            yield f"  failed   {image}: {sample.error}"
        for a in sample.annotations:
            for flag in sorted(FAILED.keys() & set(a.flags)):
                reason = reasons.get(sample.image_id, FLAGS[flag]) if flag.endswith("_failed") else FLAGS[flag]
                yield f"  no {FAILED[flag]:<5} {image}, annotation {a.id} {a.category}: {reason}"


def failed_shards(store: Path, layer: str) -> list[dict[str, Any]]:
    """What the diaries say of shards that were not committed and still are not, the last word on each."""
    last: dict[str, dict[str, Any]] = {}
    for path in sorted((store / layer / "_log").glob("failures*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            entry = _json(line)
            shard = str(entry.get("shard"))
            named = shard.startswith(f"{layer}/") and _SHARD.fullmatch(shard.removeprefix(f"{layer}/"))
            if not named or "error" not in entry or (store / f"{shard}.parquet").exists():
                continue
            if shard not in last or _when(entry) >= _when(last[shard]):
                last[shard] = entry
    return [last[shard] for shard in sorted(last)]


def _only_failures(store: Path, seen: set[str]) -> list[str]:
    """Layers in which nothing is committed, and whose diaries say why not."""
    logs = {path.parent for path in store.glob("*/*/*/_log/failures*.jsonl")}
    names = {path.parent.relative_to(store).as_posix() for path in logs} - seen
    return sorted(name for name in names if failed_shards(store, name))


def _when(entry: dict[str, Any]) -> float:
    then = entry.get("time")
    return then if isinstance(then, float) else 0.0


def _runs(folder: Path) -> Iterator[str]:
    """What the diaries of present runs say."""
    for path in sorted(folder.glob("status*.json")):
        status = _json(path.read_text(encoding="utf-8", errors="replace"))
        try:
            left = status["shards"] - status["committed"] - status["failed"]
            if left > 0 and time.time() - status["updated"] < FRESH:
                eta = status["eta_seconds"]
                about = f", about {eta / 60:.0f} minutes" if eta is not None else ""
                yield f"  running  {status['images_per_second']:.1f} images/s, {left:,} shards left{about}"
        except (KeyError, TypeError, ValueError):
            continue  # torn, or not ours


def _json(text: str) -> dict[str, Any]:
    """A diary may be torn or tampered with; it is not the truth, so what cannot be read is passed over."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
