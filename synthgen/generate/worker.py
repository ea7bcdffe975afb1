"""The worker: loads one model and processes shards. It commits each shard and reports it."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from synthgen import __version__, plugins
from synthgen.errors import BrokenWorkerError, SynthgenError, describe_exhaustion
from synthgen.generate import renewal
from synthgen.generate.batch_threads import (
    NONE_HUNG,
    Batch,
    HungRows,
    StartedBatch,
    describe_timeout,
    start_batch,
    wait_for_batch,
)
from synthgen.generate.job import Job
from synthgen.generate.output_checks import PluginError
from synthgen.generate.stages import Stage
from synthgen.images.decode import ImageError
from synthgen.images.prefetch import prefetch_images
from synthgen.records.recipe import source_members
from synthgen.records.sample import Sample
from synthgen.storage.identity import parent_digest
from synthgen.storage.parquet_file import ForeignShardError
from synthgen.storage.shard_store import Shard, ShardStore

log = logging.getLogger(__name__)

#: Called after each image with the number done; for progress only.
OnImages = Callable[[int], None]

#: Maximum bytes of the decoded images of a batch, and of all batches in flight; one image may have more.
MAX_BATCH_BYTES = 512 * 2**20

#: Batches in flight: while one is on the device, the other's images are prepared, or its masks encoded.
BATCHES_IN_FLIGHT = 2

#: Captions per object, if the job does not set it.
DEFAULT_CAPTION_COUNT = 5


@dataclass(frozen=True, slots=True)
class ShardReport:
    """The result of one shard.

    Attributes:
        shard: the shard.
        error: why it was not committed; None = committed.
        fatal: the error would hit every other shard, too (a full disk); the job stops.
        too_many_errors: it exceeds the job's `max_error_share`.
        seconds: wall time.
        images, annotations, masks, captions: numbers.
        captioned: objects with captions; described: with captions of a captioner; varied: with as many of it as were
            requested.
        passed_over: images that came with an error and were not processed.
        kept: images whose rows stay, as their shard was made again and their input was equal.
        reviewed_lost: masks that people had reviewed in the shard as it was, and that its new rows lack.
        failed: images that this stage could not process, as {"image_id", "file_name", "error"}.
        flags: number of annotations with each flag.
    """

    shard: Shard
    error: str | None = None
    fatal: bool = False
    too_many_errors: bool = False
    seconds: float = 0.0
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
    failed: tuple[dict[str, Any], ...] = ()
    flags: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessedShard:
    """A shard after the model, before it is written.

    Attributes:
        parent: the footer of the input shard.
        parent_sha256: the content digest of the input rows; None = kept rows of an older release do not say it.
        kept, reviewed_lost: see `ShardReport`.
    """

    shard: Shard
    samples: list[Sample]
    parent: dict[str, Any]
    parent_sha256: str | None
    images_without_error: int
    failed: tuple[dict[str, Any], ...]
    started: float
    kept: int = 0
    reviewed_lost: int = 0


class Worker:
    """Holds the model of `job` and processes one shard at a time. A failed shard gives a report, not an exception.

    It raises only `BrokenWorkerError`: this worker cannot continue, another one can. If the model hangs (see
    `Job.timeout`), this is a `BatchTimeoutError`.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.store = ShardStore(job.store)
        self.stage: Stage = plugins.load_plugin("generate.stages", job.stage).build(
            job.plugin, job.options, **job.stage_options
        )
        self.store.create_layer(job.dataset, job.split, job.layer)
        self._failure_prefix = f"{job.plugin} failed"  # prefix of errors that the image did not cause
        self.decode_threads = max(2, os.cpu_count() or 1)

    def run(self, shard: Shard, on_images: OnImages | None = None, hung: HungRows = NONE_HUNG) -> ShardReport:
        """Process one shard of the job's output layer and commit it.

        Args:
            shard: one of the job's output layer.
            on_images: called with the number of images done since the last call.
            hung: rows over which earlier workers hung.
        """
        return self.commit(self.process(shard, on_images, hung))

    def process(
        self, shard: Shard, on_images: OnImages | None = None, hung: HungRows = NONE_HUNG
    ) -> ProcessedShard | ShardReport:
        """The part of `run` that needs the model; `shard`, `on_images` and `hung` are as there. A failure becomes a
        report.
        """
        started = time.monotonic()
        try:
            source = shard.in_layer(self.job.input_layer)
            parent = self.store.read_footer(source)
            if parent is None:
                raise SynthgenError(f"input shard {source} is gone; run the stage before again")
            parent_sha256: str | None = self.store.read_content_digest(source)
            samples = list(self.store.read_samples(source))
            made = self.store.read_footer(shard)
            stays: dict[int, Sample] = {}
            kept, reviewed = 0, renewal.reviewed_masks(self.store.read_samples(shard) if made is not None else ())
            if made is not None and renewal.is_outdated(self.job, made, parent, parent_sha256):
                log.info("%s is made again: its input %s has changed", shard, source)
                stays = renewal.reusable_rows(self.store, self.job, shard, samples)
                kept = len(stays)
                if on_images:
                    on_images(kept)
            elif made is not None and self.job.retry_failed:  # its rows stay, and so does what they were made from
                parent_sha256 = parent_digest(made)
                stays = renewal.finished_rows(self.store, shard)
            samples, failed, given = self._process_samples(samples, stays, on_images, hung)
            lost = renewal.count_lost_reviews(reviewed, samples)
            # Images that came with an error do not count in the share of failures.
            self._check_error_share(shard, given, failed)
        except BrokenWorkerError:
            raise
        except Exception as why:  # a failed shard must not stop the others
            return _error_report(shard, why, started)
        return ProcessedShard(shard, samples, parent, parent_sha256, given, failed, started, kept, lost)

    def commit(self, processed: ProcessedShard | ShardReport) -> ShardReport:
        """The part of `run` that does not need the model: encode and write what is `processed`. A report stays as it
        is.
        """
        if isinstance(processed, ShardReport):
            return processed
        flat = [annotation for sample in processed.samples for annotation in sample.annotations]
        # Count captions of captioners, not of people. A later stage keeps the number of an earlier one.
        made = [sum(caption.source != "human" for caption in a.captions) for a in flat]
        asked = self.job.stage_options.get("top_k", processed.parent.get("top_k", DEFAULT_CAPTION_COUNT))
        report = ShardReport(
            processed.shard,
            images=len(processed.samples),
            annotations=len(flat),
            masks=sum(a.segmentation is not None for a in flat),
            captions=sum(len(a.captions) for a in flat),
            captioned=sum(bool(a.captions) for a in flat),
            described=sum(count > 0 for count in made),
            varied=sum(count >= asked for count in made),
            passed_over=len(processed.samples) - processed.images_without_error,
            kept=processed.kept,
            reviewed_lost=processed.reviewed_lost,
            failed=processed.failed,
            flags=dict(sorted(Counter(flag for a in flat for flag in a.flags).items())),
        )
        footer = {
            "synthgen": __version__,
            "recipe": self.job.recipe(),
            "fingerprint": self.job.fingerprint(processed.parent["fingerprint"]),
            "parent": {
                "layer": self.job.input_layer,
                "fingerprint": processed.parent["fingerprint"],
                **({"content_sha256": processed.parent_sha256} if processed.parent_sha256 is not None else {}),
            },
            **source_members(processed.parent),
            "counts": {
                "images": report.images,
                "annotations": report.annotations,
                "masks": report.masks,
                "captions": report.captions,
                "captioned": report.captioned,
                "described": report.described,
                "varied": report.varied,
                "errors": sum(sample.error is not None for sample in processed.samples),
                "flags": report.flags,
            },
            "failed": list(processed.failed),
            **({"top_k": asked} if report.described else {}),
            **renewal.replaced_member(self.store, processed.shard, flat),
        }
        try:
            self.store.commit(processed.shard, processed.samples, footer)
        except Exception as why:
            # A full disk prevents writing the other shards, too. A pipe under the name of this shard does not.
            fatal = isinstance(why, SynthgenError) and not isinstance(why, ForeignShardError)
            return replace(_error_report(processed.shard, why, processed.started), fatal=fatal)
        return replace(report, seconds=time.monotonic() - processed.started)

    def _process_samples(
        self, samples: list[Sample], stays: Mapping[int, Sample], on_images: OnImages | None, hung: HungRows
    ) -> tuple[list[Sample], tuple[dict[str, Any], ...], int]:
        """The shard's samples, processed or with an error; the errors; the number of samples that came without one.

        Args:
            samples: the rows of the input.
            stays: row -> the sample that is there already, which is not processed.
            on_images: called with the number of images done since the last call.
            hung: rows over which earlier workers hung.

        Raises:
            BrokenWorkerError: the device is lost, or a batch hangs.
            Exception: of the stage, unless it concerns single images.
        """
        result = [stays.get(row, sample) for row, sample in enumerate(samples)]
        reasons: dict[int, str] = {}
        todo = [row for row in range(len(samples)) if row not in stays]
        waiting: deque[StartedBatch] = deque()

        def take() -> None:
            first = waiting.popleft()
            self._collect_batch(first, waiting, result, reasons)
            if on_images:
                on_images(len(first.batch))

        alone = hung.suspected | hung.proven
        for batch in self._load_batches(samples, [i for i in todo if i in alone], result, reasons, batch_size=1):
            if batch[0][0] in hung.suspected:
                waiting.append(start_batch(self._run_stage, batch, self.job.timeout))
                take()
            else:
                self._record_failure(batch, describe_timeout(self.job.timeout), result, reasons)
            del batch  # its pixels must not stay in memory while the next image is decoded
        try:
            for batch in self._load_batches(samples, [i for i in todo if i not in alone], result, reasons):
                if len(waiting) == BATCHES_IN_FLIGHT:
                    take()
                waiting.append(start_batch(self._run_stage, batch, self.job.timeout))
                next_bytes = _count_bytes(batch)  # as much is expected of the next one
                del batch  # as above
                while waiting and sum(_count_bytes(one.batch) for one in waiting) + next_bytes > MAX_BATCH_BYTES:
                    take()
            while waiting:
                take()
        except BrokenWorkerError:
            raise
        except Exception:  # the next shard must not begin beside a batch of this one; Ctrl-C waits for none
            while waiting:
                started = waiting.popleft()
                try:
                    wait_for_batch(started, waiting, self.job.plugin, self.job.timeout)
                except BrokenWorkerError:
                    raise
                except Exception as why:
                    log.warning("a batch beside it failed, too (%s)", why)
            raise
        failed = [
            {"row": i, "image_id": samples[i].image_id, "file_name": samples[i].file_name, "error": reasons[i]}
            for i in sorted(reasons)
        ]
        return result, tuple(failed), sum(sample.error is None for sample in samples)

    def _load_batches(
        self,
        samples: list[Sample],
        todo: list[int],
        result: list[Sample],
        reasons: dict[int, str],
        batch_size: int | None = None,
    ) -> Iterator[Batch]:
        """The batches to process, with images decoded ahead. An unreadable image is recorded here."""
        batch: Batch = []
        images = prefetch_images((samples[i] for i in todo), self.job.image_folder, num_threads=self.decode_threads)
        for i in todo:  # not `zip`, which would keep the last pixels
            sample, image = next(images)
            if isinstance(image, ImageError):
                result[i], reasons[i] = replace(sample, error=str(image)), str(image)
            elif image is not None:
                batch.append((i, renewal.fill_image_size(sample, *image.shape[:2]), image))
            del image
            # The next image is expected to be as large as the last one.
            size = batch_size or self.stage.batch_size
            if len(batch) >= size or _count_bytes(batch) + _count_bytes(batch[-1:]) > MAX_BATCH_BYTES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _run_stage(self, batch: Batch) -> list[Sample]:
        return list(self.stage.process([sample for _, sample, _ in batch], [image for _, _, image in batch]))

    def _collect_batch(
        self,
        started: StartedBatch,
        others: Sequence[StartedBatch],
        result: list[Sample],
        reasons: dict[int, str],
    ) -> None:
        """Keep the results of a batch. If it failed, run its images one by one, so that a bad image fails alone."""
        batch = started.batch
        try:
            done = wait_for_batch(started, others, self.job.plugin, self.job.timeout)
        except BrokenWorkerError:
            raise
        except Exception as why:
            if len(batch) > 1:
                log.warning("a batch of %d images failed (%s); trying them one by one", len(batch), why)
                for one in batch:
                    self._collect_batch(start_batch(self._run_stage, [one], self.job.timeout), others, result, reasons)
                return
            if describe_exhaustion(why) and not isinstance(why, MemoryError):
                raise  # the machine lacks threads or open files: the image is not the cause
            log.exception("image %s failed", batch[0][1].file_name)
            kind = "" if isinstance(why, PluginError) else f"{type(why).__name__}: "
            self._record_failure(batch, kind + _first_line(why), result, reasons)
            return
        for (i, _, _), sample in zip(batch, done, strict=True):
            result[i] = sample

    def _record_failure(self, batch: Batch, why: str, result: list[Sample], reasons: dict[int, str]) -> None:
        ((i, sample, _),) = batch
        result[i], reasons[i] = self.stage.failed(sample), f"{self._failure_prefix} ({why})"

    def _check_error_share(self, shard: Shard, images: int, failed: Sequence[dict[str, Any]]) -> None:
        # Divide: the limit times the count has a rounding error, 0.29 * 100 < 29.
        if not failed or len(failed) / images <= self.job.max_error_share:
            return
        first = failed[0]
        if first["error"].startswith(self._failure_prefix):
            remedy = (
                f"its traceback is in the _log/ of the layer, and the options of {self.job.plugin} may be the cause"
            )
        else:
            remedy = (
                f"`synthgen doctor` says why; check --images {self.job.image_folder}, "
                "or accept more with --max-error-share"
            )
        message = (
            f"{shard}: {len(failed)} of {images} images failed, more than {self.job.max_error_share:.0%}, "
            f"e.g. {first['file_name']} ({first['error']}); nothing was committed; {remedy}"
        )
        raise TooManyFailuresError(message)


class TooManyFailuresError(Exception):
    """A shard exceeds the job's share of failed images. Only this shard fails."""


def _count_bytes(batch: Batch) -> int:
    """Bytes of the pixels of a batch."""
    return sum(image.nbytes for _, _, image in batch)


def _error_report(shard: Shard, why: Exception, started: float) -> ShardReport:
    known = isinstance(why, SynthgenError | TooManyFailuresError)
    exhausted = None if known else describe_exhaustion(why)
    if not known and exhausted is None:
        log.error("shard %s failed", shard, exc_info=why)
    return ShardReport(
        shard,
        error=str(why) if known else f"{shard}: {exhausted or f'{type(why).__name__}: {_first_line(why)}'}",
        too_many_errors=isinstance(why, TooManyFailuresError),
        seconds=time.monotonic() - started,
    )


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or ["no reason given"])[0][:200]
