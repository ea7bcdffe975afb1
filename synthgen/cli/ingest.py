"""The commands that read a dataset's own files: ingest, doctor."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.progress import PhaseProgress


def ingest(
    dataset: opt.Dataset,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    data: opt.Data = opt.DEFAULT_DATA,
    store: opt.Store = opt.DEFAULT_STORE,
    layer: Annotated[str, typer.Option(help="annotations (boxes), or human (masks), regions (phrases) where given")] = (
        "annotations"
    ),
    shard_size: Annotated[int, typer.Option(min=0, help="Images a shard; 0 = by the dataset's size, at most 1000")] = 0,
) -> None:
    """Read a dataset's own files into shards.

    Every box arrives: what is wrong with one stands beside it as a flag, and is counted. `masks` does this by itself
    where it has not been done; do it alone to look at the data first, or for a layer of human masks.

    \b
    Example:
      synthgen ingest --dataset coco --split val2017 --layer human
    """
    from synthgen.cli import messages
    from synthgen.generate.dataset_spec import resolve_dataset
    from synthgen.generate.input_layer import ingest_spec

    spec = resolve_dataset(dataset, name, split, data, annotations, images)
    report = ingest_spec(spec, store, layer, shard_size=shard_size, open_progress=open_progress)
    print_lines(*messages.format_ingest_report(f"{spec.name}/{spec.split}/{layer}", report))
    raise typer.Exit(0 if report.has_usable_box else 1)


def doctor(
    dataset: opt.Dataset,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    data: opt.Data = opt.DEFAULT_DATA,
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
    from synthgen.generate.dataset_spec import resolve_dataset
    from synthgen.ingest.validation import diagnosis
    from synthgen.ingest.validation.validate import validate_dataset

    spec = resolve_dataset(dataset, name, split, data, annotations, images)
    all_splits = split is None and spec.plugin != "coco_json" and annotations is None
    with PhaseProgress(open_progress, {"reading": "bytes", "examining": "images"}) as bars:
        report = validate_dataset(
            spec.plugin,
            spec.root,
            None if all_splits else [spec.split],
            annotations=annotations,
            images=images,
            check_images=check_images,
            name=None if spec.name == spec.default_name else spec.name,
            on_progress=bars.report,
        )
    print_lines(
        *(
            json.dumps(diagnosis.report_to_dict(report), indent=1).splitlines()
            if as_json
            else diagnosis.format_validation_report(report)
        )
    )
    raise typer.Exit(0 if report.is_ready else 1)
