"""What an import is asked for, and what it reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.generate.imports.matching import MatchRules
from synthgen.storage.shard_store import Shard, ShardStore

#: The layer that an import writes, unless the user names another.
DEFAULT_LAYER = "imported"

#: The `mask_source` of masks of which neither the file nor the user says who drew them.
UNKNOWN_MODEL = "imported"

#: Layers that are made from a dataset's own files.
SOURCE_LAYERS = frozenset({"annotations", "human", "regions"})

_MAX_MODEL_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """An import as a user asks for it.

    Attributes:
        source: a COCO file or a folder of PNG masks.
        store: root of the shards.
        place: (dataset, split, layer): the layer whose boxes get the masks; with `replaces`, whose masks are replaced.
        layer: the layer to write; not used with `replaces`.
        model: who drew the masks of which the file does not say it; None = not said.
        rules: how masks find their boxes.
        replaces: the masks replace those of the layer `place`.
    """

    source: Path
    store: Path
    place: tuple[str, str, str]
    layer: str = DEFAULT_LAYER
    model: str | None = None
    rules: MatchRules = field(default_factory=MatchRules)
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        layer: the layer, "dataset/split/layer".
        shards: of the layer; written: those that were written now.
        images, boxes, masks: numbers in the whole layer.
        imported: masks of the file that are in the layer. Of a repeated import also those of earlier runs.
        unchanged: masks of the file that the layer had already; only where masks are replaced.
        without_mask: boxes that the file has no fitting mask for; only of a new layer.
        unused: reason (a key of `matching.UNUSED_REASONS`) -> number of masks of the file that became no mask.
        examples: reason -> the first ones.
        dropped: reviewed masks of shards that were written again, which left them because their boxes changed.
    """

    layer: str
    shards: int
    written: int
    images: int
    boxes: int
    masks: int
    imported: int
    unchanged: int
    without_mask: int
    unused: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    dropped: int = 0


def find_place(store: Path, text: str) -> tuple[str, str, str]:
    """The committed layer that a text such as "coco", "coco/train" or "coco/train/annotations" names.

    Args:
        store: root of the shards.
        text: DATASET, DATASET/SPLIT or DATASET/SPLIT/LAYER; without a layer, "annotations".

    Raises:
        SynthgenError: there is none, or several splits.
    """
    layers = ShardStore(store).list_layers() if store.is_dir() else []
    parts = text.strip("/").split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise SynthgenError(f"'{text}' should be DATASET, DATASET/SPLIT or DATASET/SPLIT/LAYER")
    layer = parts[2] if len(parts) == 3 else "annotations"
    found = [place for place in layers if list(place[: len(parts[:2])]) == parts[:2] and place[2] == layer]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join("/".join(place[:2]) for place in found)
        raise SynthgenError(f"{text} has several splits ({names}); name one of them")
    have = ", ".join("/".join(place) for place in layers) or "none"
    hint = f"`synthgen ingest` reads the boxes of a dataset (have: {have})"
    raise SynthgenError(f"no layer {'/'.join([*parts[:2], layer])} in {store}; {hint}")


def check_model(model: str | None) -> str | None:
    """The name of a model, which becomes the `mask_source`; None = not said.

    Args:
        model: what the user gave.

    Raises:
        SynthgenError: it cannot be such a name.
    """
    if model is None:
        return None
    clean = model.strip()
    if not clean or len(clean) > _MAX_MODEL_CHARS or not clean.isprintable():
        raise SynthgenError(f"'{model[:40]}' cannot name a model; use 1 to {_MAX_MODEL_CHARS} printable characters")
    return clean


def complete_shards(store: ShardStore, place: tuple[str, str, str]) -> list[Shard]:
    """The shards of a complete layer.

    Args:
        store: where they lie.
        place: (dataset, split, layer).

    Raises:
        SynthgenError: shards are missing.
    """
    shards = store.list_shards(*place)
    if not shards or len(shards) < shards[0].num_shards:
        have = f"{len(shards)} of {shards[0].num_shards} shards" if shards else "no shards"
        raise SynthgenError(
            f"{'/'.join(place)} has {have}; make it first (`synthgen ingest`, or the stage that writes it)"
        )
    return shards


def sum_unused(counts: Counter[str], footers: Sequence[Mapping[str, object]]) -> dict[str, int]:
    """The unused masks by reason: those that `counts` has, and those that the footers of shards count.

    Args:
        counts: masks that belong to no shard.
        footers: of the shards; untrusted.
    """
    total = Counter(counts)
    for footer in footers:
        own = footer.get("import")
        unused = own.get("unused") if isinstance(own, dict) else None
        if isinstance(unused, dict):
            total.update({reason: n for reason, n in unused.items() if isinstance(n, int)})
    return dict(sorted(total.items()))
