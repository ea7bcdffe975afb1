"""What a layer holds, by the headers of its shards, and what a source of a manifest wants of it in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from synthgen.dataloading.command_hints import richer
from synthgen.dataloading.filters import SCORES, accepted
from synthgen.dataloading.manifest_errors import short
from synthgen.dataloading.source_config import Reading, Source
from synthgen.storage.shard_store import Column, Shard, ShardStore
from synthgen.text.left_right import mirrored

_ANNOTATION = "annotations.list.element"
_CAPTION = f"{_ANNOTATION}.captions.list.element"

#: What is asked of headers, by the name that it has here.
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
    **{
        name: f"{_ANNOTATION}.{name}"
        for name in ("category", "isthing", "mask_source", "predicted_iou", "stability_score", "box_iou")
    },
}
_CAPTION_FILTERS = ("min_caption_score", "require_category_match", "drop_reasons", "caption_sources")
_FILTERS = {"mask": tuple(f"min_{score}" for score in SCORES), "caption": _CAPTION_FILTERS}

#: Images of a shard that filters are tried on.
_A_FEW = 64

#: What tasks learn from, by their metric: without it there is nothing to learn.
_LEARN_MASKS, _LEARN_PHRASES = {"pq", "miou", "maxf"}, {"ciou", "cider"}
_LEARN_NAMES, _READ_NO_MASKS = {"ap", "box_ap", "pq", "miou"}, {"box_ap", "cider"}


class Remark(NamedTuple):
    """Something about a source: at which of its keys, what, and whether it is a mistake or merely worth to know."""

    key: str
    what: str
    is_mistake: bool = True


@dataclass(frozen=True, slots=True)
class Holding:
    """What is in the shards that a source takes.

    Attributes:
        shards: those of them that are committed; missing: how many are not.
        columns: by the names of `_COLUMNS`.
        names: of categories, without repetition.
    """

    shards: tuple[Shard, ...]
    missing: int
    columns: dict[str, Column]
    names: tuple[str, ...]

    def count(self, name: str) -> int:
        """How many values a column has."""
        return self.columns[name].count

    def all_by_people(self, name: str) -> bool:
        """Whether people made all that "mask_source", or "caption_source", tells of."""
        return (self.columns[name].least, self.columns[name].most) == ("human", "human")

    def none_by_people(self, name: str) -> bool:
        """Whether people surely made none."""
        return not self.may_hold(name, "human")

    def may_hold(self, name: str, value: str) -> bool:
        """Whether a column can hold a value: it lies between the ends."""
        column = self.columns[name]
        between: bool = column.least is not None and column.least <= value <= column.most
        return between


def look(store: ShardStore, source: Reading) -> Holding:
    """Read the headers of the shards that a source takes.

    Raises:
        SynthgenError: shards of two plans, or a damaged one.
    """
    present = store.layer(*source.parts)
    taken = source.taken(present) if isinstance(source, Source) else present
    planned = 0
    if present:
        whole = [Shard(*source.parts, index, present[0].count) for index in range(present[0].count)]
        planned = len(source.taken(whole) if isinstance(source, Source) else whole)
    columns = dict.fromkeys(_COLUMNS, Column())
    names: dict[str, None] = {}
    for shard in taken:
        footer, found = store.summary(shard, list(_COLUMNS.values()))
        names.update(dict.fromkeys(footer.get("categories", ())))
        for name, path in _COLUMNS.items():
            columns[name] += found[path]
    return Holding(tuple(taken), planned - len(taken), columns, tuple(names))


def kept(store: ShardStore, source: Source, held: Holding) -> dict[str, float]:
    """Which shares of "mask"s and "caption"s pass the source's filters, in a few images of three shards.

    {} = it has no filters, or those images have neither.
    """
    every, refused = Counter[str](), Counter[str]()
    kinds = {kind for kind, keys in _FILTERS.items() if not source.model_fields_set.isdisjoint(keys)}
    if not kinds:
        return {}
    for shard in dict.fromkeys(held.shards[i * (len(held.shards) - 1) // 2] for i in range(3)):
        for sample in islice(store.read(shard), _A_FEW):
            for why, count in accepted(sample, source)[1].items():
                refused[why.partition("/")[0]] += count
            every["mask"] += sum(a.segmentation is not None for a in sample.annotations)
            every["caption"] += sum(len(a.captions) for a in sample.annotations)
    return {kind: 1 - refused[kind] / count for kind, count in every.items() if count and kind in kinds}


def machines(source: Reading, held: Holding, metric: str) -> list[str]:
    """What a source learns from, or measures by, that machines made, wholly or in part: "masks by human and sam vit_h".

    Args:
        metric: the task's `METRIC`.
    """
    found = []
    if metric not in _READ_NO_MASKS and held.count("masks") and not held.all_by_people("mask_source"):
        found.append(f"masks by {_makers(held, 'mask_source')}")
    if metric in _LEARN_PHRASES and held.count("captions"):
        drawn = source.caption_sources if isinstance(source, Source) else None
        by_people = held.all_by_people("caption_source") if drawn is None else set(drawn) == {"human"}
        if not by_people:
            found.append(f"captions by {' and '.join(drawn or ()) or _makers(held, 'caption_source')}")
    return found


def learning(
    store: ShardStore, source: Source, held: Holding, metric: str, siblings: Sequence[str]
) -> Iterator[Remark]:
    """What stands between a source and its task, and filters that nothing, or everything, would pass.

    Args:
        store: where the layer is.
        metric: the task's `METRIC`.
        siblings: layers of the same images.
    """
    yield from _names(source, held, metric)
    others = f" (of these images there are {', '.join(siblings)})" if siblings else ""
    if not held.count("masks"):
        if metric in _LEARN_MASKS:
            yield Remark(
                "task",
                f"'{source.task}' learns from masks, and this layer has none; name one that has{others}, or draw them: "
                f"{richer(store, source, 'masks')}",
            )
        elif metric not in _READ_NO_MASKS:
            yield Remark("task", f"without masks in this layer, '{source.task}' learns where, not which pixels", False)
    if metric in _LEARN_PHRASES and not held.count("captions"):
        yield Remark(
            "task",
            f"'{source.task}' learns from captions, and this layer has none; name one that has{others}, or write them: "
            f"{richer(store, source, 'captions')}",
        )
    if metric == "pq" and held.columns["isthing"].least is not False:
        yield Remark("task", f"no stuff in this layer: '{source.task}' learns things only", False)
    yield from _mask_filters(source, held, metric)
    yield from _caption_filters(source, held, metric)


def unmirrored(held: Holding, metric: str) -> Iterator[Remark]:
    """Names that keep every image in which they are from being mirrored."""
    names = [name for name in held.names if metric in _LEARN_NAMES and mirrored([name]) is None]
    if names:
        others = f" and {len(names) - 1:,} other name{'s' * (len(names) > 2)}" if len(names) > 1 else ""
        yield Remark(
            "shards",
            f"no image of '{short(names[0])}'{others} is mirrored, as nobody can tell what that would mean there; "
            "rename it in the dataset, or say augment: {flip: 0}",
            False,
        )


def measuring(source: Reading, held: Holding, metric: str, siblings: Sequence[str]) -> Iterator[Remark]:
    """Why a layer is no ground truth for its task."""
    yield from _names(source, held, metric)
    others = f" (of these images there are {', '.join(siblings)})" if siblings else ""
    for what, column, wanted in (
        ("masks", "mask_source", metric not in _READ_NO_MASKS),
        ("captions", "caption_source", metric in _LEARN_PHRASES),
    ):
        if wanted and not held.count(what):
            yield Remark(
                "shards", f"has no {what}, and '{source.task}' is measured by them; name a layer that has{others}"
            )
        elif wanted and not held.all_by_people(column):
            by = _makers(held, column)
            sentence = f"its {what} are by {by}, and ground truth is by people; name a layer that is{others}"
            yield Remark("shards", sentence)


def _makers(held: Holding, column: str) -> str:
    """The first and the last by name; "unknown makers", where nobody is named."""
    known = [name for name in (held.columns[column].least, held.columns[column].most) if name is not None]
    return " and ".join(dict.fromkeys(known)) or "unknown makers"


def _names(source: Reading, held: Holding, metric: str) -> Iterator[Remark]:
    if not held.count("objects"):
        yield Remark("shards", "holds images without a single annotation; name another layer")
    elif metric in _LEARN_NAMES and not held.columns["category"].most:
        yield Remark("task", f"'{source.task}' tells names apart, and no object of this layer has one; try 'referring'")


def _mask_filters(source: Source, held: Holding, metric: str) -> Iterator[Remark]:
    """Thresholds on masks, and what weighs them."""
    keys = [f"min_{score}" for score in SCORES if getattr(source, f"min_{score}") is not None]
    keys += ["mask_weight"] if source.mask_weight else []
    for key in keys:
        score = str(source.mask_weight) if key == "mask_weight" else key.removeprefix("min_")
        column, least = held.columns[score], getattr(source, key)
        if metric in _READ_NO_MASKS or not held.count("masks"):
            why = f"'{source.task}' reads no masks" if metric in _READ_NO_MASKS else "there are no masks here"
            yield Remark(key, f"changes nothing, as {why}; take it out", False)
        elif held.all_by_people("mask_source"):
            yield Remark(key, "changes nothing, as all masks here are by people; take it out", False)
        elif key == "mask_weight":
            if not column.count:
                yield Remark(key, f"changes nothing, as masks of this layer carry no {score}", False)
        elif not column.count:
            rather = [f"min_{other}" for other in reversed(SCORES) if held.count(other)]
            remedy = f"use {' or '.join(rather)}" if rather else "take it out"
            yield Remark(key, f"masks of this layer carry no {score}; {remedy}")
        elif column.most < least:
            sentence = f"no mask reaches {least:g}, the best has {column.most:.3f}; lower it"
            yield Remark(key, sentence, held.none_by_people("mask_source"))
        elif held.none_by_people("mask_source") and column.count < held.count("masks"):
            lacking = held.count("masks") - column.count
            yield Remark(key, f"{lacking:,} masks carry no {score}, and will not be learned from", False)


def _caption_filters(source: Source, held: Holding, metric: str) -> Iterator[Remark]:
    """Filters on captions."""
    if metric not in _LEARN_PHRASES or not held.count("captions"):
        for key in _CAPTION_FILTERS:
            if metric not in _LEARN_PHRASES and getattr(source, key) not in (None, False, ()):
                yield Remark(key, f"changes nothing, as '{source.task}' reads no captions; take it out", False)
        return
    by_people = held.all_by_people("caption_source")
    if (least := source.min_caption_score) is not None:
        score = held.columns["caption_score"]
        if by_people:
            yield Remark("min_caption_score", "changes nothing, as all captions here are by people; take it out", False)
        elif not score.count:
            yield Remark("min_caption_score", "captions of this layer carry no score; use drop_reasons, or take it out")
        elif score.most < least:
            sentence = f"no caption reaches {least:g}, the best has {score.most:.3f}; lower it"
            yield Remark("min_caption_score", sentence, held.none_by_people("caption_source"))
    if source.require_category_match and not held.count("category_match"):
        what = "changes nothing, as captions by people pass" if by_people else "no caption of this layer was checked"
        yield Remark("require_category_match", f"{what}; take it out", not by_people)
    if source.drop_reasons and not held.count("reasons"):
        yield Remark("drop_reasons", "changes nothing, as no caption of this layer has a reason; take it out", False)
    wanted = source.caption_sources or ()
    ends = dict.fromkeys((str(held.columns["caption_source"].least), str(held.columns["caption_source"].most)))
    lost = [name for name in wanted if not held.may_hold("caption_source", name)]
    if lost:
        sentence = f"no captions by {', '.join(lost)} in this layer, but by {' and '.join(ends)}; name these"
        yield Remark("caption_sources", sentence, len(lost) == len(wanted))
