"""The worker: one model, many shards; one shard in, one shard committed, one report out."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen import __version__, plugins
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.job import Job
from synthgen.generate.stages import Stage
from synthgen.images.decode import ImageError, load_ahead
from synthgen.records.box_checks import audit_sample
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import Shard, ShardStore

log = logging.getLogger(__name__)

#: Called after each image with how many are done; for progress only.
OnImages = Callable[[int], None]

#: Decoded images of one batch may hold this many bytes together; a batch of huge photographs is cut short.
BATCH_BYTES = 512 * 2**20

#: Batches that a stage has at once: while one is on the device, the other's images are made ready, or its masks packed.
IN_FLIGHT = 2

#: Captions that an object is asked for where a job does not say; no two of a stage say the same.
VARIED = 5

#: (row in the shard, sample, pixels) each.
_Batch = list[tuple[int, Sample, NDArray[np.uint8]]]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What happened to one shard.

    Attributes:
        shard: which.
        error: why it was not committed; None = committed.
        fatal: the error would hit every other shard too (a full disk); the job stops.
        too_many_errors: it was refused by the job's `max_error_share`.
        seconds: wall time.
        images, annotations, masks, captions: how many.
        captioned: objects that have captions; described: that have some by a captioner; varied: as many by it as it was
            asked for.
        passed_over: images that came with an error: there was nothing to process.
        failed: images that this stage could not process, as {"image_id", "file_name", "error"}.
        flags: how many annotations carry each flag.
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
    failed: tuple[dict[str, Any], ...] = ()
    flags: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Processed:
    """A shard between model and disk."""

    shard: Shard
    samples: list[Sample]
    parent: dict[str, Any]
    given: int
    failed: tuple[dict[str, Any], ...]
    started: float


class Worker:
    """Holds the model. One shard in, one shard committed, one report out; never raises for a shard's sake.

    It does raise `BrokenWorkerError`: this worker can make no shard any more, another one may.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.store = ShardStore(job.store)
        self.stage: Stage = plugins.load("generate.stages", job.stage).build(
            job.plugin, job.options, **job.stage_options
        )
        self._blamed = f"{job.plugin} failed"  # so begins the reason where it was not the image
        self.threads = max(2, os.cpu_count() or 1)

    def run(self, shard: Shard, on_images: OnImages | None = None) -> ShardReport:
        """Process one shard of the job's output layer and commit it."""
        return self.finish(self.process(shard, on_images))

    def process(self, shard: Shard, on_images: OnImages | None = None) -> _Processed | ShardReport:
        """All of `run` that needs the model. A failure is a report."""
        started = time.monotonic()
        try:
            parent = self.store.footer(shard.of(self.job.reads))
            if parent is None:
                raise SynthgenError(f"input shard {shard.of(self.job.reads)} is gone; run the stage before again")
            samples, failed, given = self._process(shard, on_images)
            # What the source could not give was not this stage's to process, and must not dilute its failures.
            self._refuse_many_errors(shard, given, failed)
        except BrokenWorkerError:
            raise
        except Exception as why:  # a shard's failure is a value: the other shards go on
            return _as_report(shard, why, started)
        return _Processed(shard, samples, parent, given, failed, started)

    def finish(self, done: _Processed | ShardReport) -> ShardReport:
        """All of `run` that does not need the model: encode, write, rename."""
        if isinstance(done, ShardReport):
            return done
        flat = [annotation for sample in done.samples for annotation in sample.annotations]
        # By a captioner: those of people are nobody's to ask for. A later stage keeps what an earlier one was asked.
        made = [sum(caption.source != "human" for caption in a.captions) for a in flat]
        asked = self.job.stage_options.get("top_k", done.parent.get("top_k", VARIED))
        report = ShardReport(
            done.shard,
            images=len(done.samples),
            annotations=len(flat),
            masks=sum(a.segmentation is not None for a in flat),
            captions=sum(len(a.captions) for a in flat),
            captioned=sum(bool(a.captions) for a in flat),
            described=sum(count > 0 for count in made),
            varied=sum(count >= asked for count in made),
            passed_over=len(done.samples) - done.given,
            failed=done.failed,
            flags=dict(sorted(Counter(flag for a in flat for flag in a.flags).items())),
        )
        footer = {
            "synthgen": __version__,
            "recipe": self.job.recipe(),
            "fingerprint": self.job.fingerprint(done.parent["fingerprint"]),
            "parent": {"layer": self.job.reads, "fingerprint": done.parent["fingerprint"]},
            "categories": done.parent.get("categories", []),
            "counts": {
                "images": report.images,
                "annotations": report.annotations,
                "masks": report.masks,
                "captions": report.captions,
                "captioned": report.captioned,
                "described": report.described,
                "varied": report.varied,
                "errors": sum(sample.error is not None for sample in done.samples),
                "flags": report.flags,
            },
            "failed": list(done.failed),
            **({"top_k": asked} if report.described else {}),
        }
        try:
            self.store.commit(done.shard, done.samples, footer)
        except Exception as why:
            # What keeps one shard from being written, a full disk, keeps the others too.
            return replace(_as_report(done.shard, why, done.started), fatal=isinstance(why, SynthgenError))
        return replace(report, seconds=time.monotonic() - done.started)

    def _process(
        self, shard: Shard, on_images: OnImages | None
    ) -> tuple[list[Sample], tuple[dict[str, Any], ...], int]:
        """The shard's samples, each processed or with the reason why not; those reasons; how many came without one."""
        samples = list(self.store.read(shard.of(self.job.reads)))
        result = list(samples)
        reasons: dict[int, str] = {}
        todo = list(range(len(samples)))
        if self.job.retry_failed and (footer := self.store.footer(shard)) is not None:
            again = {entry["row"] for entry in footer["failed"]}
            todo = [i for i in todo if i in again]
            result = [samples[i] if i in again else sample for i, sample in enumerate(self.store.read(shard))]
        waiting: deque[tuple[_Batch, Future[list[Sample]]]] = deque()

        def take() -> None:
            batch, done = waiting.popleft()
            self._settle(batch, done.result, result, reasons)
            if on_images:
                on_images(len(batch))

        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="batch") as pool:
            for batch in self._batches(samples, todo, result, reasons):
                if len(waiting) == IN_FLIGHT:
                    take()
                waiting.append((batch, pool.submit(self._put_through, batch)))
            while waiting:
                take()
        failed = [
            {"row": i, "image_id": samples[i].image_id, "file_name": samples[i].file_name, "error": reasons[i]}
            for i in sorted(reasons)
        ]
        return result, tuple(failed), sum(sample.error is None for sample in samples)

    def _batches(
        self, samples: list[Sample], todo: list[int], result: list[Sample], reasons: dict[int, str]
    ) -> Iterator[_Batch]:
        """What is to do, batch by batch, its images decoded ahead; an image that cannot be read is settled here."""
        batch: _Batch = []
        for i, (sample, image) in zip(
            todo, load_ahead((samples[i] for i in todo), self.job.images, threads=self.threads), strict=True
        ):
            if isinstance(image, ImageError):
                result[i], reasons[i] = replace(sample, error=str(image)), str(image)
            elif image is not None:
                batch.append((i, _with_size(sample, image), image))
            if len(batch) >= self.stage.batch_size or sum(image.nbytes for _, _, image in batch) >= BATCH_BYTES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _put_through(self, batch: _Batch) -> list[Sample]:
        return list(self.stage.process([sample for _, sample, _ in batch], [image for _, _, image in batch]))

    def _settle(
        self, batch: _Batch, outcome: Callable[[], list[Sample]], result: list[Sample], reasons: dict[int, str]
    ) -> None:
        """Keep what the stage made of a batch. If it failed, try one by one: a poisoned image fails alone."""
        try:
            done = outcome()
        except BrokenWorkerError:
            raise
        except Exception as why:
            if len(batch) > 1:
                log.warning("a batch of %d images failed (%s); trying them one by one", len(batch), why)
                for one in batch:
                    self._settle([one], partial(self._put_through, [one]), result, reasons)
                return
            i, sample, _ = batch[0]
            log.exception("image %s failed", sample.file_name)
            result[i] = self.stage.failed(sample)
            reasons[i] = f"{self._blamed} ({type(why).__name__}: {_line(why)})"
            return
        for (i, _, _), sample in zip(batch, done, strict=True):
            result[i] = sample

    def _refuse_many_errors(self, shard: Shard, images: int, failed: Sequence[dict[str, Any]]) -> None:
        # Divided, as the limit times a count would be off by a rounding: 0.29 * 100 < 29.
        if not failed or len(failed) / images <= self.job.max_error_share:
            return
        first = failed[0]
        if first["error"].startswith(self._blamed):
            remedy = (
                f"its traceback is in the _log/ of the layer, and the options of {self.job.plugin} may be the cause"
            )
        else:
            remedy = f"check --images {self.job.images}, or accept more with --max-error-share"
        message = (
            f"{shard}: {len(failed)} of {images} images failed, more than {self.job.max_error_share:.0%}, "
            f"e.g. {first['file_name']} ({first['error']}); nothing was committed; {remedy}"
        )
        raise TooManyFailuresError(message)


class TooManyFailuresError(Exception):
    """A shard over the job's share of failed images: it fails alone, the job goes on."""


def _with_size(sample: Sample, image: NDArray[np.uint8]) -> Sample:
    """Fill in a size that the source did not give, and what could not be audited without it."""
    if sample.height and sample.width:
        return sample
    return audit_sample(replace(sample, height=image.shape[0], width=image.shape[1]))


def _as_report(shard: Shard, why: Exception, started: float) -> ShardReport:
    known = isinstance(why, SynthgenError | TooManyFailuresError)
    if not known:
        log.error("shard %s failed", shard, exc_info=why)
    return ShardReport(
        shard,
        error=str(why) if known else f"{shard}: {type(why).__name__}: {_line(why)}",
        too_many_errors=isinstance(why, TooManyFailuresError),
        seconds=time.monotonic() - started,
    )


def _line(why: Exception) -> str:
    return (str(why).splitlines() or ["no reason given"])[0][:200]
