"""Evaluate one layer of a manifest's `eval`, distributed over processes, with a given comparison function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import cast

from synthgen import plugins
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.eval_loader import EvalLoader
from synthgen.dataloading.layer_stats import load_layer_stats
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.sample_stats import SampleStats
from synthgen.dataloading.source_checks import describe_synthetic_labels
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.distributed import DistributedContext
from synthgen.evaluation.metrics import GroundTruth, ImageResult, Metric
from synthgen.evaluation.results import EvalResult
from synthgen.progress import OpenProgress
from synthgen.storage.shard_store import ShardStore


def load_metric(task: str) -> Metric:
    """The metric module of a task."""
    return cast(Metric, plugins.load_plugin("evaluation.metrics", plugins.load_plugin(TASKS_PACKAGE, task).METRIC))


def evaluate_layer(
    manifest: Manifest,
    eval_index: int,
    context: DistributedContext,
    compare: Callable[[Batch], Iterable[tuple[GroundTruth, ImageResult]]],
    *,
    description: str,
    progress: OpenProgress,
    **loader_options: int,
) -> EvalResult:
    """Evaluate a layer: each process compares its part of the images, and all of them return the full result.

    Args:
        manifest: names the layer and its task.
        eval_index: index into the manifest's `eval`.
        context: rank, world size and device of this process.
        compare: yields ground truth and `ImageResult` of each image of a batch.
        description: text of the progress bar, beside the layer's name.
        progress: opens a progress bar.
        **loader_options: `batch_size`, `num_workers` and sides; see `EvalLoader`.

    Raises:
        SynthgenError: see `EvalLoader`.
    """
    source, store = manifest.eval[eval_index], ShardStore(manifest.store)
    kind: str = plugins.load_plugin(TASKS_PACKAGE, source.task).METRIC
    once = EvalLoader(
        manifest,
        eval_index,
        rank=context.rank,
        world_size=context.world_size,
        pin_memory=context.device.type == "cuda",
        **loader_options,
    )
    rows: list[tuple[str, int, ImageResult]] = []
    with closing(once), progress(f"{description} {source.shards}", once.num_rows, "images") as done:
        for batch in once:
            rows += ((asked.sample.image_key, asked.sample.image_id, found) for asked, found in compare(batch))
            done.advance(len(batch.targets))
    seen = SampleStats(once.stats.source_names)
    every: list[tuple[str, int, ImageResult]] = []
    for part, state in context.all_gather((rows, once.stats.state_dict())):
        every += part
        seen.merge_state(state)
    # In a fixed order for any number of processes, so that sums of floats are equal.
    every.sort(key=lambda row: row[:2])
    metric = load_metric(source.task)
    scores = metric.scores([compared for *_, compared in every])
    return EvalResult(
        source=source.shards,
        task=source.task,
        metric=metric.MAIN,
        values={metric.MAIN: 0.0, **scores.values},
        images=len(every) if metric.MAIN in scores.values else 0,  # no ground truth to compare with
        by_name=scores.by_name,
        seen=seen.state_dict(),
        by_machines=context.on_rank0(lambda: describe_synthetic_labels(source, load_layer_stats(store, source), kind)),
    )
