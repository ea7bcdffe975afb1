"""The front door: each command is a few lines over the rooms behind it, and imports them only when it runs."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen import __version__
from synthgen import options as opt
from synthgen.errors import SynthgenError, printable, refused

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn box-annotated image datasets into segmentation datasets. Begin with `synthgen demo`.",
)

DATA, STORE = Path("data"), Path("shards")


@app.callback(invoke_without_command=True)
def version_only(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"synthgen {__version__}")
        raise typer.Exit


@app.command()
def ingest(
    dataset: opt.Dataset,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    data: opt.Data = DATA,
    store: opt.Store = STORE,
    layer: Annotated[str, typer.Option(help="annotations (boxes), or human (masks), regions (phrases) where given")] = (
        "annotations"
    ),
    shard_size: Annotated[int, typer.Option(min=0, help="Images a shard; 0 = by the dataset's size, at most 1000")] = 0,
) -> None:
    r"""Read a dataset's own files into shards.

    Every box arrives: what is wrong with one stands beside it as a flag, and is counted. `masks` does this by itself
    where it has not been done; do it alone to look at the data first, or for a layer of human masks.

    \b
    Example:
      synthgen ingest --dataset coco --split val2017 --layer human
    """
    from synthgen import words
    from synthgen.generate import source

    given = source.resolve(dataset, name, split, data, annotations, images)
    report = source.make_layer(given, store, layer, shard_size=shard_size, bar=_bar)
    _say(*words.ingested(f"{given.name}/{given.split}/{layer}", report))


@app.command()
def doctor(
    dataset: opt.Dataset,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    data: opt.Data = DATA,
    check_images: Annotated[
        str, typer.Option(help="header (fast), all (decode every file), none, or a number of images to decode")
    ] = "header",
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON, for a program to read")] = False,
) -> None:
    """Examine a dataset before any GPU time is spent.

    Boxes out of range, without area, duplicate; missing, truncated, turned and wrongly sized images; colliding ids;
    categories that drift between splits. Changes nothing. Exit code 1 if a job would fail on it.

    \b
    Example:
      synthgen doctor --dataset coco-json --annotations boxes.json --images photos/
    """
    from synthgen.generate import source
    from synthgen.generate.doctor import diagnosis as words

    given = source.resolve(dataset, name, split, data, annotations, images)
    found = source.diagnose(given, every_split=split is None, check_images=check_images, bar=_bar)
    _say(*(json.dumps(words.as_json(found), indent=1).splitlines() if as_json else words.as_text(found)))
    raise typer.Exit(0 if found.ready else 1)


@app.command()
def masks(
    context: typer.Context,
    dataset: opt.Dataset,
    segmenter: opt.Segmenter = "grabcut",
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    data: opt.Data = DATA,
    store: opt.Store = STORE,
    reads: Annotated[str, typer.Option(help="Layer whose boxes are the prompts")] = "annotations",
    layer: Annotated[str, typer.Option(help="Layer to write")] = "masks",
    variant: opt.Variant = None,
    checkpoint: opt.Checkpoint = None,
    device: opt.Device = None,
    precision: opt.Precision = None,
    compile: opt.Compile = None,
    batch_size: opt.BatchSize = None,
    multimask: opt.Multimask = None,
    zoom: opt.Zoom = None,
    option: opt.Options = None,
    part: opt.Part = "0/1",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many shards: a first look")] = None,
    workers: opt.Workers = None,
    gpus_per_worker: opt.GpusPerWorker = None,
    max_error_share: Annotated[
        float, typer.Option(min=0, max=1, help="A shard with a larger share of failed images is not committed")
    ] = 0.05,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Do failed images of finished shards again")] = (
        False
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing")] = False,
) -> None:
    """Draw a mask for every box.

    The options from --variant to --zoom are those of sam and hq_sam.

    Kill it at any moment and type the same command again: what is committed stays, and the result is the same, byte
    for byte. Exit code 0: all done; 1: some shards failed and are named; 2: something for you to mend, said in a
    sentence; 130: stopped by Ctrl-C.

    \b
    Examples:
      synthgen masks --dataset coco-json --annotations boxes.json --images photos/
      synthgen masks --dataset objects365 --segmenter sam --precision bf16
    """
    from synthgen.generate import source

    given = source.resolve(dataset, name, split, data, annotations, images)
    job = source.masks_job(
        given,
        store,
        segmenter=segmenter,
        options=source.options(
            option or [],
            variant=variant,
            checkpoint=checkpoint,
            device=device,
            precision=precision,
            compile=compile,
            batch_size=batch_size,
            multimask=multimask,
            zoom=zoom,
        ),
        reads=reads,
        layer=layer,
        max_error_share=max_error_share,
        retry_failed=retry_failed,
    )
    if not dry_run:
        source.ready(given, job, bar=_bar)
    elif first := source.missing(given, job):
        _say(first)
        return
    crew = {"workers": workers, "gpus_per_worker": gpus_per_worker}
    _run(context.obj, job, part=source.part(part), limit=limit, crew=crew, dry_run=dry_run)


@app.command()
def status(
    store: opt.Store = STORE,
    failures: Annotated[bool, typer.Option("--failures", help="List every failed object, image and shard")] = False,
) -> None:
    """What lies in the store: layers, shards done, images, masks, failures, and the recipe of each."""
    from synthgen.review import inventory

    _say(*inventory.say(store, failures=failures))


@app.command()
def show(
    layer: opt.LayerArgument,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many images")] = 16,
    images: opt.Images = None,
    store: opt.Store = STORE,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures (default: show/ in the layer's _log)")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed shows other images")] = 0,
    image: Annotated[
        list[str] | None, typer.Option(help="Show this file name (or image id) instead; repeatable")
    ] = None,
) -> None:
    """Draw images with their boxes, masks, categories and scores as PNG: look at the data.

    \b
    Example:
      synthgen show objects365/train/masks --n 16
    """
    from synthgen.review import show as review

    with _bar("drawing", n, "images") as bar:
        sheet, pictures = review.show(
            layer, store, images=images, out=out, n=n, seed=seed, only=image or (), on_images=bar.advance
        )
    _say(*(str(path) for path in pictures), f"all on one sheet: {sheet}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to put photographs, shards and pictures")] = Path("demo"),
) -> None:
    """The whole way on a few real photographs: ingest, doctor, masks, pictures. Downloads nothing; takes a minute."""
    from synthgen import words
    from synthgen.demo import photographs

    annotations, images = photographs.lay_out(folder)
    store, where = folder / "shards", ["--annotations", str(annotations), "--images", str(images)]
    own = ["--dataset", "coco-json", "--name", "demo", *where]
    for command in (
        ["ingest", *own, "--store", str(store)],
        ["doctor", *own],
        ["masks", *own, "--store", str(store)],
        ["status", "--store", str(store)],
        ["show", "demo/train/masks", "--store", str(store), "--out", str(folder / "pictures")],
    ):
        _say("", f"$ synthgen {' '.join(command)}")
        if (code := app(command, standalone_mode=False)) and (code != 1 or command[0] != "doctor"):
            raise typer.Exit(code)
    _say("", *words.what_next(folder))


def main(engine: Any = None, *, command: str | None = None) -> None:
    """Run the command line; the porch gives the cluster's `engine`, and the command that its file is for."""
    for stream in (sys.stdout, sys.stderr):
        # File and category names come from anywhere; a terminal of another encoding must not end a job.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app([command, *sys.argv[1:]] if command else None, obj=engine)
    except (SynthgenError, OSError) as why:
        sentence = refused(why) if isinstance(why, OSError) else str(why)
        if sentence is None:
            raise
        typer.echo(printable(f"synthgen: {sentence}"), err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C
            typer.echo("stopped; what is committed stays, and the same command continues", err=True)
        raise


def _run(engine: Any, job: Any, *, part: tuple[int, int], limit: int | None, crew: Any, dry_run: bool) -> None:
    """Let the engine make the pending shards under a bar; turn what happened into words and an exit code."""
    from synthgen import words
    from synthgen.generate.engine import in_process
    from synthgen.generate.run import run, shards_to_do

    shards = shards_to_do(job, part=part, limit=limit, dry_run=dry_run)
    _say(*words.plan(job, shards))
    if dry_run or not shards:
        return
    with _bar(job.layer, words.images_in(job, shards), "images") as bar:
        chances = iter(range(words.MOST_ERRORS))

        def told(report: Any) -> None:
            if report.error is not None and next(chances, None) is not None:
                bar.tell(f"failed: {report.error}")

        tally = run(job, shards, engine or in_process, part=part, crew=crew, on_images=bar.advance, on_report=told)
    _say(*words.result(job, tally))
    raise typer.Exit(1 if tally.errors else 0)


def _bar(what: str, total: int, unit: str) -> Any:
    from synthgen import progress

    return progress.Bar(what, total, unit)


def _say(*lines: str) -> None:
    try:
        for line in lines:
            typer.echo(printable(line))
    except OSError as why:
        # What is buffered would fail again at the end. Where only the reader left, as `head` does, the job goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(why, BrokenPipeError):
            raise SynthgenError(f"cannot write to standard output ({why.strerror}); send it elsewhere") from None
