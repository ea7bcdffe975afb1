"""One layer of a manifest's `eval`, image by image, by all the processes that there are; what compares is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import cast

from synthgen import plugins
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.eval_loader import Once
from synthgen.dataloading.layer_stats import look, machines
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.sample_stats import Seen
from synthgen.dataloading.source_config import SHELF
from synthgen.distributed import Ranks
from synthgen.evaluation.metrics import Asked, Compared, Metric
from synthgen.evaluation.results import Measured
from synthgen.progress import OpenProgress
from synthgen.storage.shard_store import ShardStore


def metric_of(task: str) -> Metric:
    """What a task is measured by."""
    return cast(Metric, plugins.load("evaluation.metrics", plugins.load(SHELF, task).METRIC))


def measure(
    manifest: Manifest,
    index: int,
    here: Ranks,
    compare: Callable[[Batch], Iterable[tuple[Asked, Compared]]],
    *,
    doing: str,
    bar: OpenProgress,
    **reading: int,
) -> Measured:
    """Measure a layer: each process compares its part of the images, and all of them return the whole.

    Args:
        index: which of the manifest's `eval`.
        compare: what is kept of each image of a batch.
        doing: what the bar says beside the layer's name.
        reading: `batch_size`, `workers` and sides, as `Once` takes them.

    Raises:
        SynthgenError: see `Once`.
    """
    source, store = manifest.eval[index], ShardStore(manifest.store)
    kind: str = plugins.load(SHELF, source.task).METRIC
    once = Once(manifest, index, rank=here.rank, world=here.world, pin_memory=here.device.type == "cuda", **reading)
    rows: list[tuple[str, int, Compared]] = []
    with closing(once), bar(f"{doing} {source.shards}", once.rows, "images") as done:
        for batch in once:
            rows += ((asked.sample.image_key, asked.sample.image_id, found) for asked, found in compare(batch))
            done.advance(len(batch.targets))
    seen = Seen(once.seen.sources)
    every: list[tuple[str, int, Compared]] = []
    for part, state in here.gathered((rows, once.seen.state())):
        every += part
        seen.add(state)
    every.sort(key=lambda row: row[:2])  # in one order, whoever compared what: sums of floats are the same then
    metric = metric_of(source.task)
    scores = metric.scores([compared for *_, compared in every])
    return Measured(
        source=source.shards,
        task=source.task,
        metric=metric.MAIN,
        values={metric.MAIN: 0.0, **scores.values},
        images=len(every) if metric.MAIN in scores.values else 0,  # there was nothing to be right about
        by_name=scores.by_name,
        seen=seen.state(),
        by_machines=here.by_the_first(lambda: machines(source, look(store, source), kind)),
    )
