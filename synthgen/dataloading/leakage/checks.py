"""Leakage checks of a manifest: reads its exclude lists, scans the image keys of its layers, reports findings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from synthgen.dataloading import command_hints
from synthgen.dataloading.leakage import image_keys
from synthgen.dataloading.leakage.image_keys import KeyScan, SameFileIndex
from synthgen.dataloading.leakage.same_files import ImagePaths
from synthgen.dataloading.manifest import ManifestDraft
from synthgen.dataloading.manifest_errors import Location, ManifestIssue, format_location
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import Shard, ShardStore

ExcludeLists = Mapping[Location, frozenset[str]]


def read_exclude_lists(draft: ManifestDraft) -> tuple[ExcludeLists, list[ManifestIssue]]:
    """The readable lists by location in the manifest, and the errors of the others.

    Args:
        draft: the manifest under check; its `exclude` gives the paths.
    """
    lists: dict[Location, frozenset[str]] = {}
    wrong: list[ManifestIssue] = []
    for i, path in draft.exclude.items():
        at = ("exclude", i)
        if not os.path.exists(path):  # noqa: PTH110 - pathlib's raises where a name is too long
            layers = " ".join(_guess_layers(path, draft))
            command = f"synthgen exclude {layers} --out {shlex.quote(str(path))}{_store_option(draft)}"
            wrong.append(ManifestIssue(at, f"no file {path}; make it: `{command}`"))
            continue
        try:
            lists[at] = image_keys.read_exclude_list(path)
        except SynthgenError as why:
            wrong.append(ManifestIssue(at, str(why)))
    return lists, wrong


def scan_sources(
    store: ShardStore,
    draft: ManifestDraft,
    shards: Mapping[Location, Sequence[Shard]],
    image_folders: Mapping[Location, Path],
    exclude_lists: ExcludeLists,
    on_shard: Callable[[], object],
) -> dict[Location, KeyScan]:
    """Compare the images of every source with exclude lists and evaluated layers. Each layer is read once.

    Args:
        store: where the layers are.
        draft: names the sources and the evaluated layers.
        shards: of each source and evaluated layer, by location; missing layers are skipped.
        image_folders: their image folders, likewise; without one, only keys are compared.
        exclude_lists: from `read_exclude_lists`.
        on_shard: called for each shard that is read.

    Raises:
        SynthgenError: a shard is damaged.
    """
    measured = sorted((at for at in shards if at[0] == "eval"), key=lambda at: at in image_folders)
    evaluated = {draft.eval[int(at[1])].shards: at for at in measured} if draft.mixture else {}
    files = {at: ImagePaths(folder) for at, folder in image_folders.items()}
    sources = [at for at in shards if at[0] == "mixture"]
    near = {at: _overlapping_eval_layers(draft, at, files, evaluated) for at in sources}
    keys: dict[str, frozenset[str]] = {}
    there: dict[str, dict[str, str]] = {}
    for name, at in evaluated.items():
        if any(name in names for names in near.values()):
            keys[name], there[name] = image_keys.index_keys_by_path(store, shards[at], files[at], on_shard)
        else:
            keys[name] = frozenset(
                key for batch in image_keys.iter_image_keys(store, shards[at], on_shard) for key in batch
            )
    known: dict[tuple[object, ...], KeyScan] = {}
    scanned: dict[Location, KeyScan] = {}
    for at in sources:
        same_files = SameFileIndex(files[at], {name: there[name] for name in near[at]}) if near[at] else None
        own = (files[at].root if same_files else "", *shards[at])
        if own not in known:
            known[own] = image_keys.scan_source_keys(
                store,
                shards[at],
                exclude_lists=exclude_lists,
                eval_keys=keys,
                same_file_index=same_files,
                on_shard=on_shard,
            )
        scanned[at] = known[own]
    return scanned


def _overlapping_eval_layers(
    draft: ManifestDraft,
    location: Location,
    image_paths: Mapping[Location, ImagePaths],
    eval_locations: Mapping[str, Location],
) -> list[str]:
    """The evaluated layers whose images may be the same files as a source's, under other keys."""
    own = draft.mixture[int(location[1])].shards
    return [
        name
        for name, other in eval_locations.items()
        if name != own
        and location in image_paths
        and other in image_paths
        and image_paths[location].overlaps(image_paths[other])
    ]


def report_leakage(
    draft: ManifestDraft, exclude_lists: ExcludeLists, scans: Mapping[Location, KeyScan]
) -> Iterator[tuple[ManifestIssue, bool]]:
    """Findings from the keys, and whether each is an error: leakage, empty sources, lists without effect.

    Args:
        draft: the manifest under check.
        exclude_lists: the keys of each readable list, by location.
        scans: the counted keys of each source that could be read, by location in the mixture.
    """
    places = {source.shards: f"eval.{i}" for i, source in reversed(list(draft.eval.items()))}
    for at, one in scans.items():
        name = draft.mixture[int(at[1])].shards
        if one.num_images and one.num_excluded == one.num_images:
            by = " and ".join(format_location(place) for place, count in one.num_excluded_by_list.items() if count)
            yield ManifestIssue(at, f"all {one.num_images:,} images of {name} are excluded by {by}; take it out"), True
        if len(exclude_lists) < len(draft.exclude):
            continue  # caused by a missing list, which is already reported
        for other, count in one.num_shared.items():
            example = one.shared_examples.get(other) or "{}, which is the file of {}".format(
                *one.same_file_examples[other]
            )
            what = f"{count:,} images of {name} are also in {places[other]} {other}, e.g. {example}"
            remedy = "take one of the two out" if count == one.num_images else _suggest_exclude(other, draft)
            if other in one.same_file_examples and count < one.num_images and _has_explicit_images(name, other, draft):
                remedy = "take one of the two out, or ingest both under one --name, so that their keys are one"
            yield ManifestIssue(at, f"{what}; {remedy}"), True
    if scans and len(scans) == len(draft.mixture):
        for at, keys in exclude_lists.items():
            if not any(one.num_excluded_by_list[at] for one in scans.values()):
                yield ManifestIssue(at, f"none of its {len(keys):,} keys is in a source; is it the right list?"), False


def _guess_layers(path: Path, draft: ManifestDraft) -> list[str]:
    """The evaluated layers that a list seems to be made for: `refcoco_val_test` is val... and test... of refcoco."""
    dataset, _, splits = path.stem.partition("_")
    some = tuple(filter(None, splits.split("_")))
    named = {s.shards for s in draft.eval.values() if s.parts[0].startswith(dataset) and s.parts[1].startswith(some)}
    if not named and len(some) == 1:
        named = {f"{dataset}/{splits}/human"}
    return sorted(named) or ["LAYER..."]


def _has_explicit_images(name: str, other: str, draft: ManifestDraft) -> bool:
    """Whether the manifest gives the image folder of a layer; `synthgen exclude` does not read the manifest."""
    sources = [*draft.mixture.values(), *draft.eval.values()]
    return any(source.images is not None and source.shards in (name, other) for source in sources)


def _suggest_exclude(layer: str, draft: ManifestDraft) -> str:
    path = Path("exclude", "_".join(layer.split("/")[:2]) + ".txt")
    out = shlex.quote(str(draft.path.parent / path))
    return f"run `synthgen exclude {layer} --out {out}{_store_option(draft)}`, and add {path} to exclude:"


def _store_option(draft: ManifestDraft) -> str:
    return "" if draft.store is None else command_hints.store_option(draft.store)
