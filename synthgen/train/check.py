"""A manifest held against the store, before anything is learned: layers, images, lists, leakage; all mistakes at once.

The trainer begins with it, and `synthgen check` is nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.records.diary import images_folder
from synthgen.records.images import ImageError, find
from synthgen.records.store import ShardStore
from synthgen.train import leakage
from synthgen.train.layers import Holding, absent, learning, look, measuring
from synthgen.train.leakage import Scanned
from synthgen.train.manifest import SHELF, Draft, EvalSource, Manifest, Source, draft
from synthgen.train.mistakes import Mistake, Place, dotted

#: So many of a layer's first images are looked for in the folder; if none is there, so many more.
_FIRST, _MORE = 8, 2_000


@dataclass(frozen=True, slots=True)
class Row:
    """One source, as it was found.

    Attributes:
        chance: share of the draws that are of it; None = it is evaluated on.
        held: what is in the shards that it takes.
        excluded: images of them that a list names.
        folder: where its images are.
    """

    source: EvalSource
    chance: float | None
    held: Holding
    excluded: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest without mistakes.

    Attributes:
        rows: first what is learned from, then what is evaluated on, each in the manifest's order.
        warnings: what is worth to know, in one sentence each.
        excluded: every key that a list names: no reader may show it.
    """

    manifest: Manifest
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    excluded: frozenset[str]


@dataclass(slots=True)
class _Found:
    """What was found so far."""

    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)
    held: dict[Place, Holding] = field(default_factory=dict)
    folders: dict[Place, Path] = field(default_factory=dict)


def check(path: Path, *, store: Path | None = None, on_shard: Callable[[], object] = int) -> Checked:
    """Find everything that is wrong with a manifest, without training.

    Args:
        store: the shards' root, instead of the manifest's.
        on_shard: called for each header, or column of keys, that was read.

    Raises:
        SynthgenError: all mistakes, a line each, with place and remedy.
    """
    given = draft(path, store=store)
    found = _Found()
    sources: dict[Place, Source] = {("mixture", i): source for i, source in given.mixture.items()}
    evaluated: dict[Place, EvalSource] = {("eval", i): source for i, source in given.eval.items()}
    house = ShardStore(given.store) if given.store is not None else None
    known = ["/".join(layer) for layer in house.layers()] if house is not None else []
    if house is not None and not known and (sources or evaluated):
        remedy = "name the folder of the shards with --store or SYNTHGEN_STORE, or make some: `synthgen masks --help`"
        found.mistakes.append(Mistake(("store",), f"no shards in {house.root}; {remedy}"))
    lists = _lists(given, evaluated, found)
    scanned: dict[Place, Scanned] = {}
    if house is not None and known:
        for at, source in {**evaluated, **sources}.items():
            _look(house, at, source, known, found, on_shard)
        scanned = _scan(house, sources, evaluated, lists, found, on_shard)
        _judge(given, lists, scanned, found)
    if found.mistakes or given.manifest is None:
        raise given.error(found.mistakes)
    ratios = sum(source.ratio for source in sources.values())
    rows = [
        Row(
            source,
            source.ratio / ratios if isinstance(source, Source) else None,
            found.held[at],
            scanned[at].excluded if at in scanned else 0,
            found.folders[at],
        )
        for at, source in {**sources, **evaluated}.items()
    ]
    excluded = frozenset().union(*lists.values())
    return Checked(given.manifest, tuple(rows), tuple(map(str, found.warnings)), excluded)


def _look(
    house: ShardStore,
    at: Place,
    source: EvalSource,
    known: list[str],
    found: _Found,
    on_shard: Callable[[], object],
) -> None:
    """Read the headers of a source's shards, find its images, and hold both against its task."""
    if source.shards not in known:
        found.mistakes.append(Mistake((*at, "shards"), absent(house, source, known)))
        return
    try:
        held = look(house, source, on_shard)
    except SynthgenError as why:
        found.mistakes.append(Mistake((*at, "shards"), str(why)))
        return
    if not held.shards:
        what = "none of the shards that it takes is there yet; let its job go on, or raise share"
        found.mistakes.append(Mistake((*at, "shards"), what))
        return
    if held.missing:
        total = held.missing + len(held.shards)
        what = f"{held.missing:,} of {total:,} shards of {source.shards} are missing, and so are their images"
        found.warnings.append(Mistake((*at, "shards"), what))
    if errors := held.count("errors"):
        what = f"{errors:,} of {held.count('images'):,} images of {source.shards} have an error, and are passed over"
        found.warnings.append(Mistake((*at, "shards"), what))
    found.held[at] = held
    inside = f"{source.parts[0]}/{source.parts[1]}/"
    siblings = [name for name in known if name.startswith(inside) and name != source.shards]
    metric = plugins.load(SHELF, source.task).METRIC
    judge = (
        learning(source, held, metric, siblings)
        if isinstance(source, Source)
        else measuring(source, held, metric, siblings)
    )
    for remark in judge:
        (found.mistakes if remark.is_mistake else found.warnings).append(Mistake((*at, remark.key), remark.what))
    try:
        found.folders[at], lost = _images(house, source, held)
        if lost:
            what = f"{len(lost)} of the first {_FIRST} images are not in {found.folders[at]}, e.g. {lost[0]}"
            found.warnings.append(Mistake((*at, "images"), what))
    except SynthgenError as why:
        found.mistakes.append(Mistake((*at, "images"), str(why)))


def _images(house: ShardStore, source: EvalSource, held: Holding) -> tuple[Path, list[str]]:
    """The folder of a source's images, and which of the first are not in it.

    Raises:
        SynthgenError: nobody knows it, it is not there, or it holds none of the first images.
    """
    dataset, split, layer = source.parts
    folder = source.images or images_folder(house, dataset, split, layer)
    if folder is None:
        raise SynthgenError(f"where are the images of {dataset}/{split}? Add images: FOLDER")
    if not folder.is_dir():
        raise SynthgenError(f"no folder {folder}; name that of the images of {dataset}/{split}")
    batches = (batch for shard in held.shards for batch in house.columns(shard, ["file_name"]))
    names = islice((name for batch in batches for name in batch.column("file_name").to_pylist()), _FIRST + _MORE)
    first = list(islice(names, _FIRST))
    lost = [name for name in first if not _is_there(folder, name)]
    if len(lost) < len(first):
        return folder, lost
    more = list(names)
    if any(_is_there(folder, name) for name in more):
        return folder, lost
    total = len(first) + len(more)
    raise SynthgenError(f"{folder} has none of the first {total:,} images of {source.shards}, e.g. {first[0]}")


def _is_there(folder: Path, name: str) -> bool:
    try:
        find(folder, name)
    except ImageError:
        return False
    return True


def _lists(given: Draft, evaluated: Mapping[Place, EvalSource], found: _Found) -> dict[Place, frozenset[str]]:
    """The lists that can be read."""
    lists: dict[Place, frozenset[str]] = {}
    for i, path in given.exclude.items():
        at = ("exclude", i)
        if not path.exists():
            command = f"synthgen exclude {' '.join(_meant(path, evaluated))} --out {path}"
            found.mistakes.append(Mistake(at, f"no file {path}; make it: `{command}`"))
            continue
        try:
            lists[at] = leakage.read_list(path)
        except SynthgenError as why:
            found.mistakes.append(Mistake(at, str(why)))
    return lists


def _meant(path: Path, evaluated: Mapping[Place, EvalSource]) -> list[str]:
    """The evaluated layers that a list is named after: `coco_val2017.txt`, coco/val2017/human; else a word for them."""
    named = [s.shards for s in evaluated.values() if path.stem in ("_".join(s.parts[:2]), "_".join(s.parts))]
    return sorted(set(named)) or ["LAYER..."]


def _scan(
    house: ShardStore,
    sources: Mapping[Place, Source],
    evaluated: Mapping[Place, EvalSource],
    lists: Mapping[Place, frozenset[str]],
    found: _Found,
    on_shard: Callable[[], object],
) -> dict[Place, Scanned]:
    """Hold the keys of all sources against the lists and the evaluated layers; each shard's are read once."""
    measured: dict[str, frozenset[str]] = {}
    by_shards: dict[object, Scanned] = {}
    scanned: dict[Place, Scanned] = {}
    try:
        for at, source in evaluated.items():
            if at in found.held and sources and source.shards not in measured:
                keys = leakage.image_keys(house, found.held[at].shards, on_shard)
                measured[source.shards] = frozenset(key for batch in keys for key in batch)
        for at in sources:
            if at in found.held:
                shards = found.held[at].shards
                if shards not in by_shards:
                    by_shards[shards] = leakage.scan(house, shards, lists=lists, evaluated=measured, on_shard=on_shard)
                scanned[at] = by_shards[shards]
    except SynthgenError as why:  # a shard whose header could be read, and its keys cannot
        found.mistakes.append(Mistake(("store",), str(why)))
    return scanned


def _judge(
    given: Draft,
    lists: Mapping[Place, frozenset[str]],
    scanned: Mapping[Place, Scanned],
    found: _Found,
) -> None:
    """What the keys say: leakage, sources of which nothing is left, lists that do nothing."""
    places = {source.shards: f"eval.{i}" for i, source in reversed(list(given.eval.items()))}
    for at, one in scanned.items():
        name = given.mixture[int(at[1])].shards
        if one.excluded == one.images:
            by = " and ".join(dotted(place) for place, count in one.by_list.items() if count)
            found.mistakes.append(Mistake(at, f"all {one.images:,} images of {name} are excluded by {by}; take it out"))
        if len(lists) < len(given.exclude):
            continue  # images would be found for want of a list, which is told already
        for other, count in one.shared.items():
            what = f"{count:,} images of {name} are also in {places[other]} {other}, e.g. {one.examples[other]}"
            remedy = "take one of the two out" if count == one.images else _leave_out(other, given.path.parent)
            found.mistakes.append(Mistake(at, f"{what}; {remedy}"))
    if scanned and len(scanned) == len(given.mixture):
        for at, keys in lists.items():
            if not any(one.by_list[at] for one in scanned.values()):
                what = f"none of its {len(keys):,} keys is in a source; is it the right list?"
                found.warnings.append(Mistake(at, what))


def _leave_out(layer: str, folder: Path) -> str:
    path = Path("exclude", "_".join(layer.split("/")[:2]) + ".txt")
    return f"run `synthgen exclude {layer} --out {folder / path}`, and add {path} to exclude:"
