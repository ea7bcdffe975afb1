"""Statistics of the layer of a manifest's source: from the headers of its shards, and from a few images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice

from synthgen.dataloading.filters import MASK_SCORES, apply_filters
from synthgen.dataloading.source_config import LayerSource, TrainSource
from synthgen.storage.shard_store import ColumnStats, Shard, ShardStore

_ANNOTATION = "annotations.list.element"
_CAPTION = f"{_ANNOTATION}.captions.list.element"

#: Name of a column here -> its path in the schema.
_COLUMNS = {
    "images": "image_id",
    "errors": "error",
    "objects": f"{_ANNOTATION}.id",
    "masks": f"{_ANNOTATION}.segmentation.counts",
    "captions": f"{_CAPTION}.text",
    "caption_source": f"{_CAPTION}.source",
    "caption_score": f"{_CAPTION}.score",
    "category_match": f"{_CAPTION}.category_match",
    "reasons": f"{_CAPTION}.reasons.list.element",
    "flags": f"{_ANNOTATION}.flags.list.element",
    **{name: f"{_ANNOTATION}.{name}" for name in ("category", "iscrowd", "isthing", "mask_source", *MASK_SCORES)},
}
CAPTION_FILTERS = ("min_caption_score", "require_category_match", "drop_reasons", "caption_sources")
#: Kind of label -> the keys of a source that filter it.
_FILTERS = {"mask": tuple(f"min_{score}" for score in MASK_SCORES), "caption": CAPTION_FILTERS}

#: Images per shard that estimate the effect of filters.
_PROBED_IMAGES = 64


@dataclass(frozen=True, slots=True)
class LayerStats:
    """Statistics of the shards that a source takes.

    Attributes:
        shards: the committed ones; num_missing_shards: how many are not committed.
        columns: by the names of `_COLUMNS`.
        category_names: unique names of categories.
        num_stale_shards: how many were made from other rows than those of their parent shards now.
    """

    shards: tuple[Shard, ...]
    num_missing_shards: int
    columns: dict[str, ColumnStats]
    category_names: tuple[str, ...]
    num_stale_shards: int

    def count(self, name: str) -> int:
        """Number of values in the column `name`."""
        return self.columns[name].count

    def is_all_human(self, name: str) -> bool:
        """Whether people made everything that a column describes; its `name` is "mask_source" or "caption_source"."""
        return (self.columns[name].minimum, self.columns[name].maximum) == ("human", "human")

    def has_no_human(self, name: str) -> bool:
        """Whether the column `name`, "mask_source" or "caption_source", certainly has no human source."""
        return not self.may_contain(name, "human")

    def may_contain(self, name: str, value: str) -> bool:
        """Whether the column `name` may hold `value`: the value is between its minimum and maximum."""
        column = self.columns[name]
        between: bool = column.minimum is not None and column.minimum <= value <= column.maximum
        return between


def load_layer_stats(store: ShardStore, source: LayerSource) -> LayerStats:
    """Read the headers of the shards that a source takes. A layer without shards has counts of 0.

    Args:
        store: where the layer is.
        source: names the layer and, for training, its share of the shards.

    Raises:
        SynthgenError: shards of two plans, or a damaged one.
    """
    present = store.list_shards(*source.parts)
    taken = source.select_shards(present) if isinstance(source, TrainSource) else present
    planned = 0
    if present:
        planned = present[0].num_shards  # of any size, as it comes from a file name
        if isinstance(source, TrainSource):
            planned = source.count_shards(planned)
    columns = dict.fromkeys(_COLUMNS, ColumnStats())
    names: dict[str, None] = {}
    num_stale = 0
    for shard in taken:
        footer, found = store.read_column_stats(shard, list(_COLUMNS.values()))
        names.update(dict.fromkeys(footer.get("categories", ())))
        for name, path in _COLUMNS.items():
            columns[name] += found[path]
        num_stale += store.is_stale(shard, footer)
    return LayerStats(tuple(taken), planned - len(taken), columns, tuple(names), num_stale)


def estimate_kept_shares(store: ShardStore, source: TrainSource, stats: LayerStats) -> dict[str, float]:
    """The shares of "mask"s and "caption"s that pass the source's filters, from a few images of three shards.

    {} = it has no filters, or those images have no masks and captions.

    Args:
        store: the store that has the source's shards.
        source: the source of a manifest, with its filters.
        stats: the statistics of the source's layer; they list its shards.
    """
    every, refused = Counter[str](), Counter[str]()
    kinds = {kind for kind, keys in _FILTERS.items() if not source.model_fields_set.isdisjoint(keys)}
    if not kinds:
        return {}
    for shard in dict.fromkeys(stats.shards[i * (len(stats.shards) - 1) // 2] for i in range(3)):
        for sample in islice(store.read_samples(shard), _PROBED_IMAGES):
            for why, count in apply_filters(sample, source)[1].items():
                refused[why.partition("/")[0]] += count
            every["mask"] += sum(a.segmentation is not None for a in sample.annotations)
            every["caption"] += sum(len(a.captions) for a in sample.annotations)
    return {kind: 1 - refused[kind] / count for kind, count in every.items() if count and kind in kinds}
