"""Checks of a manifest's sources against the statistics of their layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from synthgen.dataloading.command_hints import suggest_generate_command
from synthgen.dataloading.filters import MASK_SCORES
from synthgen.dataloading.layer_stats import CAPTION_FILTERS, LayerStats
from synthgen.dataloading.learnable_counts import LearnableCounts
from synthgen.dataloading.manifest_errors import truncate
from synthgen.dataloading.source_config import LayerSource, TrainSource
from synthgen.storage.shard_store import ShardStore
from synthgen.text.left_right import mirror_texts

#: Metric of a task -> the labels that it requires.
_METRICS_NEEDING_MASKS = {"pq", "miou", "maxf", "mask_iou"}
_METRICS_NEEDING_PHRASES = {"ciou", "cider"}
_METRICS_NEEDING_NAMES, _METRICS_IGNORING_MASKS = {"ap", "box_ap", "pq", "miou"}, {"box_ap", "cider"}


class SourceIssue(NamedTuple):
    """A finding about a source: its key, the message, and whether it is an error or a warning."""

    key: str
    message: str
    is_error: bool = True


def describe_synthetic_labels(source: LayerSource, stats: LayerStats, metric: str) -> list[str]:
    """The generated labels that a source trains on or evaluates against: "masks by human and sam vit_h".

    Args:
        source: the source, or the evaluated layer.
        stats: of its shards.
        metric: the task's `METRIC`.
    """
    found = []
    if metric not in _METRICS_IGNORING_MASKS and stats.count("masks") and not stats.is_all_human("mask_source"):
        found.append(f"masks by {_describe_label_origins(stats, 'mask_source')}")
    if metric in _METRICS_NEEDING_PHRASES and stats.count("captions"):
        drawn = source.caption_sources if isinstance(source, TrainSource) else None
        by_people = stats.is_all_human("caption_source") if drawn is None else set(drawn) == {"human"}
        if not by_people:
            found.append(f"captions by {' and '.join(drawn or ()) or _describe_label_origins(stats, 'caption_source')}")
    return found


def check_train_source(
    store: ShardStore, source: TrainSource, stats: LayerStats, metric: str, sibling_layers: Sequence[str]
) -> Iterator[SourceIssue]:
    """Errors that prevent the training on a source, and filters that reject nothing or everything.

    Args:
        store: where the layer is.
        source: a source of the mixture.
        stats: of its shards.
        metric: the task's `METRIC`.
        sibling_layers: layers of the same images.
    """
    yield from _check_categories(source, stats, metric)
    others = f" (of these images there are {', '.join(sibling_layers)})" if sibling_layers else ""
    if not stats.count("masks"):
        if metric in _METRICS_NEEDING_MASKS:
            yield SourceIssue(
                "task",
                f"'{source.task}' learns from masks, and this layer has none; name one that has{others}, or draw them: "
                f"{suggest_generate_command(store, source, 'masks')}",
            )
        elif metric not in _METRICS_IGNORING_MASKS:
            yield SourceIssue(
                "task", f"without masks in this layer, '{source.task}' learns where, not which pixels", False
            )
    if metric in _METRICS_NEEDING_PHRASES and not stats.count("captions"):
        yield SourceIssue(
            "task",
            f"'{source.task}' learns from captions, and this layer has none; name one that has{others}, or write them: "
            f"{suggest_generate_command(store, source, 'captions')}",
        )
    if metric == "pq" and stats.columns["isthing"].minimum is not False:
        yield SourceIssue("task", f"no stuff in this layer: '{source.task}' learns things only", False)
    yield from _check_mask_filters(source, stats, metric)
    yield from _check_caption_filters(source, stats, metric)


def check_learnable(
    source: LayerSource, stats: LayerStats, learnable: LearnableCounts, metric: str
) -> Iterator[SourceIssue]:
    """Errors where a layer has objects or masks, and the task can learn from none of them.

    Args:
        source: the source of a manifest.
        stats: the statistics of its layer.
        learnable: what the task can learn from in the layer.
        metric: the `METRIC` of the source's task.
    """
    why = set(+learnable.reasons)
    if not learnable.objects and why - {"unnamed", "phrase"}:  # other checks tell of layers without any name or phrase
        advice = ""
        if "crowd" in why:
            advice = "; if they are objects, as in exports of RLE masks by CVAT, ingest them with --crowds-as-objects"
        what = f"'{source.task}' can learn from no object of this layer: {learnable.describe_reasons()}{advice}"
        yield SourceIssue("task", what)
    elif learnable.objects and stats.count("masks") and not learnable.masks and metric in _METRICS_NEEDING_MASKS:
        yield SourceIssue("task", f"'{source.task}' learns from masks, and no object that it takes has one here")


def check_flip(stats: LayerStats, metric: str) -> Iterator[SourceIssue]:
    """Names that forbid the flip of every image in which they occur.

    Args:
        stats: the statistics of the source's layer.
        metric: the `METRIC` of the source's task.
    """
    names = [name for name in stats.category_names if metric in _METRICS_NEEDING_NAMES and mirror_texts([name]) is None]
    if names:
        others = f" and {len(names) - 1:,} other name{'s' * (len(names) > 2)}" if len(names) > 1 else ""
        yield SourceIssue(
            "shards",
            f"no image of '{truncate(names[0])}'{others} is mirrored, as nobody can tell what that would mean there; "
            "rename it in the dataset, or say augment: {flip: 0}",
            False,
        )


def check_eval_source(
    source: LayerSource, stats: LayerStats, metric: str, sibling_layers: Sequence[str]
) -> Iterator[SourceIssue]:
    """Why a layer is not ground truth for its task.

    Args:
        source: the evaluation source of a manifest.
        stats: the statistics of its layer.
        metric: the `METRIC` of the source's task.
        sibling_layers: other layers of the same dataset and split, which the message offers.
    """
    yield from _check_categories(source, stats, metric)
    others = f" (of these images there are {', '.join(sibling_layers)})" if sibling_layers else ""
    for what, column, wanted in (
        ("masks", "mask_source", metric not in _METRICS_IGNORING_MASKS),
        ("captions", "caption_source", metric in _METRICS_NEEDING_PHRASES),
    ):
        if wanted and not stats.count(what):
            yield SourceIssue(
                "shards", f"has no {what}, and '{source.task}' is measured by them; name a layer that has{others}"
            )
        elif wanted and not stats.is_all_human(column):
            by = _describe_label_origins(stats, column)
            sentence = f"its {what} are by {by}, and ground truth is by people; name a layer that is{others}"
            yield SourceIssue("shards", sentence)


def _describe_label_origins(stats: LayerStats, column: str) -> str:
    """The first and the last source by name; "unknown makers" if there are no names."""
    known = [name for name in (stats.columns[column].minimum, stats.columns[column].maximum) if name is not None]
    return " and ".join(dict.fromkeys(known)) or "unknown makers"


def _check_categories(source: LayerSource, stats: LayerStats, metric: str) -> Iterator[SourceIssue]:
    if not stats.count("objects"):
        yield SourceIssue("shards", "holds images without a single annotation; name another layer")
    elif metric in _METRICS_NEEDING_NAMES and not stats.columns["category"].maximum:
        yield SourceIssue(
            "task", f"'{source.task}' tells names apart, and no object of this layer has one; try 'referring'"
        )


def _check_mask_filters(source: TrainSource, stats: LayerStats, metric: str) -> Iterator[SourceIssue]:
    """Check the filters on masks, and `mask_weight`."""
    keys = [f"min_{score}" for score in MASK_SCORES if getattr(source, f"min_{score}") is not None]
    keys += ["mask_weight"] if source.mask_weight else []
    for key in keys:
        score = str(source.mask_weight) if key == "mask_weight" else key.removeprefix("min_")
        column, least = stats.columns[score], getattr(source, key)
        if metric in _METRICS_IGNORING_MASKS or not stats.count("masks"):
            why = f"'{source.task}' reads no masks" if metric in _METRICS_IGNORING_MASKS else "there are no masks here"
            yield SourceIssue(key, f"changes nothing, as {why}; take it out", False)
        elif stats.is_all_human("mask_source"):
            yield SourceIssue(key, "changes nothing, as all masks here are by people; take it out", False)
        elif key == "mask_weight":
            if not column.count:
                yield SourceIssue(key, f"changes nothing, as masks of this layer carry no {score}", False)
        elif not column.count:
            rather = [f"min_{other}" for other in reversed(MASK_SCORES) if stats.count(other)]
            remedy = f"use {' or '.join(rather)}" if rather else "take it out"
            yield SourceIssue(key, f"masks of this layer carry no {score}; {remedy}")
        elif column.maximum < least:
            sentence = f"no mask reaches {least:g}, the best has {column.maximum:.3f}; lower it"
            yield SourceIssue(key, sentence, stats.has_no_human("mask_source"))
        elif stats.has_no_human("mask_source") and column.count < stats.count("masks"):
            lacking = stats.count("masks") - column.count
            yield SourceIssue(key, f"{lacking:,} masks carry no {score}, and will not be learned from", False)


def _check_caption_filters(source: TrainSource, stats: LayerStats, metric: str) -> Iterator[SourceIssue]:
    """Check the filters on captions."""
    if metric not in _METRICS_NEEDING_PHRASES or not stats.count("captions"):
        for key in CAPTION_FILTERS:
            if metric not in _METRICS_NEEDING_PHRASES and getattr(source, key) not in (None, False, ()):
                yield SourceIssue(key, f"changes nothing, as '{source.task}' reads no captions; take it out", False)
        return
    by_people = stats.is_all_human("caption_source")
    if (least := source.min_caption_score) is not None:
        score = stats.columns["caption_score"]
        if by_people:
            yield SourceIssue(
                "min_caption_score", "changes nothing, as all captions here are by people; take it out", False
            )
        elif not score.count:
            yield SourceIssue(
                "min_caption_score", "captions of this layer carry no score; use drop_reasons, or take it out"
            )
        elif score.maximum < least:
            sentence = f"no caption reaches {least:g}, the best has {score.maximum:.3f}; lower it"
            yield SourceIssue("min_caption_score", sentence, stats.has_no_human("caption_source"))
    if source.require_category_match and not stats.count("category_match"):
        what = "changes nothing, as captions by people pass" if by_people else "no caption of this layer was checked"
        yield SourceIssue("require_category_match", f"{what}; take it out", not by_people)
    if source.drop_reasons and not stats.count("reasons"):
        yield SourceIssue(
            "drop_reasons", "changes nothing, as no caption of this layer has a reason; take it out", False
        )
    wanted = source.caption_sources or ()
    ends = dict.fromkeys((str(stats.columns["caption_source"].minimum), str(stats.columns["caption_source"].maximum)))
    lost = [name for name in wanted if not stats.may_contain("caption_source", name)]
    if lost:
        sentence = f"no captions by {', '.join(lost)} in this layer, but by {' and '.join(ends)}; name these"
        yield SourceIssue("caption_sources", sentence, len(lost) == len(wanted))
