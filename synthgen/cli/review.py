"""The commands that look into a store: status, show."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.errors import SynthgenError


def status(
    store: opt.Store = opt.DEFAULT_STORE,
    failures: Annotated[bool, typer.Option("--failures", help="List every failed object, image and shard")] = False,
) -> None:
    """What lies in the store: layers, shards done, images, masks, failures, and the recipe of each.

    Also what is damaged, stale or foreign, from the footers alone; `verify` reads all pages of a layer. Exit code 1 if
    a shard is damaged, another one has its name, or an update has not finished.
    """
    from synthgen.review.status import format_status, summarize_layers

    layers = summarize_layers(store)
    print_lines(*format_status(store, failures=failures, layers=layers))
    raise typer.Exit(1 if any(layer.damaged or layer.unfinished for layer in layers) else 0)


def show(
    context: typer.Context,
    what: opt.LayerOrManifest,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many images")] = 16,
    images: opt.Images = None,
    store: opt.Store = opt.DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures (default: _log/show/ in the layer, _show/NAME/ in the store)"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed shows other images (default: 0, or the manifest's)")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Show this file name (or image id) instead; repeatable")
    ] = None,
) -> None:
    """Draw images with their boxes, masks, scores and captions as PNG: look at the data.

    Of a manifest, draw what a model would be trained on first: images as they are augmented, masks and texts. An object
    without a mask has a dashed box; hatched is what is ignored, chequered is padding.

    \b
    Examples:
      synthgen show objects365/train/masks --n 16
      synthgen show manifests/toy.yaml --n 16
    """
    if what.lower().endswith((".yaml", ".yml")) or os.path.isfile(what):  # noqa: PTH113 - where others raise, it does not
        from synthgen.visualize.training_samples import draw_training_samples

        if images or image:
            raise SynthgenError("--images and --image are for layers; a manifest says images: in each of its sources")
        # A manifest may name its store, which the command line overrules, and the environment does not.
        source = context.get_parameter_source("store")
        own = store if source is not None and source.name == "COMMANDLINE" else None
        with open_progress("drawing", n, "images") as drawn:
            found = draw_training_samples(Path(what), store=own, out=out, n=n, seed=seed, on_images=drawn.advance)
        print_lines(*map(str, found.picture_paths), f"all on one sheet: {found.sheet_path}", "", *found.stats_lines)
        return
    from synthgen.review.show import draw_layer

    with open_progress("drawing", n, "images") as drawn:
        sheet, paths = draw_layer(
            what,
            store,
            images=images,
            out=out,
            num_images=n,
            seed=seed or 0,
            only_images=image or (),
            on_images=drawn.advance,
        )
    print_lines(*map(str, paths), f"all on one sheet: {sheet}")
