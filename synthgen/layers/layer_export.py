"""Exports of a layer: what `Layer.export` and `Layer.to_coco` do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen.errors import SynthgenError
from synthgen.export.options import ExportOptions
from synthgen.export.run import ExportReport, ExportSource, run_export
from synthgen.progress import NoProgress, OpenProgress
from synthgen.records.sample import Sample
from synthgen.storage.atomic import check_writable, scratch_folder
from synthgen.storage.disk import sync_folder

if TYPE_CHECKING:
    from synthgen.layers.layer_filter import LayerFilter
    from synthgen.layers.layer_rows import LayerRows

#: What an error about a single file suggests.
_REMEDY = "choose another path"


def make_source(rows: LayerRows, selection: range, own_filter: LayerFilter | None) -> ExportSource:
    """What an export needs to know about a layer.

    Args:
        rows: the rows of the layer.
        selection: those to export.
        own_filter: the conditions on annotations; None = none.
    """

    def samples() -> Iterator[Sample]:
        return rows.stream(selection)

    source = ExportSource(
        name="/".join(rows.place),
        recipe=rows.recipe,
        categories=rows.categories,
        category_records=rows.source_records("category_records"),
        licenses=rows.source_records("licenses"),
        num_images=len(selection),
        has_unknown=rows.count_flag("unknown_category") > 0,
        image_folder=rows.image_folder,
        samples=samples,
        image_keys=lambda: rows.stream_keys(selection),
    )
    return source if own_filter is None else replace(source, accepts=own_filter.accepts)


def export_coco_file(source: ExportSource, path: Path, *, masks_only: bool, renumber: bool) -> ExportReport:
    """Write a single COCO file instead of a folder, atomically; see `Layer.to_coco`.

    Args:
        source: the layer.
        path: the file; its folder is created.
        masks_only: as in `Layer.to_coco`.
        renumber: as in `Layer.to_coco`.

    Raises:
        SynthgenError: as `Layer.to_coco`.
    """
    check_writable(path, remedy=_REMEDY)
    options = ExportOptions(image_mode="none", keep_boxes=not masks_only, format_options={"renumber": renumber})
    with scratch_folder(path.parent, remedy=_REMEDY) as scratch:
        report = run_export(source, "coco", scratch / "coco", options, NoProgress)
        [file] = (scratch / "coco" / "annotations").iterdir()
        file.replace(path)
        sync_folder(path.parent)
    return replace(report, path=path)


def export_layer(
    source: ExportSource, to: str, out: Path, options: ExportOptions, open_progress: OpenProgress, *, num_missing: int
) -> ExportReport:
    """Write a layer in another format; see `run_export`.

    Args:
        source: the layer.
        to: name of the exporter.
        out: the folder to write.
        options: what the user asked for.
        open_progress: opens the progress bar.
        num_missing: number of shards of the layer that are not committed.

    Raises:
        SynthgenError: shards are missing, or as `run_export`.
    """
    if num_missing:
        raise SynthgenError(
            f"{source.name} lacks {num_missing:,} of its shards; run the command that makes it again, or export what "
            "is there with --partial"
        )
    return run_export(source, to, out, options, open_progress)
