"""The command that writes a layer in the format of another tool: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from synthgen.cli import options as opt
from synthgen.cli.parsing import parse_category_map, parse_plugin_options
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.plugins import list_plugins

_SPLITS, _CONTENT, _MASKS = "Which images", "Which annotations", "How masks are written"


def _share(split: str) -> Any:
    return typer.Option(min=0, max=0.99, help=f"Share of the images for the split {split}", rich_help_panel=_SPLITS)


def _score() -> Any:
    return typer.Option(
        min=0, max=1, help="Minimum of the mask's score; masks by people stay", rich_help_panel=_CONTENT
    )


def export(
    layers: Annotated[
        list[str],
        typer.Argument(
            metavar="LAYER...",
            help="DATASET/SPLIT/LAYER, as `synthgen status` lists them; of several, each keeps its split",
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=", ".join(list_plugins("export.exporters")))],
    out: Annotated[Path, typer.Option(help="Folder to write; it gets its name when everything is written")],
    store: opt.Store = opt.DEFAULT_STORE,
    images: opt.Images = None,
    image_mode: Annotated[
        Literal["link", "copy", "none", "embed"] | None,
        typer.Option(help="What happens with the images: links, copies, nothing, or inside the files"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in the folder")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Export what is there if shards are missing")] = False,
    val: Annotated[float, _share("val")] = 0.0,
    test: Annotated[float, _share("test")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed chooses other images", rich_help_panel=_SPLITS)] = 0,
    max_images: Annotated[
        int, typer.Option(min=0, help="So many images, chosen by the seed; 0 = all", rich_help_panel=_SPLITS)
    ] = 0,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out images without annotations", rich_help_panel=_SPLITS)
    ] = False,
    category: Annotated[
        list[str] | None, typer.Option(help="Only this category; repeatable", rich_help_panel=_CONTENT)
    ] = None,
    category_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OLD=NEW",
            help="Rename a category, or join several by one new name; OLD= leaves it out; repeatable",
            rich_help_panel=_CONTENT,
        ),
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(readable=False, help="The same as a YAML file of lines `old: new`", rich_help_panel=_CONTENT),
    ] = None,
    min_stability_score: Annotated[float | None, _score()] = None,
    min_predicted_iou: Annotated[float | None, _score()] = None,
    min_box_iou: Annotated[float | None, _score()] = None,
    min_soft_iou: Annotated[float | None, _score()] = None,
    min_area: Annotated[
        float, typer.Option(min=0, help="Minimum number of pixels of a mask", rich_help_panel=_CONTENT)
    ] = 0.0,
    keep_boxes: Annotated[
        bool,
        typer.Option(
            "--keep-boxes",
            help="Keep annotations without a mask as boxes, where the format can hold them",
            rich_help_panel=_CONTENT,
        ),
    ] = False,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Fill the holes of masks", rich_help_panel=_MASKS)
    ] = False,
    largest_component: Annotated[
        bool,
        typer.Option("--largest-component", help="Keep only the largest part of a mask", rich_help_panel=_MASKS),
    ] = False,
    option: opt.ExtraOptions = None,
) -> None:
    """Write a layer in the format of another tool, with its images, scores and who drew the masks.

    Ids of images, annotations and categories stay those of the source where the format has them. Whatever is left out
    is counted. The photograph decides the split, so the same photograph is never in two of them.

    \b
    Examples:
      synthgen export boxes/train/masks --to yolo --out yolo --val 0.1
      synthgen export coco/train2017/masks --to coco --out out --min-stability-score 0.9
    """
    from synthgen.cli import messages
    from synthgen.export.options import ExportOptions
    from synthgen.layers.layer import load_layer
    from synthgen.layers.layer_export import export_layers

    opened = [load_layer(store, layer, images=images) for layer in layers]
    known = {name for layer in opened for name in layer.categories}
    own = [
        layer.filter(
            min_stability_score=min_stability_score,
            min_predicted_iou=min_predicted_iou,
            min_box_iou=min_box_iou,
            min_soft_iou=min_soft_iou,
            # One layer need not have all of them; a name that none has is refused.
            categories=None if category is None else [c for c in category if c in layer.categories or c not in known],
        )
        for layer in opened
    ]
    report = export_layers(
        own,
        to,
        out,
        options=ExportOptions(
            image_mode=image_mode,
            val=val,
            test=test,
            seed=seed,
            max_images=max_images,
            skip_empty=skip_empty,
            keep_boxes=keep_boxes,
            category_map=parse_category_map(category_map or [], map_file),
            fill_holes=fill_holes,
            largest_component=largest_component,
            min_area=min_area,
            overwrite=overwrite,
            format_options=parse_plugin_options(option or [], {}),
        ),
        partial=partial,
        progress=open_progress,
    )
    print_lines(*messages.format_export(report))
    failed = {"missing_file", "unreadable_file"} & set(report.left_out_images)
    raise typer.Exit(1 if failed or not sum(report.annotations.values()) else 0)
