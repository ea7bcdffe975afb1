"""Guards against learning from what is measured on: lists of image keys to leave out, and a look at all keys before.

Keys are compared, and the places of the files; not pixels: a copy under another name is not seen.
"""

from __future__ import annotations

import re
from array import array
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from synthgen.dataloading.leakage.same_files import Files, shared
from synthgen.dataloading.manifest_errors import Place, short
from synthgen.errors import SynthgenError, did_you_mean
from synthgen.storage.atomic import new_file
from synthgen.storage.run_log import images_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: "coco/000000391895": a dataset's name, and what the photograph is called in it.
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}/.*\S")

#: No path is longer, so no key is.
_MOST_LETTERS = 4_500

#: In a list with more lines that are no keys, the others are not counted.
_MOST_WRONG = 1_000


@dataclass(slots=True)
class Scanned:
    """What the keys of one source say.

    Attributes:
        images: rows; excluded: those that a list names.
        photographs: int64, a number for the key of each of the others, by which the same one of another source is told.
        by_list: by list, how many it names.
        shared: by evaluated layer, how many of its images would be learned from; examples: one key of them.
        twins: by evaluated layer, one of those that it has under another key: (key here, key there).
    """

    images: int = 0
    excluded: int = 0
    by_list: Counter[Place] = field(default_factory=Counter)
    shared: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    twins: dict[str, tuple[str, str]] = field(default_factory=dict)
    photographs: array[int] = field(default_factory=partial(array, "q"))


@dataclass(frozen=True, slots=True)
class Twins:
    """Where a source's images are, and those of evaluated layers that may be the same files under other keys.

    Attributes:
        theirs: by the name of an evaluated layer, its keys by the places of its files.
    """

    files: Files
    theirs: Mapping[str, Mapping[str, str]]


def image_keys(store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int) -> Iterator[list[str]]:
    """The keys of shards, a few at a time: no other column is read."""
    return (keys for keys, _ in _columns(store, shards, on_shard, names=False))


def image_rows(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int
) -> Iterator[tuple[str, str]]:
    """(image key, file name) of the rows of shards: no other column is read."""
    for keys, names in _columns(store, shards, on_shard, names=True):
        yield from zip(keys, names, strict=True)


def placed(
    store: ShardStore, shards: Iterable[Shard], files: Files, on_shard: Callable[[], object] = int
) -> tuple[frozenset[str], dict[str, str]]:
    """All keys of shards, and those of images that are somewhere by the places of their files."""
    keys: set[str] = set()
    there: dict[str, str] = {}
    for key, name in image_rows(store, shards, on_shard):
        keys.add(key)
        if (place := files.place(name)) is not None:
            there[place] = key
    return frozenset(keys), there


def scan(
    store: ShardStore,
    shards: Sequence[Shard],
    *,
    lists: Mapping[Place, AbstractSet[str]],
    evaluated: Mapping[str, AbstractSet[str]],
    twins: Twins | None = None,
    on_shard: Callable[[], object] = int,
) -> Scanned:
    """Hold the keys of a source against lists and evaluated layers. Memory is theirs, one row group's keys, and
    eight bytes an image.

    Args:
        lists: keys by the place of their list in the manifest.
        evaluated: keys by the name of their layer.
        twins: for layers of which the keys do not tell all; None = there are none.
    """
    found = Scanned()
    for batch, names in _columns(store, shards, on_shard, names=twins is not None):
        found.images += len(batch)
        keys = set(batch)
        out: set[str] = set()
        for at, unwanted in lists.items():
            named = keys & unwanted
            found.by_list[at] += len(named)
            out |= named
        if out:
            found.excluded += sum(key in out for key in batch)
            keys -= out
        found.photographs.extend(map(hash, keys))  # 8 bytes each, where keys of millions of images would be 150
        for name, measured in evaluated.items():
            if both := keys & measured:
                found.shared[name] += len(both)
                found.examples[name] = min(both | {found.examples.get(name, min(both))})
        if twins is None:
            continue
        rows = [row for row in zip(batch, names, strict=True) if row[0] in keys]
        for name, there in twins.theirs.items():
            left = (row for row in rows if row[0] not in evaluated[name])
            if others := dict(shared(twins.files, left, there)):
                found.shared[name] += len(others)
                found.twins[name] = min([*others.items(), *filter(None, [found.twins.get(name)])])
    return found


def read_list(path: Path) -> frozenset[str]:
    """The keys of a list: one a line; empty lines and those that begin with # are passed over.

    Raises:
        SynthgenError: it cannot be read, or holds lines that are no keys.
    """
    keys: set[str] = set()
    wrong, first = 0, ""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MOST_LETTERS):
                number += 1
                text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
                if _is_key(text) and "\ufffd" not in text:
                    keys.add(text)
                elif text and not text.startswith("#"):
                    first = first or f"line {number:,} '{short(text)}' is no image key, as DATASET/NAME is"
                    wrong += 1
                    if wrong == _MOST_WRONG:
                        break
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    if wrong:
        more = f", nor are {wrong - 1:,} others" if wrong > 1 else ""
        raise SynthgenError(f"{path}: {first}{more}; `synthgen exclude LAYER... --out FILE` writes such lists")
    return frozenset(keys)


def write_list(store: ShardStore, layers: Sequence[str], out: Path) -> int:
    """Write the image keys of layers, sorted, one a line, whole or not at all; returns how many.

    Where other layers of the store have the same files under other keys, these are written as well.

    Args:
        layers: as DATASET/SPLIT/LAYER.

    Raises:
        SynthgenError: there is no such layer, or a part of one is missing; a key cannot stand on a line; the file
            cannot be written.
    """
    found = {name: _whole(store, name) for name in sorted(set(layers))}
    keys: set[str] = set()
    header = ["# Image keys that are not to be learned from: what `exclude:` of a manifest names. Written from:"]
    for name, shards in found.items():
        own = {key for batch in image_keys(store, shards) for key in batch}
        prints = sorted({str((store.footer(shard) or {}).get("fingerprint", "unknown")) for shard in shards})
        header.append(f"#   synthgen exclude {name}: {len(own):,} images, fingerprint {' '.join(prints[:3])}")
        keys |= own
    for name, others in _others(store, found):
        header.append(f"#   the same files in {name}: {len(others):,} images")
        keys |= others
    if odd := next((key for key in sorted(keys) if not _is_key(key)), None):
        raise SynthgenError(f"the image key {odd!r} cannot stand in a list; rename the image, and ingest again")
    try:
        with (
            new_file(out, remedy="choose another --out") as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.writelines(f"{line}\n" for line in [*header, *sorted(keys)])
    except UnicodeEncodeError:
        raise SynthgenError("an image key is no Unicode and cannot stand in a list; rename the image") from None
    return len(keys)


def _others(store: ShardStore, listed: Mapping[str, Sequence[Shard]]) -> Iterator[tuple[str, set[str]]]:
    """Layers that are not listed, and their keys of images whose files are those of listed ones under other keys."""
    folders = {"/".join(parts): images_folder(store, *parts) for parts in store.layers()}
    files = {name: Files(folder) for name, folder in folders.items() if folder is not None}
    known: dict[str, dict[str, str]] = {}
    for name in sorted(files.keys() - listed.keys()):
        near = [one for one in listed if one in files and files[name].overlap(files[one])]
        for one in near:
            if one not in known:
                known[one] = placed(store, listed[one], files[one])[1]
        there = ChainMap(*(known[one] for one in near))
        try:
            rows = image_rows(store, store.layer(*name.split("/"))) if near else ()
            if others := {key for key, _ in shared(files[name], rows, there)}:
                yield name, others
        except SynthgenError as why:
            raise SynthgenError(f"{why} ({name} may have the same files under other keys)") from None


def _columns(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object], *, names: bool
) -> Iterator[tuple[list[str], list[str]]]:
    """Image keys and, where they are asked for, file names, a few at a time."""
    for shard in shards:
        for batch in store.columns(shard, ["image_key", "file_name"] if names else ["image_key"]):
            yield batch.column("image_key").to_pylist(), batch.column("file_name").to_pylist() if names else []
        on_shard()


def _whole(store: ShardStore, name: str) -> list[Shard]:
    """All shards of a layer: a list of a part of it would let the rest be learned from."""
    parts = name.split("/")
    shards = store.layer(*parts) if len(parts) == 3 else []
    if not shards:
        known = ["/".join(layer) for layer in store.layers()]
        close = did_you_mean(name, known) or f" (have: {', '.join(known) or 'none'})"
        raise SynthgenError(f"no layer '{short(name)}' in {store.root}; name one as DATASET/SPLIT/LAYER{close}")
    if len(shards) < shards[0].count:
        raise SynthgenError(f"{name} has {len(shards):,} of {shards[0].count:,} shards; let its job end, then list it")
    return shards


def _is_key(text: str) -> bool:
    return len(text) < _MOST_LETTERS and text.isprintable() and _KEY.fullmatch(text) is not None
