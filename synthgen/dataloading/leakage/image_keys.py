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

from synthgen.dataloading.leakage.same_files import ImagePaths, find_same_files
from synthgen.dataloading.manifest_errors import Location, truncate
from synthgen.errors import SynthgenError, did_you_mean
from synthgen.storage.atomic import atomic_write
from synthgen.storage.run_log import find_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: "coco/000000391895": a dataset's name, and what the photograph is called in it.
_KEY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}/.*\S")

#: No path is longer, so no key is.
_MAX_KEY_LENGTH = 4_500

#: In a list with more lines that are no keys, the others are not counted.
_MAX_INVALID_LINES = 1_000


@dataclass(slots=True)
class KeyScan:
    """What the keys of one source say.

    Attributes:
        num_images: rows; num_excluded: those that a list names.
        image_hashes: int64, a number for the key of each of the others, by which the same one of another source is
            told.
        num_excluded_by_list: by list, how many it names.
        num_shared: by evaluated layer, how many of its images would be learned from; shared_examples: one key of them.
        same_file_examples: by evaluated layer, one of those that it has under another key: (key here, key there).
    """

    num_images: int = 0
    num_excluded: int = 0
    num_excluded_by_list: Counter[Location] = field(default_factory=Counter)
    num_shared: Counter[str] = field(default_factory=Counter)
    shared_examples: dict[str, str] = field(default_factory=dict)
    same_file_examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    image_hashes: array[int] = field(default_factory=partial(array, "q"))


@dataclass(frozen=True, slots=True)
class SameFileIndex:
    """Where a source's images are, and those of evaluated layers that may be the same files under other keys.

    Attributes:
        eval_keys_by_path: by the name of an evaluated layer, its keys by the places of its files.
    """

    image_paths: ImagePaths
    eval_keys_by_path: Mapping[str, Mapping[str, str]]


def iter_image_keys(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int
) -> Iterator[list[str]]:
    """The keys of shards, a few at a time: no other column is read."""
    return (keys for keys, _ in _iter_columns(store, shards, on_shard, with_file_names=False))


def iter_image_rows(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int
) -> Iterator[tuple[str, str]]:
    """(image key, file name) of the rows of shards: no other column is read."""
    for keys, names in _iter_columns(store, shards, on_shard, with_file_names=True):
        yield from zip(keys, names, strict=True)


def index_keys_by_path(
    store: ShardStore, shards: Iterable[Shard], image_paths: ImagePaths, on_shard: Callable[[], object] = int
) -> tuple[frozenset[str], dict[str, str]]:
    """All keys of shards, and those of images that are somewhere by the places of their files."""
    keys: set[str] = set()
    there: dict[str, str] = {}
    for key, name in iter_image_rows(store, shards, on_shard):
        keys.add(key)
        if (place := image_paths.resolve_path(name)) is not None:
            there[place] = key
    return frozenset(keys), there


def scan_source_keys(
    store: ShardStore,
    shards: Sequence[Shard],
    *,
    exclude_lists: Mapping[Location, AbstractSet[str]],
    eval_keys: Mapping[str, AbstractSet[str]],
    same_file_index: SameFileIndex | None = None,
    on_shard: Callable[[], object] = int,
) -> KeyScan:
    """Hold the keys of a source against lists and evaluated layers. Memory is theirs, one row group's keys, and
    eight bytes an image.

    Args:
        exclude_lists: keys by the place of their list in the manifest.
        eval_keys: keys by the name of their layer.
        same_file_index: for layers of which the keys do not tell all; None = there are none.
    """
    found = KeyScan()
    for batch, names in _iter_columns(store, shards, on_shard, with_file_names=same_file_index is not None):
        found.num_images += len(batch)
        keys = set(batch)
        out: set[str] = set()
        for at, unwanted in exclude_lists.items():
            named = keys & unwanted
            found.num_excluded_by_list[at] += len(named)
            out |= named
        if out:
            found.num_excluded += sum(key in out for key in batch)
            keys -= out
        found.image_hashes.extend(map(hash, keys))  # 8 bytes each, where keys of millions of images would be 150
        for name, measured in eval_keys.items():
            if both := keys & measured:
                found.num_shared[name] += len(both)
                found.shared_examples[name] = min(both | {found.shared_examples.get(name, min(both))})
        if same_file_index is None:
            continue
        rows = [row for row in zip(batch, names, strict=True) if row[0] in keys]
        for name, there in same_file_index.eval_keys_by_path.items():
            left = (row for row in rows if row[0] not in eval_keys[name])
            if others := dict(find_same_files(same_file_index.image_paths, left, there)):
                found.num_shared[name] += len(others)
                found.same_file_examples[name] = min(
                    [*others.items(), *filter(None, [found.same_file_examples.get(name)])]
                )
    return found


def read_exclude_list(path: Path) -> frozenset[str]:
    """The keys of a list: one a line; empty lines and those that begin with # are passed over.

    Raises:
        SynthgenError: it cannot be read, or holds lines that are no keys.
    """
    keys: set[str] = set()
    wrong, first = 0, ""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_KEY_LENGTH):
                number += 1
                text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
                if _is_key(text) and "\ufffd" not in text:
                    keys.add(text)
                elif text and not text.startswith("#"):
                    first = first or f"line {number:,} '{truncate(text)}' is no image key, as DATASET/NAME is"
                    wrong += 1
                    if wrong == _MAX_INVALID_LINES:
                        break
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    if wrong:
        more = f", nor are {wrong - 1:,} others" if wrong > 1 else ""
        raise SynthgenError(f"{path}: {first}{more}; `synthgen exclude LAYER... --out FILE` writes such lists")
    return frozenset(keys)


def write_exclude_list(store: ShardStore, layers: Sequence[str], out: Path) -> int:
    """Write the image keys of layers, sorted, one a line, whole or not at all; returns how many.

    Where other layers of the store have the same files under other keys, these are written as well.

    Args:
        layers: as DATASET/SPLIT/LAYER.

    Raises:
        SynthgenError: there is no such layer, or a part of one is missing; a key cannot stand on a line; the file
            cannot be written.
    """
    found = {name: _load_complete_layer(store, name) for name in sorted(set(layers))}
    keys: set[str] = set()
    header = ["# Image keys that are not to be learned from: what `exclude:` of a manifest names. Written from:"]
    for name, shards in found.items():
        own = {key for batch in iter_image_keys(store, shards) for key in batch}
        prints = sorted({str((store.read_footer(shard) or {}).get("fingerprint", "unknown")) for shard in shards})
        header.append(f"#   synthgen exclude {name}: {len(own):,} images, fingerprint {' '.join(prints[:3])}")
        keys |= own
    for name, others in _find_unlisted_copies(store, found):
        header.append(f"#   the same files in {name}: {len(others):,} images")
        keys |= others
    if odd := next((key for key in sorted(keys) if not _is_key(key)), None):
        raise SynthgenError(f"the image key {odd!r} cannot stand in a list; rename the image, and ingest again")
    try:
        with (
            atomic_write(out, remedy="choose another --out") as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.writelines(f"{line}\n" for line in [*header, *sorted(keys)])
    except UnicodeEncodeError:
        raise SynthgenError("an image key is no Unicode and cannot stand in a list; rename the image") from None
    return len(keys)


def _find_unlisted_copies(store: ShardStore, listed: Mapping[str, Sequence[Shard]]) -> Iterator[tuple[str, set[str]]]:
    """Layers that are not listed, and their keys of images whose files are those of listed ones under other keys."""
    folders = {"/".join(parts): find_image_folder(store, *parts) for parts in store.list_layers()}
    files = {name: ImagePaths(folder) for name, folder in folders.items() if folder is not None}
    known: dict[str, dict[str, str]] = {}
    for name in sorted(files.keys() - listed.keys()):
        near = [one for one in listed if one in files and files[name].overlaps(files[one])]
        for one in near:
            if one not in known:
                known[one] = index_keys_by_path(store, listed[one], files[one])[1]
        there = ChainMap(*(known[one] for one in near))
        try:
            rows = iter_image_rows(store, store.list_shards(*name.split("/"))) if near else ()
            if others := {key for key, _ in find_same_files(files[name], rows, there)}:
                yield name, others
        except SynthgenError as why:
            raise SynthgenError(f"{why} ({name} may have the same files under other keys)") from None


def _iter_columns(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object], *, with_file_names: bool
) -> Iterator[tuple[list[str], list[str]]]:
    """Image keys and, where they are asked for, file names, a few at a time."""
    for shard in shards:
        for batch in store.read_columns(shard, ["image_key", "file_name"] if with_file_names else ["image_key"]):
            yield (
                batch.column("image_key").to_pylist(),
                batch.column("file_name").to_pylist() if with_file_names else [],
            )
        on_shard()


def _load_complete_layer(store: ShardStore, name: str) -> list[Shard]:
    """All shards of a layer: a list of a part of it would let the rest be learned from."""
    parts = name.split("/")
    shards = store.list_shards(*parts) if len(parts) == 3 else []
    if not shards:
        known = ["/".join(layer) for layer in store.list_layers()]
        close = did_you_mean(name, known) or f" (have: {', '.join(known) or 'none'})"
        raise SynthgenError(f"no layer '{truncate(name)}' in {store.root}; name one as DATASET/SPLIT/LAYER{close}")
    if len(shards) < shards[0].num_shards:
        raise SynthgenError(
            f"{name} has {len(shards):,} of {shards[0].num_shards:,} shards; let its job end, then list it"
        )
    return shards


def _is_key(text: str) -> bool:
    return len(text) < _MAX_KEY_LENGTH and text.isprintable() and _KEY_PATTERN.fullmatch(text) is not None
