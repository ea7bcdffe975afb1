"""What the commands say: plans before, results after. Lines of text, no printing."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthgen import plugins
from synthgen.export.run import EXPORTERS, ExportReport
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.job import Job
from synthgen.generate.renewal import is_outdated
from synthgen.generate.run import RunStats
from synthgen.generate.worker import DEFAULT_CAPTION_COUNT
from synthgen.ingest.ingest import IngestReport
from synthgen.ingest.update import LayerChanges
from synthgen.records.recipe import format_recipe
from synthgen.records.sample import ANNOTATION_FLAGS
from synthgen.storage.identity import content_digest_of
from synthgen.storage.shard_store import Shard, ShardStore

#: Errors that are said one by one; the rest are counted.
MAX_LISTED_ERRORS = 5


def format_plan(job: Job, shards: Sequence[Shard]) -> Iterator[str]:
    """What a run is about to do.

    Args:
        job: what the run does with each shard.
        shards: those to do; empty = every shard is committed.
    """
    layer = f"{job.dataset}/{job.split}/{job.layer}"
    if not shards:
        yield f"{layer}: nothing to do, every shard is committed"
        return
    store = ShardStore(job.store)
    sources = [store.read_footer(shard.in_layer(job.input_layer)) or {} for shard in shards]
    images, boxes = (sum(s.get("counts", {}).get(key, 0) for s in sources) for key in ("images", "annotations"))
    yield (
        f"{layer}: {len(shards):,} of {pluralize(shards[0].num_shards, 'shard')} to do, {pluralize(images, 'image')}, "
        f"{pluralize(boxes, 'box')}, "
        f"by {format_recipe(job.recipe())}"
    )
    made = [store.read_footer(shard) for shard in shards]
    stale = sum(
        footer is not None and is_outdated(job, footer, source, content_digest_of(source))
        for footer, source in zip(made, sources, strict=True)
    )
    if stale:
        yield f"  {pluralize(stale, 'shard')} again: the layer {job.input_layer} has changed since"


def format_recognized(path: Path, specs: Sequence[DatasetSpec], images: int, boxes: int) -> str:
    """What was found at a path: "cones: YOLO, 3 splits (train, valid, test), 24 images, 252 boxes".

    Args:
        path: as the user names it.
        specs: one for each split.
        images: number of images in all splits.
        boxes: number of boxes in all splits.
    """
    title = getattr(specs[0].reader, "TITLE", specs[0].plugin)
    names = ", ".join(spec.split for spec in specs)
    counts = f"{pluralize(images, 'image')}, {pluralize(boxes, 'box')}"
    return f"{path}: {title}, {pluralize(len(specs), 'split')} ({names}), {counts}"


def format_ingest_report(layer: str, report: IngestReport) -> Iterator[str]:
    """What an ingest has found.

    Args:
        layer: DATASET/SPLIT/LAYER.
        report: what `ingest` returned.
    """
    whole = pluralize(report.shards, "shard")
    how = f"{report.committed:,} of {whole} written" if report.committed else "every shard was there"
    masks = f", {pluralize(report.masks, 'mask')}" if report.masks else ""
    yield f"{layer}: {pluralize(report.images, 'image')}, {pluralize(report.annotations, 'box')}{masks}; {how}"
    if report.changes is not None:
        yield f"  updated: {report.changes.total}"
    if report.errors:
        yield f"  {pluralize(report.errors, 'image')} with an error; `synthgen show {layer}` draws them with it"
    if not report.has_usable_box:
        yield "  no box can be used; `synthgen doctor` says what is wrong with them"
    yield from format_flags(report.flags)


def format_update(layer: str, changes: LayerChanges | None, *, is_done: bool) -> str:
    """What an update of a layer does.

    Args:
        layer: DATASET/SPLIT/LAYER.
        changes: of its images; None = the annotation files are those of its shards.
        is_done: whether it was done; else a dry run tells.
    """
    if changes is None:
        return f"{layer}: nothing has changed; shards that are missing would be written"
    verb = "were written" if is_done else "would be written"
    shards = f"{len(changes.by_shard):,} of {pluralize(changes.num_shards, 'shard')}"
    return f"{layer}: {changes.total}; {shards} {verb} again"


def count_inputs(jobs: Sequence[Job]) -> tuple[int, int]:
    """How many images and boxes the layers hold that the jobs read."""
    counts = [
        (ShardStore(job.store).read_footer(shard) or {}).get("counts", {})
        for job in jobs
        for shard in ShardStore(job.store).list_shards(job.dataset, job.split, job.input_layer)
    ]
    images, boxes = (sum(of.get(key, 0) for of in counts) for key in ("images", "annotations"))
    return images, boxes


def format_result(job: Job, tally: RunStats) -> Iterator[str]:
    """What a run has done.

    Args:
        job: what the run did with each shard.
        tally: what it has counted.
    """
    layer = f"{job.dataset}/{job.split}/{job.layer}"
    boxes = pluralize(tally.annotations, "box")
    made = f"{pluralize(tally.masks, 'mask')} for {boxes}"
    if job.stage == "captions":
        made = f"{pluralize(tally.captions, 'caption')} for {tally.captioned:,} of {boxes}"
    yield (
        f"{layer}: {made} on {pluralize(tally.images, 'image')} "
        f"in {pluralize(tally.committed, 'shard')}, {tally.images_per_second:.1f} images/s"
    )
    if job.stage == "captions" and tally.described:
        asked = job.stage_options.get("top_k", DEFAULT_CAPTION_COUNT)
        variety = f"have {asked} that differ" if asked > 1 else "have one"
        yield f"  {tally.varied / tally.described:.0%} of those that the captioner described {variety}"
    yield from format_flags(tally.flags)
    if not tally.has_output(job.stage):
        yield describe_no_output(job)
    if tally.kept:
        yield f"  {pluralize(tally.kept, 'image')} of shards that were made again keep their results"
    if tally.reviewed_lost:
        some = pluralize(tally.reviewed_lost, "mask")
        yield f"  {some} that people had reviewed are lost: the annotations of their images have changed"
    if tally.passed_over:
        some = pluralize(tally.passed_over, "image")
        yield f"  passed over: {some} that came with an error; `synthgen show {layer}` draws such with it"
    if tally.failed_images:
        failed = pluralize(tally.failed_images, "image")
        yield f"  {failed} failed: `synthgen status --failures` lists them, --retry-failed tries again"
    for error in tally.errors[:MAX_LISTED_ERRORS]:
        yield f"  failed: {error}"
    if len(tally.errors) > MAX_LISTED_ERRORS:
        yield f"  ... and {len(tally.errors) - MAX_LISTED_ERRORS:,} more shards; all are in {layer}/_log/failures.jsonl"
    if tally.errors:
        yield "  what is committed stays; fix the cause, and run the same command again"


def format_note(job: Job) -> Iterator[str]:
    """What the plugin of a job says of its results; nothing if it says nothing."""
    stage: Any = plugins.load_plugin("generate.stages", job.stage)
    note = getattr(plugins.load_plugin(stage.PLUGIN_PACKAGE, job.plugin), "NOTE_AFTER_JOB", None)
    if isinstance(note, str):
        yield f"note: {note}"


#: The format for a user of a reader, where the exporter has another name.
_EXPORT_OF_READER = {"label_studio": "labelstudio", "semantic_folder": "png"}

#: Why an export left out an annotation or an image.
_LEFT_OUT = {
    "filter": "a score or category that was not asked for",
    "no_mask": "no mask; --keep-boxes keeps the box where the format can hold it",
    "min_area": "a mask of fewer pixels than --min-area",
    "category_map": "a category that the map leaves out",
    "unlisted_category": "a category that the layer does not list",
    "no_box": "neither a finite box nor a mask",
    "outside_image": "a box wholly outside its image",
    "crowd": "a crowd, which the format cannot mark",
    "hidden": "a mask wholly below smaller ones",
    "too_many_objects": "more objects in the image than a map has numbers",
    "image_too_large": "an image that is too large for a map",
    "no_image_size": "an image whose size is not known",
    "not_chosen": "not among --max-images",
    "error": "an image that could not be processed",
    "empty": "no annotation",
    "missing_file": "no image file of this name; check --images",
    "unreadable_file": "the image file cannot be read",
}


def format_export(report: ExportReport) -> Iterator[str]:
    """What an export has written, and what not."""
    for split, images in report.images.items():
        yield (
            f"{report.path}: {report.format}, split {split}: {pluralize(images, 'image')}, "
            f"{pluralize(report.annotations[split], 'annotation')}"
        )
    drawn = ", ".join(f"{count:,} {provenance}" for provenance, count in report.masks.items())
    by = f" ({', '.join(report.models)})" if report.models else ""
    yield f"  masks: {drawn or 'none'}{by}; {pluralize(len(report.categories), 'category')}"
    for line in report.notes:
        yield f"  {line}"
    for what, reasons in (("annotation", report.left_out), ("image", report.left_out_images)):
        for reason, count in reasons.items():
            yield f"  left out: {pluralize(count, what)}: {_LEFT_OUT.get(reason, reason.replace('_', ' '))}"


def format_next_commands(jobs: Sequence[Job], store: Path | None) -> Iterator[str]:
    """The commands that draw the first of some layers, and that export all of them.

    Args:
        jobs: those whose layers have output; at least one.
        store: the folder of the shards; None = the usual one.
    """
    layers = [f"{job.dataset}/{job.split}/{job.layer}" for job in jobs]
    place = ["--store", str(store)] if store is not None else []
    reader = _reader_of(jobs[0])
    to = reader if reader in plugins.list_plugins(EXPORTERS) else _EXPORT_OF_READER.get(reader, "coco")
    out = f"{jobs[0].dataset}-{to}"
    yield f"next: {shlex.join(['synthgen', 'show', layers[0], *place])}"
    yield f"next: {shlex.join(['synthgen', 'export', *layers, '--to', to, '--out', out, *place])}"


def _reader_of(job: Job) -> str:
    """The reader that made the first layer of the job's dataset; "" if that is not known."""
    store = ShardStore(job.store)
    for layer in ("annotations", "human", job.input_layer):
        for shard in store.list_shards(job.dataset, job.split, layer)[:1]:
            reader = ((store.read_footer(shard) or {}).get("recipe") or {}).get("reader")
            if isinstance(reader, str):
                return reader
    return ""


def describe_no_output(job: Job) -> str:
    """The line about a layer in which no box has what its stage makes."""
    layer = f"{job.dataset}/{job.split}/{job.layer}"
    return f"  no box got a {'caption' if job.stage == 'captions' else 'mask'}; `synthgen show {layer}` draws why"


def pluralize(count: int, what: str) -> str:
    """ "1 box", "1,743 boxes"."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}{'es' if what.endswith('x') else 's'}"
    return f"{count:,} {what if count == 1 else plural}"


def format_flags(counts: Mapping[str, int]) -> Iterator[str]:
    """Flags with how many annotations carry them, and what they mean."""
    for flag, count in sorted(counts.items()):
        yield f"  {count:>9,}  {flag}: {ANNOTATION_FLAGS.get(flag, 'unknown to this version')}"


def format_next_steps(folder: Path, *, trained: bool) -> Iterator[str]:
    """The end of the demo: where to look, and what to type for one's own data.

    Args:
        folder: of the demo.
        trained: whether the demo also trained a network.
    """
    yield f"Look at {folder / 'pictures' / 'sheet.png'}: every box, its mask, its captions; no weights."
    yield f"Masks and captions are Parquet files in {folder / 'shards' / 'demo' / 'train' / 'captions'}."
    if trained:
        yield f"Look at {folder / 'training' / 'sheet.png'}: what training sees of them, mirrored, scaled, cut;"
        yield "dashed boxes have no mask to learn from, hatched regions are ignored, chequers are padding."
        yield f"Look at {folder / 'predictions' / 'coffee.jpg.found.png'}: what a network found that had learned these"
        yield "photographs for some minutes. It is a demonstration: it knows nothing else."
        yield f"What it learned is said in {folder / 'learn.yaml'}, what is drawn in {folder / 'toy.yaml'}:"
        yield "change it, and type"
        yield f"  synthgen check {folder / 'toy.yaml'}"
        yield f"  synthgen show  {folder / 'toy.yaml'}"
    yield ""
    yield "Your own data: a folder in YOLO, COCO, VOC or another known layout, or a COCO JSON file and its images:"
    if sys.prefix != sys.base_prefix:  # in a virtual environment, as `make demo` is
        yield f"  . {Path(sys.prefix) / 'bin' / 'activate'}"
    yield "  synthgen doctor boxes.json --images photos/"
    yield "  synthgen masks boxes.json --images photos/"
    yield "  synthgen captions boxes.json --images photos/"
    yield "  synthgen show boxes/train/captions"
