"""The commands that read a dataset's own files: ingest, doctor."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.errors import job_has_started
from synthgen.progress import PhaseProgress

if TYPE_CHECKING:
    from synthgen.ingest.ingest import IngestReport


def ingest(
    path: opt.DatasetPath = None,
    dataset: opt.Dataset = None,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    match_names: opt.MatchNames = False,
    crowds_as_objects: opt.CrowdsAsObjects = False,
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
      synthgen ingest data/coco --split val2017 --layer human
    """
    from synthgen.cli import messages
    from synthgen.generate.dataset_spec import resolve_datasets
    from synthgen.generate.input_layer import ingest_spec

    specs = resolve_datasets(
        path,
        dataset,
        name,
        split,
        data,
        annotations,
        images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )
    reports: list[IngestReport] = []
    for spec in specs:
        with job_has_started() if reports else nullcontext():
            report = ingest_spec(spec, store, layer, shard_size=shard_size, open_progress=open_progress)
        print_lines(*messages.format_ingest_report(f"{spec.name}/{spec.split}/{layer}", report))
        reports.append(report)
    if path is not None:
        images_read, boxes = (sum(getattr(report, what) for report in reports) for what in ("images", "annotations"))
        print_lines(messages.format_recognized(path, specs, images_read, boxes))
    raise typer.Exit(0 if any(report.has_usable_box for report in reports) else 1)


def doctor(
    path: opt.DatasetPath = None,
    dataset: opt.Dataset = None,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    match_names: opt.MatchNames = False,
    crowds_as_objects: opt.CrowdsAsObjects = False,
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
      synthgen doctor boxes.json --images photos/
    """
    from synthgen.cli import messages
    from synthgen.generate.dataset_spec import resolve_datasets
    from synthgen.ingest.validation import diagnosis
    from synthgen.ingest.validation.validate import validate_dataset

    specs = resolve_datasets(
        path,
        dataset,
        name,
        split,
        data,
        annotations,
        images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )
    spec = specs[0]
    splits = None if path is None and split is None and annotations is None else [one.split for one in specs]
    with PhaseProgress(open_progress, {"reading": "bytes", "examining": "images"}) as bars:
        report = validate_dataset(
            spec.plugin,
            spec.root,
            splits,
            annotations=spec.annotations,
            images=images,
            check_images=check_images,
            name=name if path is not None or spec.name != spec.default_name else None,
            store_name=spec.name,
            path=path,
            match_names=match_names,
            crowds_as_objects=crowds_as_objects,
            on_progress=bars.report,
        )
    if as_json:
        print_lines(*json.dumps(diagnosis.report_to_dict(report), indent=1).splitlines())
    else:
        if path is not None:
            images_read, boxes = (sum(getattr(one, what) for one in report.splits) for what in ("images", "boxes"))
            print_lines(messages.format_recognized(path, specs, images_read, boxes))
        print_lines(*diagnosis.format_validation_report(report))
    raise typer.Exit(0 if report.is_ready else 1)
