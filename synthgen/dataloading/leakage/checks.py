"""The guards against leakage around a manifest: its lists, a look at the keys of all its layers, and what they say."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from synthgen.dataloading import command_hints
from synthgen.dataloading.leakage import image_keys
from synthgen.dataloading.leakage.image_keys import Scanned, Twins
from synthgen.dataloading.leakage.same_files import Files
from synthgen.dataloading.manifest import Draft
from synthgen.dataloading.manifest_errors import Mistake, Place, dotted
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import Shard, ShardStore

Lists = Mapping[Place, frozenset[str]]


def read_lists(given: Draft) -> tuple[Lists, list[Mistake]]:
    """The lists that can be read, by their place, and what is wrong with the others."""
    lists: dict[Place, frozenset[str]] = {}
    wrong: list[Mistake] = []
    for i, path in given.exclude.items():
        at = ("exclude", i)
        if not os.path.exists(path):  # noqa: PTH110 - pathlib's raises where a name is too long
            command = f"synthgen exclude {' '.join(_meant(path, given))} --out {shlex.quote(str(path))}{_store(given)}"
            wrong.append(Mistake(at, f"no file {path}; make it: `{command}`"))
            continue
        try:
            lists[at] = image_keys.read_list(path)
        except SynthgenError as why:
            wrong.append(Mistake(at, str(why)))
    return lists, wrong


def scan(
    store: ShardStore,
    given: Draft,
    shards: Mapping[Place, Sequence[Shard]],
    folders: Mapping[Place, Path],
    lists: Lists,
    on_shard: Callable[[], object],
) -> dict[Place, Scanned]:
    """Hold the images of every source against lists and evaluated layers; those of one layer are read once.

    Args:
        shards: of each source and evaluated layer, by its place; one that is not there is passed over.
        folders: of their images, likewise; of those that nobody knows, keys alone are compared.

    Raises:
        SynthgenError: a shard is damaged.
    """
    measured = sorted((at for at in shards if at[0] == "eval"), key=lambda at: at in folders)
    evaluated = {given.eval[int(at[1])].shards: at for at in measured} if given.mixture else {}
    files = {at: Files(folder) for at, folder in folders.items()}
    sources = [at for at in shards if at[0] == "mixture"]
    near = {at: _near(given, at, files, evaluated) for at in sources}
    keys: dict[str, frozenset[str]] = {}
    there: dict[str, dict[str, str]] = {}
    for name, at in evaluated.items():
        if any(name in names for names in near.values()):
            keys[name], there[name] = image_keys.placed(store, shards[at], files[at], on_shard)
        else:
            keys[name] = frozenset(key for batch in image_keys.image_keys(store, shards[at], on_shard) for key in batch)
    known: dict[tuple[object, ...], Scanned] = {}
    scanned: dict[Place, Scanned] = {}
    for at in sources:
        twins = Twins(files[at], {name: there[name] for name in near[at]}) if near[at] else None
        own = (files[at].root if twins else "", *shards[at])
        if own not in known:
            known[own] = image_keys.scan(store, shards[at], lists=lists, evaluated=keys, twins=twins, on_shard=on_shard)
        scanned[at] = known[own]
    return scanned


def _near(given: Draft, at: Place, files: Mapping[Place, Files], evaluated: Mapping[str, Place]) -> list[str]:
    """The evaluated layers whose images may be files of a source under other keys."""
    own = given.mixture[int(at[1])].shards
    return [
        name
        for name, other in evaluated.items()
        if name != own and at in files and other in files and files[at].overlap(files[other])
    ]


def judge(given: Draft, lists: Lists, scanned: Mapping[Place, Scanned]) -> Iterator[tuple[Mistake, bool]]:
    """What the keys say, and whether it is a mistake: leakage, sources of which nothing is left, lists without use."""
    places = {source.shards: f"eval.{i}" for i, source in reversed(list(given.eval.items()))}
    for at, one in scanned.items():
        name = given.mixture[int(at[1])].shards
        if one.images and one.excluded == one.images:
            by = " and ".join(dotted(place) for place, count in one.by_list.items() if count)
            yield Mistake(at, f"all {one.images:,} images of {name} are excluded by {by}; take it out"), True
        if len(lists) < len(given.exclude):
            continue  # they would be found for want of a list, which is told already
        for other, count in one.shared.items():
            example = one.examples.get(other) or "{}, which is the file of {}".format(*one.twins[other])
            what = f"{count:,} images of {name} are also in {places[other]} {other}, e.g. {example}"
            remedy = "take one of the two out" if count == one.images else _leave_out(other, given)
            if other in one.twins and count < one.images and _by_hand(name, other, given):
                remedy = "take one of the two out, or ingest both under one --name, so that their keys are one"
            yield Mistake(at, f"{what}; {remedy}"), True
    if scanned and len(scanned) == len(given.mixture):
        for at, keys in lists.items():
            if not any(one.by_list[at] for one in scanned.values()):
                yield Mistake(at, f"none of its {len(keys):,} keys is in a source; is it the right list?"), False


def _meant(path: Path, given: Draft) -> list[str]:
    """The layers that a list is named after: `refcoco_val_test`, those evaluated of refcoco..., val... and test..."""
    dataset, _, splits = path.stem.partition("_")
    some = tuple(filter(None, splits.split("_")))
    named = {s.shards for s in given.eval.values() if s.parts[0].startswith(dataset) and s.parts[1].startswith(some)}
    if not named and len(some) == 1:
        named = {f"{dataset}/{splits}/human"}
    return sorted(named) or ["LAYER..."]


def _by_hand(name: str, other: str, given: Draft) -> bool:
    """Whether the manifest says where images of the two layers are, so that `synthgen exclude` does not know it."""
    sources = [*given.mixture.values(), *given.eval.values()]
    return any(source.images is not None and source.shards in (name, other) for source in sources)


def _leave_out(layer: str, given: Draft) -> str:
    path = Path("exclude", "_".join(layer.split("/")[:2]) + ".txt")
    out = shlex.quote(str(given.path.parent / path))
    return f"run `synthgen exclude {layer} --out {out}{_store(given)}`, and add {path} to exclude:"


def _store(given: Draft) -> str:
    return "" if given.store is None else command_hints.of_store(given.store)
