"""Leakage checks by image key: reads and writes exclude lists, and compares the keys of sources and evaluated layers.

Keys and file paths are compared, not pixels: a copy under another name is not detected.
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
from synthgen.errors import SynthgenError, did_you_mean, escape_control_chars
from synthgen.storage.atomic import atomic_write
from synthgen.storage.disk import create_folder
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: "coco/000000391895": the dataset and the name of the photograph in it.
_KEY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}/.*\S")

#: Maximum length of a path, hence of a key.
_MAX_KEY_LENGTH = 4_500

#: Invalid lines of a list are counted up to this number.
_MAX_INVALID_LINES = 1_000


@dataclass(slots=True)
class KeyScan:
    """Result of the scan of one source's keys.

    Attributes:
        num_images: rows; num_excluded: images that a list names.
        image_hashes: int64, a hash of the key of each other image, to find it in other sources.
        num_excluded_by_list: by list, how many it names.
        num_shared: by evaluated layer, how many of its images are in the source; shared_examples: one key of them.
        same_file_examples: by evaluated layer, one file that it has under another key: (key here, key there).
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
    """The image paths of a source, and of evaluated layers that may have the same files under other keys.

    Attributes:
        eval_keys_by_path: by the name of an evaluated layer, its keys by the paths of its files.
    """

    image_paths: ImagePaths
    eval_keys_by_path: Mapping[str, Mapping[str, str]]


def iter_image_keys(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int
) -> Iterator[list[str]]:
    """Yield the keys of shards, a few at a time. Reads no other column.

    Args:
        store: the store that has the shards.
        shards: the shards to read, in the order of the keys.
        on_shard: called after each shard.
    """
    return (keys for keys, _ in _iter_columns(store, shards, on_shard, with_file_names=False))


def iter_image_rows(
    store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int
) -> Iterator[tuple[str, str]]:
    """Yield (image key, file name) of the rows of shards. Reads no other column.

    Args:
        store: the store that has the shards.
        shards: the shards to read, in the order of the rows.
        on_shard: called after each shard.
    """
    for keys, names in _iter_columns(store, shards, on_shard, with_file_names=True):
        yield from zip(keys, names, strict=True)


def index_keys_by_path(
    store: ShardStore, shards: Iterable[Shard], image_paths: ImagePaths, on_shard: Callable[[], object] = int
) -> tuple[frozenset[str], dict[str, str]]:
    """All keys of shards, and the keys of existing files by path.

    Args:
        store: the store that has the shards.
        shards: the shards to read.
        image_paths: resolves a file name of these shards.
        on_shard: called after each shard.
    """
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
    """Compare the keys of a source with exclude lists and evaluated layers.

    Memory: the lists and layers, the keys of one row group, and eight bytes per image.

    Args:
        store: where the shards are.
        shards: of the source.
        exclude_lists: keys by the location of their list in the manifest.
        eval_keys: keys by the name of their layer.
        same_file_index: for layers that may have the same files under other keys; None = there are none.
        on_shard: called for each shard that is read.
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
        found.image_hashes.extend(map(hash, keys))  # 8 bytes each instead of 150 for the key
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
    """The keys of a list file, one per line; empty lines and lines that begin with # are skipped.

    Args:
        path: a text file in UTF-8.

    Raises:
        SynthgenError: it cannot be read, or has lines that are not keys.
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
                    shown = truncate(escape_control_chars(text))
                    first = first or f"line {number:,} '{shown}' is no image key, as DATASET/NAME is"
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
    """Write the sorted image keys of layers to a list file, atomically; returns their number.

    If other layers of the store have the same files under other keys, these keys are written, too.

    Args:
        store: where the layers are.
        layers: in the form DATASET/SPLIT/LAYER.
        out: the list file; replaced if it exists.

    Raises:
        SynthgenError: a layer is missing or incomplete; a key contains a line break; the file cannot be written.
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
    create_folder(out.parent, remedy="choose another --out")
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
    """Layers that are not listed but have the same files under other keys, and these keys."""
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
    """Image keys and, if requested, file names, a few at a time."""
    for shard in shards:
        for batch in store.read_columns(shard, ["image_key", "file_name"] if with_file_names else ["image_key"]):
            yield (
                batch.column("image_key").to_pylist(),
                batch.column("file_name").to_pylist() if with_file_names else [],
            )
        on_shard()


def _load_complete_layer(store: ShardStore, name: str) -> list[Shard]:
    """All shards of a layer. An incomplete layer is an error: its list would be incomplete, too."""
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
