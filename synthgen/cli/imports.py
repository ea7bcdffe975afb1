"""The command that brings in masks which were made elsewhere: import-masks."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.storage.disk import default_store, reject_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synthgen.generate.imports.request import ImportReport, ImportRequest


class MatchMode(StrEnum):
    """How a mask finds its box."""

    AUTO = "auto"
    ID = "id"
    BOX = "box"


def import_masks(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            readable=False,
            callback=reject_url,
            help="COCO instances or results (JSON), or a folder of PNG masks",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="DATASET[/SPLIT[/LAYER]]", help="Whose boxes get the masks, as the store names it"),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="DATASET/SPLIT/LAYER", help="Replace single masks of this layer; they count as reviewed"),
    ] = None,
    layer: Annotated[str, typer.Option("--layer", "--name", help="Layer to write")] = "imported",
    model: Annotated[
        str | None, typer.Option(help="Who drew the masks of which the file does not say it (default: imported)")
    ] = None,
    match: Annotated[
        MatchMode,
        typer.Option(help="How a mask finds its box: by id, by box, or by the id where both agree and else by box"),
    ] = MatchMode.AUTO,
    min_box_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Least IoU of the mask's own box with the box that gets it")
    ] = 0.5,
    any_category: Annotated[bool, typer.Option("--any-category", help="Do not compare categories")] = False,
    store: opt.Store = opt.DEFAULT_STORE,
) -> None:
    """Bring in masks that were made elsewhere.

    With --dataset they become a layer on the boxes of an ingested dataset. With --into they replace single masks of a
    layer; layers made from it become stale. PNG folders have one id map for each image (photo.png), or a folder of
    binary masks for each image (photo/1.png). Masks that find no box are counted with the reason.

    Kill it and type the same command again. Exit code 1 if no mask found a box.

    \b
    Examples:
      synthgen import-masks masks.json --dataset coco/val2017 --model sam2
      synthgen import-masks corrected.json --into coco/val2017/masks
    """
    from synthgen.api import imports
    from synthgen.generate.imports.matching import MatchRules

    rules = MatchRules(match.value, min_box_iou, any_category)
    request = imports.make_request(source, dataset, into, layer, model, store, rules)
    report = imports.run_import(request, open_progress)
    print_lines(*_format_report(request, report))
    if not report.imported and not report.unchanged:
        raise typer.Exit(1)
    where = [] if store == default_store() else ["--store", str(store)]
    print_lines(f"next: {shlex.join(['synthgen', 'show', report.layer, *where])}")


def _format_report(request: ImportRequest, report: ImportReport) -> Iterator[str]:
    from synthgen.cli.messages import pluralize
    from synthgen.generate.imports.matching import UNUSED_REASONS

    shards = pluralize(report.shards, "shard")
    how = f"{report.written:,} of {shards} written" if report.written else "every shard was there"
    if request.replaces:
        replaced = pluralize(report.imported, "mask")
        yield f"{report.layer}: {replaced} replaced, {report.unchanged:,} as they were; {how}"
    else:
        boxes = f"{pluralize(report.boxes, 'box')} on {pluralize(report.images, 'image')}"
        yield f"{report.layer}: {pluralize(report.imported, 'mask')} for {boxes}; {how}"
    if report.without_mask:
        yield f"  {report.without_mask:>9,}  no_imported_mask: boxes that the file has no fitting mask for"
    if report.dropped:
        yield f"  {report.dropped:>9,}  reviewed masks did not stay: their boxes changed or are gone"
    unused = sum(report.unused.values())
    if unused:
        yield f"  {pluralize(unused, 'mask')} of the file not used:"
    for reason, count in report.unused.items():
        if count:
            examples = report.examples.get(reason, ())
            yield f"  {count:>9,}  {reason}: {UNUSED_REASONS[reason]}" + (f" (e.g. {examples[0]})" if examples else "")
