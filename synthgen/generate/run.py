"""One run of a job: selects the shards, drives an engine, counts the results."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from synthgen.errors import FailedRunError, job_has_started
from synthgen.generate.engine import pending_shards
from synthgen.generate.job import Job
from synthgen.generate.worker import OnImages, ShardReport
from synthgen.records.recipe import format_recipe
from synthgen.storage.locks import use_folder
from synthgen.storage.run_log import RunLog, log_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: (job, shards, on_images=, **placement) -> reports
Engine = Callable[..., Iterator[ShardReport]]


@dataclass
class RunStats:
    """The counts of a run so far.

    Attributes:
        shards: number of shards of the run; committed, failed: number of committed and failed ones.
        images, annotations, masks, captions, captioned, described, varied, passed_over, kept, reviewed_lost: in
            committed shards; see `ShardReport`.
        is_whole_layer: whether these are all shards of the layer.
        errors: the messages of failed shards.
        flags: annotations by flag, in committed shards.
    """

    shards: int
    committed: int = 0
    images: int = 0
    annotations: int = 0
    masks: int = 0
    captions: int = 0
    captioned: int = 0
    described: int = 0
    varied: int = 0
    passed_over: int = 0
    kept: int = 0
    reviewed_lost: int = 0
    failed_images: int = 0
    is_whole_layer: bool = False
    errors: list[str] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.time)

    def add(self, report: ShardReport) -> None:
        """Count one report."""
        if report.error is not None:
            self.errors.append(report.error)
            return
        self.committed += 1
        self.images += report.images
        self.annotations += report.annotations
        self.masks += report.masks
        self.captions += report.captions
        self.captioned += report.captioned
        self.described += report.described
        self.varied += report.varied
        self.passed_over += report.passed_over
        self.kept += report.kept
        self.reviewed_lost += report.reviewed_lost
        self.failed_images += len(report.failed)
        self.flags.update(report.flags)

    def has_output(self, stage: str) -> bool:
        """Whether a box of the committed shards has what the stage makes, or the run is one of many without boxes."""
        made = self.captioned if stage == "captions" else self.masks
        return made > 0 or not self.committed or (not self.annotations and not self.is_whole_layer)

    @property
    def images_per_second(self) -> float:
        """Processed images per second."""
        return (self.images - self.kept) / max(time.time() - self.started, 1e-9)


def select_shards(
    job: Job, *, part: tuple[int, int] = (0, 1), limit: int | None = None, dry_run: bool = False
) -> list[Shard]:
    """The shards of this run: those of `pending_shards`, cut after `limit`.

    It removes stale files of killed runs, also in the input layer, where a killed ingest may have left gigabytes. A dry
    run changes nothing.

    Args:
        job: what the run does with each shard.
        part: (i, n), see `pending_shards`.
        limit: maximum number of shards; None = all.
        dry_run: delete no stale files.
    """
    if not dry_run:
        for layer in (job.input_layer, job.layer):
            ShardStore(job.store).remove_stale_files(job.dataset, job.split, layer)
    return pending_shards(job, part=part)[:limit]


def layer_has_output(job: Job) -> bool:
    """Whether the job's layer has a mask, or a caption; True, too, while shards of it are missing."""
    store = ShardStore(job.store)
    shards = store.list_shards(job.dataset, job.split, job.layer)
    if not shards or len(shards) < shards[0].num_shards:
        return True
    made = "captioned" if job.stage == "captions" else "masks"
    return any((store.read_footer(shard) or {}).get("counts", {}).get(made, 1) for shard in shards)


def run_job(
    job: Job,
    shards: Sequence[Shard],
    engine: Engine,
    *,
    part: tuple[int, int] = (0, 1),
    engine_options: Mapping[str, Any] | None = None,
    on_images: OnImages | None = None,
    on_report: Callable[[ShardReport], None] | None = None,
) -> RunStats:
    """Let an engine run the shards, and write the run log.

    Args:
        job: what to do with each shard.
        shards: as `pending_shards` returns them.
        engine: runs the shards, such as `run_in_process`.
        part: (i, n), as of `pending_shards`; for the name of the log.
        engine_options: options that only the engine uses: `workers`, `gpus_per_worker`.
        on_images: called with the number of images done since the last call.
        on_report: called after each shard.

    Raises:
        FailedRunError: the cause would hit every shard (a full disk), or every shard of the run had too many failed
            images, which means a wrong `--images`.
        SynthgenError: of the engine; its exit code is 1 if a shard was reported before.
    """
    store = ShardStore(job.store)
    store.create_layer(job.dataset, job.split, job.layer)
    run_log = RunLog(log_folder(store, job.dataset, job.split, job.layer), part)
    tally = RunStats(shards=len(shards), is_whole_layer=len(shards) == (shards[0].num_shards if shards else 0))
    own, read = (store.layer_folder(job.dataset, job.split, layer) for layer in (job.layer, job.input_layer))
    with use_folder(own), use_folder(read), run_log.capture_messages():
        logging.getLogger(__name__).info("%s, %d shards to do: %s", job.layer, len(shards), format_recipe(job.recipe()))
        refused = 0
        for report in _mark_started(engine(job, shards, on_images=on_images, **(engine_options or {}))):
            with job_has_started():
                tally.add(report)
                refused += report.too_many_errors
                run_log.append_metrics(_metrics_dict(report))
                if report.error is not None:
                    run_log.append_failure(str(report.shard), report.error)
                run_log.write_status(_status_dict(job, tally))
                if on_report:
                    on_report(report)
            if report.fatal:
                raise FailedRunError(str(report.error))
    if refused and refused == tally.shards:
        raise FailedRunError(tally.errors[0])
    return tally


def _mark_started(reports: Iterator[ShardReport]) -> Iterator[ShardReport]:
    """The reports of an engine. The first one shows that the job has started."""
    yield from islice(reports, 1)
    with job_has_started():
        yield from reports


def _status_dict(job: Job, tally: RunStats) -> dict[str, Any]:
    left = tally.shards - tally.committed - len(tally.errors)
    per_shard = (tally.images - tally.kept) / max(tally.committed, 1)
    return {
        "recipe": job.recipe(),
        "images_folder": str(job.image_folder),
        "shards": tally.shards,
        "committed": tally.committed,
        "failed": len(tally.errors),
        "images": tally.images,
        "masks": tally.masks,
        "captions": tally.captions,
        "captioned": tally.captioned,
        "described": tally.described,
        "varied": tally.varied,
        "failed_images": tally.failed_images,
        "images_per_second": round(tally.images_per_second, 3),
        "eta_seconds": round(left * per_shard / tally.images_per_second) if tally.images > tally.kept else None,
    }


def _metrics_dict(report: ShardReport) -> dict[str, Any]:
    metrics: dict[str, Any] = asdict(report)
    metrics["shard"] = str(report.shard)
    metrics["failed"] = len(report.failed)
    metrics["seconds"] = round(report.seconds, 3)
    metrics["images_per_second"] = round(report.images / report.seconds, 3) if report.seconds else None
    return metrics
