"""The commands for manifests: check, exclude, manifests list, manifests copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.terminal import open_progress, print_lines


def check(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", readable=False, help="A YAML file, see manifests/")],
    store: opt.ManifestStore = None,
) -> None:
    """Find everything that is wrong with a manifest, at once, without training.

    Its layers, tasks, thresholds, images and lists, and images that would be both learned from and evaluated on. Prints
    what will be read; exit code 2, and every mistake with its remedy, where it cannot be.

    \b
    Example:
      synthgen check manifests/toy.yaml --store demo/shards
    """
    from synthgen.dataloading.manifest_check import check_manifest
    from synthgen.dataloading.summary import format_report

    print_lines(*format_report(check_manifest(manifest, store=store, open_progress=open_progress)))


def exclude(
    layers: Annotated[list[str], typer.Argument(metavar="LAYER...", help="DATASET/SPLIT/LAYER, one or more")],
    out: Annotated[Path, typer.Option(help="The list to write, one that `exclude:` of a manifest names")],
    store: opt.Store = opt.DEFAULT_STORE,
) -> None:
    """List the images of layers, so that a manifest can leave them out: their keys, one a line.

    The same photograph has the same key in every dataset, so a list of COCO's val2017 also speaks for Visual Genome.
    Where another layer of the store has the same files under keys of its own, these are listed as well.

    \b
    Example:
      synthgen exclude coco/val2017/human --out manifests/exclude/coco_val2017.txt
    """
    from synthgen.dataloading.leakage import image_keys
    from synthgen.storage.shard_store import ShardStore

    count = image_keys.write_exclude_list(ShardStore(store), layers, out)
    print_lines(f"{count:,} image keys in {out}")


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=opt.CONTEXT_SETTINGS,
    help="Training recipes that come with synthgen.",
)


@app.command("list")
def list_manifests() -> None:
    """List the recipes. `synthgen manifests copy` writes copies to edit."""
    from synthgen import shipped

    print_lines(*shipped.list_recipes())


@app.command("copy")
def copy_manifests(
    folder: Annotated[Path, typer.Argument(metavar="DIR", readable=False, help="Where to write them")],
) -> None:
    """Write copies of the recipes to DIR, and of the files for Ray, Kubernetes and Slurm to DIR/cluster.

    Existing files are never overwritten: if one differs, nothing is written.

    \b
    Example:
      synthgen manifests copy manifests
    """
    from synthgen import shipped

    written = shipped.copy_shipped_files(folder)
    print_lines(*map(str, written), f"files written to {folder}: {len(written)}")
