"""Guards against learning from what is measured on: lists of image keys to leave out, and a look at all keys before.

Keys are compared, not pixels: the same photograph under two keys (a copy under another name) is not seen.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from synthgen.errors import SynthgenError, did_you_mean
from synthgen.reading.mistakes import Place, short
from synthgen.records.files import new_file
from synthgen.records.store import Shard, ShardStore

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
    """

    images: int = 0
    excluded: int = 0
    by_list: Counter[Place] = field(default_factory=Counter)
    shared: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    photographs: array[int] = field(default_factory=partial(array, "q"))


def image_keys(store: ShardStore, shards: Iterable[Shard], on_shard: Callable[[], object] = int) -> Iterator[list[str]]:
    """The keys of shards, a few at a time: no other column is read."""
    for shard in shards:
        for batch in store.columns(shard, ["image_key"]):
            yield batch.column("image_key").to_pylist()
        on_shard()


def scan(
    store: ShardStore,
    shards: Sequence[Shard],
    *,
    lists: Mapping[Place, AbstractSet[str]],
    evaluated: Mapping[str, AbstractSet[str]],
    on_shard: Callable[[], object] = int,
) -> Scanned:
    """Hold the keys of a source against lists and evaluated layers. Memory is theirs, one row group's keys, and
    eight bytes an image.

    Args:
        lists: keys by the place of their list in the manifest.
        evaluated: keys by the name of their layer.
    """
    found = Scanned()
    for batch in image_keys(store, shards, on_shard):
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
