"""The guards against leakage around a manifest: its lists, a look at the keys of all its layers, and what they say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.reading import leakage
from synthgen.reading.leakage import Scanned
from synthgen.reading.manifest import Draft
from synthgen.reading.mistakes import Mistake, Place, dotted
from synthgen.records.store import Shard, ShardStore

Lists = Mapping[Place, frozenset[str]]


def read_lists(given: Draft) -> tuple[Lists, list[Mistake]]:
    """The lists that can be read, by their place, and what is wrong with the others."""
    lists: dict[Place, frozenset[str]] = {}
    wrong: list[Mistake] = []
    for i, path in given.exclude.items():
        at = ("exclude", i)
        if not os.path.exists(path):  # noqa: PTH110 - pathlib's raises where a name is too long
            command = f"synthgen exclude {' '.join(_meant(path, given))} --out {path}"
            wrong.append(Mistake(at, f"no file {path}; make it: `{command}`"))
            continue
        try:
            lists[at] = leakage.read_list(path)
        except SynthgenError as why:
            wrong.append(Mistake(at, str(why)))
    return lists, wrong


def scan(
    store: ShardStore,
    given: Draft,
    shards: Mapping[Place, Sequence[Shard]],
    lists: Lists,
    on_shard: Callable[[], object],
) -> dict[Place, Scanned]:
    """Hold the keys of every source against lists and evaluated layers; those of one layer are read once.

    Args:
        shards: of each source and evaluated layer, by its place; one that is not there is passed over.

    Raises:
        SynthgenError: a shard is damaged.
    """
    evaluated = {source.shards: shards["eval", i] for i, source in given.eval.items() if ("eval", i) in shards}
    if not given.mixture:
        evaluated = {}
    measured = {
        name: frozenset(key for batch in leakage.image_keys(store, own, on_shard) for key in batch)
        for name, own in evaluated.items()
    }
    known: dict[tuple[Shard, ...], Scanned] = {}
    for at in [("mixture", i) for i in given.mixture if ("mixture", i) in shards]:
        own = tuple(shards[at])
        if own not in known:
            known[own] = leakage.scan(store, own, lists=lists, evaluated=measured, on_shard=on_shard)
    return {at: known[tuple(own)] for at, own in shards.items() if at[0] == "mixture"}


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
            what = f"{count:,} images of {name} are also in {places[other]} {other}, e.g. {one.examples[other]}"
            remedy = "take one of the two out" if count == one.images else _leave_out(other, given.path.parent)
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


def _leave_out(layer: str, folder: Path) -> str:
    path = Path("exclude", "_".join(layer.split("/")[:2]) + ".txt")
    return f"run `synthgen exclude {layer} --out {folder / path}`, and add {path} to exclude:"
