"""Exports of a layer: what `Layer.export` and `Layer.to_coco` do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from synthgen.errors import ArgumentError, SynthgenError
from synthgen.export.options import ExportOptions
from synthgen.export.run import ExportReport, run_export
from synthgen.export.source import ExportSource
from synthgen.progress import NoProgress, OpenProgress
from synthgen.records.sample import Sample
from synthgen.storage.atomic import check_writable, scratch_folder
from synthgen.storage.disk import require_path, sync_folder

if TYPE_CHECKING:
    from synthgen.layers.layer_filter import LayerFilter
    from synthgen.layers.layer_rows import LayerRows


#: What an error about a single file suggests.
_REMEDY = "choose another path"


class ExportableLayer(Protocol):
    """What an export needs of a `Layer`."""

    @property
    def name(self) -> str:
        """DATASET/SPLIT/LAYER."""

    @property
    def num_missing_shards(self) -> int:
        """Shards that are planned and not committed."""

    def export_source(self) -> ExportSource:
        """What an export needs to know about the layer."""


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
        reads=(rows.store.root,),
    )
    if own_filter is None:
        return source
    given = {name: value for name, value in asdict(own_filter).items() if value is not None}
    conditions = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in given.items()}
    return replace(source, accepts=own_filter.accepts, conditions=conditions)


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
        report = run_export([source], "coco", scratch / "coco", options, NoProgress, describe=False)
        [file] = (scratch / "coco" / "annotations").iterdir()
        file.replace(path)
        sync_folder(path.parent)
    return replace(report, path=path)


def export_layers(
    layers: Sequence[ExportableLayer],
    to: str,
    out: str | os.PathLike[str],
    *,
    options: ExportOptions | None = None,
    partial: bool = False,
    progress: OpenProgress | None = None,
) -> ExportReport:
    """Write layers in the format of another tool, as `synthgen export` does.

    Args:
        layers: one `Layer`, or the layers of several splits of one dataset, which stay the splits of the export.
        to: as in `Layer.export`.
        out: as in `Layer.export`.
        options: as in `Layer.export`.
        partial: as in `Layer.export`.
        progress: as in `Layer.export`.

    Returns:
        As `Layer.export`.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: as `Layer.export`.
    """
    if not layers:
        raise ArgumentError("layers is empty; give at least one layer")
    for layer in layers:
        if layer.num_missing_shards and not partial:
            raise SynthgenError(
                f"{layer.name} lacks {layer.num_missing_shards:,} of its shards; run the command that makes it again, "
                "or export what is there with --partial"
            )
    sources = [layer.export_source() for layer in layers]
    return run_export(sources, to, require_path("out", out), options or ExportOptions(), progress or NoProgress)
