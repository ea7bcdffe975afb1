"""What the commands say: plans before, results after. Lines of text, no printing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from synthgen.generate.ingest import IngestReport
from synthgen.generate.job import Job
from synthgen.generate.run import Tally
from synthgen.records.recipe import in_words
from synthgen.records.sample import FLAGS
from synthgen.records.store import Shard, ShardStore


def plan(job: Job, shards: Sequence[Shard]) -> Iterator[str]:
    """What a run is about to do."""
    layer = f"{job.dataset}/{job.split}/{job.layer}"
    if not shards:
        yield f"{layer}: nothing to do, every shard is committed"
        return
    store = ShardStore(job.store)
    sources = [(store.footer(shard.of(job.reads)) or {}).get("counts", {}) for shard in shards]
    images, boxes = (sum(counts.get(key, 0) for counts in sources) for key in ("images", "annotations"))
    yield (
        f"{layer}: {len(shards):,} of {shards[0].count:,} shards to do, {images:,} images, {boxes:,} boxes, "
        f"by {in_words(job.recipe())}"
    )


def ingested(layer: str, report: IngestReport) -> Iterator[str]:
    """What an ingest has found."""
    how = f"{report.committed:,} of {report.shards:,} shards written" if report.committed else "every shard was there"
    masks = f", {report.masks:,} masks" if report.masks else ""
    yield f"{layer}: {report.images:,} images, {report.annotations:,} boxes{masks}; {how}"
    if report.errors:
        yield f"  {report.errors:,} images have an error; `synthgen show {layer}` draws them with it"
    yield from flags(report.flags)


def images_in(job: Job, shards: Sequence[Shard]) -> int:
    """How many images the shards hold."""
    store = ShardStore(job.store)
    return sum((store.footer(shard.of(job.reads)) or {}).get("counts", {}).get("images", 0) for shard in shards)


def result(job: Job, tally: Tally) -> Iterator[str]:
    """What a run has done."""
    layer = f"{job.dataset}/{job.split}/{job.layer}"
    yield (
        f"{layer}: {tally.masks:,} masks for {tally.annotations:,} boxes on {tally.images:,} images "
        f"in {tally.committed:,} shards, {tally.rate:.1f} images/s"
    )
    yield from flags(tally.flags)
    if tally.failed_images:
        yield f"  {tally.failed_images:,} images failed, listed by `synthgen status --failures`; --retry-failed retries"
    for error in tally.errors[:5]:
        yield f"  failed: {error}"
    if len(tally.errors) > 5:
        yield f"  ... and {len(tally.errors) - 5:,} more shards; all are in {layer}/_log/failures.jsonl"
    if tally.errors:
        yield "  what is committed stays; when the cause is mended, run the same command again"


def flags(counts: Mapping[str, int]) -> Iterator[str]:
    """Flags with how many annotations carry them, and what they mean."""
    for flag, count in sorted(counts.items()):
        yield f"  {count:>9,}  {flag}: {FLAGS.get(flag, 'unknown to this version')}"


def what_next(folder: Path) -> Iterator[str]:
    """The end of the demo: where to look, and what to type for one's own data."""
    yield f"Look at {folder / 'pictures' / 'sheet.png'}: every box with its mask, drawn without any weights."
    yield f"The masks are Parquet files in {folder / 'shards' / 'demo' / 'train' / 'masks'}."
    yield ""
    yield "Your own data, a COCO-style JSON with boxes and a folder of images:"
    if sys.prefix != sys.base_prefix:  # in a virtual environment, as `make demo` is
        yield f"  . {Path(sys.prefix) / 'bin' / 'activate'}"
    yield "  synthgen doctor --dataset coco-json --annotations boxes.json --images photos/"
    yield "  synthgen masks  --dataset coco-json --annotations boxes.json --images photos/"
    yield "  synthgen show   boxes/train/masks"
