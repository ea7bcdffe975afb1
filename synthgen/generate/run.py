"""One run of a job: drives an engine and writes the run log beside the shards, in the layer's `_log/`.

`metrics.jsonl` has one line per shard, `failures.jsonl` one line per shard that was not committed, `status.json` the
current state, `run.log` everything else. They are for people and dashboards; no later run depends on them. A part of a
job (`--part 3/8`) writes its own files (`metrics-3-of-8.jsonl`), so that machines do not share files. So does each
worker of a cluster that logs something (`run-10.0.0.7-4711.log`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from synthgen.errors import FailedRunError, job_has_started
from synthgen.generate.engine import pending_shards
from synthgen.generate.job import Job
from synthgen.generate.worker import OnImages, ShardReport
from synthgen.records.recipe import format_recipe
from synthgen.storage.atomic import append_line, write_text_atomic
from synthgen.storage.shard_store import Shard, ShardStore

#: (job, shards, on_images=, **placement) -> reports
Engine = Callable[..., Iterator[ShardReport]]


@dataclass
class RunStats:
    """The counts of a run so far.

    Attributes:
        shards: number of shards of the run; committed, failed: number of committed and failed ones.
        images, annotations, masks, captions, captioned, described, varied, passed_over: in committed shards; see
            `ShardReport`.
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
        self.failed_images += len(report.failed)
        self.flags.update(report.flags)

    def has_output(self, stage: str) -> bool:
        """Whether a box of the committed shards has what the stage makes, or the run is one of many without boxes."""
        made = self.captioned if stage == "captions" else self.masks
        return made > 0 or not self.committed or (not self.annotations and not self.is_whole_layer)

    @property
    def images_per_second(self) -> float:
        """Images per second."""
        return self.images / max(time.time() - self.started, 1e-9)


def select_shards(
    job: Job, *, part: tuple[int, int] = (0, 1), limit: int | None = None, dry_run: bool = False
) -> list[Shard]:
    """The shards of this run: those of `pending_shards`, cut after `limit`.

    It removes stale files of killed runs, also in the input layer, where a killed ingest may have left gigabytes. A dry
    run changes nothing.
    """
    if not dry_run:
        for layer in (job.input_layer, job.layer):
            ShardStore(job.store).remove_stale_files(job.dataset, job.split, layer)
    return pending_shards(job, part=part)[:limit]


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
        engine_options: options that only the engine uses: `workers`, `gpus_per_worker`.

    Raises:
        FailedRunError: the cause would hit every shard (a full disk), or every shard of the run had too many failed
            images, which means a wrong `--images`.
        SynthgenError: of the engine; its exit code is 1 if a shard was reported before.
    """
    folder = log_folder(job)
    ShardStore(job.store).create_layer(job.dataset, job.split, job.layer)
    suffix = "" if part[1] == 1 else f"-{part[0]}-of-{part[1]}"
    tally = RunStats(shards=len(shards), is_whole_layer=len(shards) == (shards[0].num_shards if shards else 0))
    with log_to_file(folder / f"run{suffix}.log"):
        logging.getLogger(__name__).info("%s, %d shards to do: %s", job.layer, len(shards), format_recipe(job.recipe()))
        refused = 0
        for report in _mark_started(engine(job, shards, on_images=on_images, **(engine_options or {}))):
            with job_has_started():
                tally.add(report)
                refused += report.too_many_errors
                append_line(folder / f"metrics{suffix}.jsonl", _metrics_line(report))
                if report.error is not None:
                    failure = {"shard": str(report.shard), "error": report.error, "time": round(time.time(), 3)}
                    append_line(folder / f"failures{suffix}.jsonl", json.dumps(failure, ensure_ascii=False))
                write_text_atomic(folder / f"status{suffix}.json", json.dumps(_status_dict(job, tally), indent=1))
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
    per_shard = tally.images / max(tally.committed, 1)
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
        "eta_seconds": round(left * per_shard / tally.images_per_second) if tally.images else None,
        "updated": time.time(),
    }


def _metrics_line(report: ShardReport) -> str:
    line: dict[str, Any] = asdict(report)
    line["shard"] = str(report.shard)
    line["failed"] = len(report.failed)
    line["seconds"] = round(report.seconds, 3)
    line["images_per_second"] = round(report.images / report.seconds, 3) if report.seconds else None
    line["time"] = round(time.time(), 3)
    return json.dumps(line, ensure_ascii=False)


def log_folder(job: Job) -> Path:
    """The folder of the job's run log."""
    return ShardStore(job.store).layer_folder(job.dataset, job.split, job.layer) / "_log"


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Write synthgen's log records to a file, in a folder that exists, while the block runs."""
    handler = _SilentFileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    house = logging.getLogger("synthgen")
    house.addHandler(handler)
    house.setLevel(logging.INFO)
    try:
        yield
    finally:
        house.removeHandler(handler)
        handler.close()


class _SilentFileHandler(logging.FileHandler):
    """Drops a record that cannot be written. On a full disk the commit reports the error once."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the first one opens the file."""
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record."""
