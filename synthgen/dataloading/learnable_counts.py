"""How many of a layer's objects, masks and captions a task can learn from: crowds are no instances, and so on.

The headers of shards count what is there. They also tell whether a layer holds anything that a task does not learn; if
so, a few narrow columns are read, never the masks themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synthgen.storage.shard_store import ShardStore

if TYPE_CHECKING:
    from synthgen.dataloading.layer_stats import LayerStats

#: Metrics of tasks that learn a name of each object; that learn things only; that leave out crowds; and parts.
_NEED_NAMES = frozenset({"ap", "box_ap", "pq", "miou"})
_NEED_THINGS = frozenset({"ap", "box_ap"})
_NEED_PHRASES = frozenset({"ciou", "cider"})
_TAKE_CROWDS = frozenset({"miou", "maxf"})
_LEAVE_PARTS = frozenset({"pq", "miou"})

#: An object with one of these has no box: its mask is all that a task can learn.
_NO_BOX = frozenset({"degenerate", "outside"})

_ELEMENT = "annotations.list.element"

#: Why a task cannot learn from an object, in the order in which reasons are given.
REASONS = {
    "error": "are in images with an error",
    "crowd": "are crowds",
    "stuff": "are stuff",
    "unnamed": "have no name",
    "part": "are parts of others",
    "phrase": "have no phrase",
    "place": "have neither a usable box nor a mask",
}


@dataclass(frozen=True, slots=True)
class LearnableCounts:
    """What a task can learn of a layer.

    Attributes:
        objects: annotations that become objects of the task; masks: of them, with a mask; captions: theirs.
        reasons: key of `REASONS` -> objects that do not, each counted under its first reason.
    """

    objects: int
    masks: int
    captions: int
    reasons: Counter[str] = field(default_factory=Counter)

    def describe_reasons(self) -> str:
        """ "2 are crowds, 1 has no name" as one clause."""
        return ", ".join(f"{self.reasons[key]:,} {what}" for key, what in REASONS.items() if self.reasons[key])


def count_learnable(store: ShardStore, stats: LayerStats, metric: str) -> LearnableCounts:
    """Count what a task can learn of the shards of a source.

    Args:
        store: where the shards are.
        stats: of the shards, from `load_layer_stats`.
        metric: the task's `METRIC`.
    """
    if not _needs_count(stats, metric):
        return LearnableCounts(stats.count("objects"), stats.count("masks"), stats.count("captions"))
    objects = masks = captions = 0
    reasons: Counter[str] = Counter()
    for shard in stats.shards:
        columns = ["error", f"{_ELEMENT}.iscrowd", f"{_ELEMENT}.isthing", f"{_ELEMENT}.segmentation.size"]
        columns += [f"{_ELEMENT}.{name}" for name in ("category", "flags", "captions.list.element.source")]
        for batch in store.read_columns(shard, columns):
            kept, with_mask, num_captions, why = _count_batch(batch, metric)
            objects += int(kept.sum())
            masks += int((kept & with_mask).sum())
            captions += int(num_captions[kept].sum())
            reasons.update(why)
    return LearnableCounts(objects, masks, captions, reasons)


def _needs_count(stats: LayerStats, metric: str) -> bool:
    """Whether a layer may hold something that the task cannot learn from; otherwise its headers' counts are true."""
    flags = [*_NO_BOX, *(["part"] if metric in _LEAVE_PARTS else [])]
    return (
        (metric not in _TAKE_CROWDS and stats.columns["iscrowd"].maximum is True)
        or (metric in _NEED_THINGS and stats.columns["isthing"].minimum is False)
        or (metric in _NEED_NAMES and stats.columns["category"].minimum == "")
        or metric in _NEED_PHRASES
        or stats.count("errors") > 0
        or any(stats.may_contain("flags", flag) for flag in flags)
    )


def _count_batch(
    batch: Any, metric: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64], Counter[str]]:
    """(object of the task, has a mask, number of captions) of each annotation of some rows, and the reasons."""
    lists = batch.column("annotations")
    flat = lists.flatten()
    count = len(flat)
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    with_mask = _to_bools(flat.field("segmentation").is_valid())
    num_captions = np.asarray(flat.field("captions").value_lengths().fill_null(0)).astype(np.int64)
    none = np.zeros(count, np.bool_)
    checks = {"error": np.repeat(_to_bools(batch.column("error").is_valid()), lengths)}
    checks["crowd"] = none if metric in _TAKE_CROWDS else _to_bools(flat.field("iscrowd"))
    checks["stuff"] = ~_to_bools(flat.field("isthing")) if metric in _NEED_THINGS else none
    checks["unnamed"] = _where(flat.field("category"), lambda name: not name) if metric in _NEED_NAMES else none
    flags = flat.field("flags")
    checks["part"] = _have_flag(flags, frozenset({"part"})) if metric in _LEAVE_PARTS else none
    checks["phrase"] = num_captions == 0 if metric in _NEED_PHRASES else none
    checks["place"] = ~with_mask & _have_flag(flags, _NO_BOX)
    kept = ~none
    reasons: Counter[str] = Counter()
    for reason in REASONS:
        reasons[reason] += int((kept & checks[reason]).sum())
        kept &= ~checks[reason]
    return kept, with_mask, num_captions, reasons


def _to_bools(column: Any) -> NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.bool_)


def _where(column: Any, test: Callable[[str | None], bool]) -> NDArray[np.bool_]:
    """Whether each text of a column passes a test; equal texts are tested once."""
    coded = column.dictionary_encode()
    passed = np.array([test(value) for value in coded.dictionary.to_pylist()] + [test(None)], np.bool_)
    return np.asarray(passed[np.asarray(coded.indices.fill_null(len(passed) - 1))])


def _have_flag(column: Any, flags: frozenset[str]) -> NDArray[np.bool_]:
    """Whether each list of a column has one of the flags."""
    found = _where(column.flatten(), lambda flag: flag in flags)
    lengths = np.asarray(column.value_lengths().fill_null(0))
    result = np.zeros(len(column), np.bool_)
    result[np.repeat(np.arange(len(column)), lengths)[found]] = True
    return result
