"""The commands that read a dataset's own files: ingest, doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.terminal import open_progress, print_lines

if TYPE_CHECKING:
    from synthgen.generate.dataset_spec import DatasetSpec
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
    update: opt.Update = False,
    removed: opt.Removed = opt.RemovedImages.DROP,
    dry_run: opt.DryRun = False,
) -> None:
    """Read a dataset's own files into shards.

    Every box arrives: what is wrong with one stands beside it as a flag, and is counted. `masks` does this by itself
    where it has not been done; do it alone to look at the data first, or for a layer of human masks.

    With --update, after the annotation file has changed: only the shards whose images differ are written again.

    \b
    Examples:
      synthgen ingest data/coco --split val2017 --layer human
      synthgen ingest boxes.json --images photos/ --update --dry-run
    """
    from synthgen.api import datasets
    from synthgen.cli import messages
    from synthgen.generate.dataset_spec import DatasetRequest

    request = DatasetRequest(
        path=path,
        dataset=dataset,
        name=name,
        split=split,
        data=data,
        annotations=annotations,
        images=images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )

    if dry_run:
        for spec, changes in datasets.preview_request(request, store, layer, update=update, removed=removed):
            print_lines(messages.format_update(f"{spec.name}/{spec.split}/{layer}", changes, is_done=False))
        return

    def print_report(spec: DatasetSpec, report: IngestReport) -> None:
        print_lines(*messages.format_ingest_report(f"{spec.name}/{spec.split}/{layer}", report))

    done = datasets.ingest_request(
        request, store, layer, shard_size=shard_size, update=update, removed=removed,
        open_progress=open_progress, on_report=print_report,
    )  # fmt: skip
    reports = [report for _, report in done]
    if path is not None:
        images_read, boxes = (sum(getattr(report, what) for report in reports) for what in ("images", "annotations"))
        print_lines(messages.format_recognized(path, [spec for spec, _ in done], images_read, boxes))
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
    from synthgen.api import datasets
    from synthgen.cli import messages
    from synthgen.generate.dataset_spec import DatasetRequest
    from synthgen.ingest.validation import diagnosis

    request = DatasetRequest(
        path=path,
        dataset=dataset,
        name=name,
        split=split,
        data=data,
        annotations=annotations,
        images=images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )
    specs, report = datasets.examine_request(request, check_images=check_images, open_progress=open_progress)
    if as_json:
        print_lines(*json.dumps(diagnosis.report_to_dict(report), indent=1).splitlines())
    else:
        if path is not None:
            images_read, boxes = (sum(getattr(one, what) for one in report.splits) for what in ("images", "boxes"))
            print_lines(messages.format_recognized(path, specs, images_read, boxes))
        print_lines(*diagnosis.format_validation_report(report))
    raise typer.Exit(0 if report.is_ready else 1)
