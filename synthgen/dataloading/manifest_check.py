"""A manifest held against the store, before anything is learned: layers, images, lists, leakage; all mistakes at once.

The trainer begins with it, and `synthgen check` is nothing else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from synthgen import plugins
from synthgen.dataloading.command_hints import absent
from synthgen.dataloading.layer_stats import Holding, kept, learning, look, measuring, unmirrored
from synthgen.dataloading.leakage import checks
from synthgen.dataloading.leakage.image_keys import Scanned
from synthgen.dataloading.manifest import Manifest, draft
from synthgen.dataloading.manifest_errors import Mistake, Place
from synthgen.dataloading.source_config import SHELF, UNKNOWN, EvalSource, Reading, Source
from synthgen.errors import SynthgenError
from synthgen.images.decode import ImageError, find
from synthgen.progress import NoProgress, OpenProgress
from synthgen.storage.run_log import images_folder
from synthgen.storage.shard_store import ShardStore

#: So many of a layer's first images are looked for in the folder; if none is there, so many more.
_FIRST, _MORE = 8, 2_000


@dataclass(frozen=True, slots=True)
class Row:
    """One source, as it was found.

    Attributes:
        chance: share of the draws that are of it; None = it is evaluated on.
        held: what is in the shards that it takes.
        excluded: images of them that a list names.
        kept: which shares of "mask"s and "caption"s pass its filters, about; {} = it has none.
        folder: where its images are.
    """

    source: Reading
    chance: float | None
    held: Holding
    excluded: int
    kept: dict[str, float]
    folder: Path


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest without mistakes.

    Attributes:
        rows: first what is learned from, then what is evaluated on, each in the manifest's order.
        warnings: what is worth to know, in one sentence each.
        excluded: every key that a list names: no reader may show it.
        photographs: how many there are to learn from, each counted once, in however many sources it is.
    """

    manifest: Manifest
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    excluded: frozenset[str]
    photographs: int


@dataclass(slots=True)
class _Found:
    """What was found so far."""

    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)
    held: dict[Place, Holding] = field(default_factory=dict)
    kept: dict[Place, dict[str, float]] = field(default_factory=dict)
    folders: dict[Place, Path] = field(default_factory=dict)


def check(path: Path, *, store: Path | None = None, bar: OpenProgress = NoProgress) -> Checked:
    """Find everything that is wrong with a manifest, without training.

    Args:
        store: the shards' root, instead of the manifest's.
        bar: makes what counts progress for a person.

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
    lists, wrong = checks.read_lists(given)
    found.mistakes += wrong
    scanned: dict[Place, Scanned] = {}
    if house is not None and known:
        every = {**evaluated, **sources}
        with bar("reading headers", len(every), "layers") as done:
            for at, source in every.items():
                _look(house, at, source, known, found)
                done.advance(1)
        shards = {at: held.shards for at, held in found.held.items()}
        with bar("comparing keys", sum(map(len, set(shards.values()))), "shards") as done:
            try:
                scanned = checks.scan(house, given, shards, found.folders, lists, partial(done.advance, 1))
            except SynthgenError as why:  # a shard of which the header can be read, and the keys cannot
                found.mistakes.append(Mistake(("store",), str(why)))
        for remark, is_mistake in checks.judge(given, lists, scanned):
            (found.mistakes if is_mistake else found.warnings).append(remark)
    if found.mistakes or given.manifest is None:
        raise given.error(found.mistakes)
    if given.manifest.augment.flip:
        for at, source in sources.items():
            remarks = unmirrored(found.held[at], plugins.load(SHELF, source.task).METRIC)
            found.warnings += [Mistake((*at, remark.key), remark.what) for remark in remarks]
    ratios = sum(source.ratio for source in sources.values())
    rows = [
        Row(
            source,
            source.ratio / ratios if isinstance(source, Source) else None,
            found.held[at],
            scanned[at].excluded if at in scanned else 0,
            found.kept.get(at, {}),
            found.folders[at],
        )
        for at, source in {**sources, **evaluated}.items()
    ]
    excluded = frozenset().union(*lists.values())
    photographs = np.concatenate([np.zeros(0, np.int64), *(np.array(one.photographs) for one in scanned.values())])
    return Checked(
        given.manifest, tuple(rows), tuple(map(str, found.warnings)), excluded, photographs=len(np.unique(photographs))
    )


def _look(house: ShardStore, at: Place, source: Reading, known: list[str], found: _Found) -> None:
    """Read the headers of a source's shards, find its images, and hold both against its task."""
    if source.shards not in known:
        found.mistakes.append(Mistake((*at, "shards"), absent(house, source, known)))
        return
    try:
        held = look(house, source)
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
        if isinstance(source, Source):
            found.warnings.append(Mistake((*at, "shards"), what))
        else:  # nobody can say then that none of them is learned from
            found.mistakes.append(Mistake((*at, "shards"), f"{what}; let its job go on"))
    if errors := held.count("errors"):
        what = f"{errors:,} of {held.count('images'):,} images of {source.shards} have an error, and are passed over"
        found.warnings.append(Mistake((*at, "shards"), what))
    found.held[at] = held
    inside = f"{source.parts[0]}/{source.parts[1]}/"
    siblings = [name for name in known if name.startswith(inside) and name != source.shards]
    if source.task != UNKNOWN:
        metric = plugins.load(SHELF, source.task).METRIC
        judge = (
            learning(house, source, held, metric, siblings)
            if isinstance(source, Source)
            else measuring(source, held, metric, siblings)
        )
        for remark in judge:
            (found.mistakes if remark.is_mistake else found.warnings).append(Mistake((*at, remark.key), remark.what))
    try:
        if isinstance(source, Source):
            found.kept[at] = kept(house, source, held)
        found.folders[at], lost = _images(house, source, held)
        if lost:
            what = f"{len(lost)} of the first {_FIRST} images are not in {found.folders[at]}, e.g. {lost[0]}"
            found.warnings.append(Mistake((*at, "images"), what))
    except SynthgenError as why:
        found.mistakes.append(Mistake((*at, "images"), str(why)))


def _images(house: ShardStore, source: Reading, held: Holding) -> tuple[Path, list[str]]:
    """The folder of a source's images, and which of the first are not in it.

    Raises:
        SynthgenError: nobody knows it, it is not there, or it holds none of the first images.
    """
    dataset, split, layer = source.parts
    folder = source.images or images_folder(house, dataset, split, layer)
    if folder is None:
        raise SynthgenError(f"where are the images of {dataset}/{split}? Add images: FOLDER")
    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib's raises where a name is too long
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
