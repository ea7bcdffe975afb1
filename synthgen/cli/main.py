"""Command line: the app, its commands, and how it ends. Commands import the packages behind them when they run."""

from __future__ import annotations

import io
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen import __version__
from synthgen.cli import options as opt
from synthgen.cli.integrity import migrate, verify
from synthgen.cli.jobs import captions, masks
from synthgen.cli.options import DEFAULT_DATA, DEFAULT_STORE
from synthgen.cli.plugin_flags import GroupedCommand
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.cli.training import ablate, evaluate, predict, train
from synthgen.errors import (
    EXTRAS,
    MultipleErrors,
    SynthgenError,
    describe_os_error,
    escape_control_chars,
    install_command,
    missing_extra_error,
)

_CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_CONTEXT_SETTINGS,
    help="Turn box-annotated image datasets into segmentation datasets with captions. Begin with `synthgen demo`.",
)


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
    data: opt.Data = DEFAULT_DATA,
    store: opt.Store = DEFAULT_STORE,
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
    from synthgen.generate import dataset_spec

    given = dataset_spec.resolve_dataset(dataset, name, split, data, annotations, images)
    report = dataset_spec.ingest_spec(given, store, layer, shard_size=shard_size, open_progress=open_progress)
    print_lines(*messages.format_ingest_report(f"{given.name}/{given.split}/{layer}", report))


@app.command()
def doctor(
    dataset: opt.Dataset,
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    data: opt.Data = DEFAULT_DATA,
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
    from synthgen.generate import dataset_spec
    from synthgen.ingest.validation import diagnosis

    given = dataset_spec.resolve_dataset(dataset, name, split, data, annotations, images)
    found = dataset_spec.validate_spec(
        given, all_splits=split is None, check_images=check_images, open_progress=open_progress
    )
    print_lines(
        *(
            json.dumps(diagnosis.report_to_dict(found), indent=1).splitlines()
            if as_json
            else diagnosis.format_validation_report(found)
        )
    )
    raise typer.Exit(0 if found.is_ready else 1)


for job in (masks, captions, train):
    app.command(cls=GroupedCommand)(job)
for job in (evaluate, predict, ablate, verify, migrate):
    app.command()(job)


@app.command()
def status(
    store: opt.Store = DEFAULT_STORE,
    failures: Annotated[bool, typer.Option("--failures", help="List every failed object, image and shard")] = False,
) -> None:
    """What lies in the store: layers, shards done, images, masks, failures, and the recipe of each.

    Also what is damaged, stale or foreign, from the footers alone; `verify` reads all pages of a layer. Exit code 1 if
    a shard is damaged, or another one has its name.
    """
    from synthgen.review import status as inventory

    layers = inventory.summarize_layers(store)
    print_lines(*inventory.format_status(store, failures=failures, layers=layers))
    raise typer.Exit(1 if any(layer.damaged for layer in layers) else 0)


@app.command()
def show(
    context: typer.Context,
    what: opt.LayerOrManifest,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many images")] = 16,
    images: opt.Images = None,
    store: opt.Store = DEFAULT_STORE,
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
        from synthgen.visualize import training_samples

        if images or image:
            raise SynthgenError("--images and --image are for layers; a manifest says images: in each of its sources")
        # A manifest may name its store, which the command line overrules, and the environment does not.
        said = context.get_parameter_source("store")
        own = store if said is not None and said.name == "COMMANDLINE" else None
        with open_progress("drawing", n, "images") as drawn:
            found = training_samples.draw_training_samples(
                Path(what), store=own, out=out, n=n, seed=seed, on_images=drawn.advance
            )
        print_lines(*map(str, found.picture_paths), f"all on one sheet: {found.sheet_path}", "", *found.stats_lines)
        return
    from synthgen.review import show as review

    with open_progress("drawing", n, "images") as drawn:
        sheet, paths = review.draw_layer(
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


@app.command()
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
    from synthgen.dataloading import summary
    from synthgen.dataloading.manifest_check import check_manifest as examine

    print_lines(*summary.format_report(examine(manifest, store=store, open_progress=open_progress)))


@app.command()
def exclude(
    layers: Annotated[list[str], typer.Argument(metavar="LAYER...", help="DATASET/SPLIT/LAYER, one or more")],
    out: Annotated[Path, typer.Option(help="The list to write, one that `exclude:` of a manifest names")],
    store: opt.Store = DEFAULT_STORE,
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


manifests = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_CONTEXT_SETTINGS,
    help="Training recipes that come with synthgen.",
)
app.add_typer(manifests, name="manifests")


@manifests.command("list")
def list_manifests() -> None:
    """List the recipes. `synthgen manifests copy` writes copies to edit."""
    from synthgen import shipped

    print_lines(*shipped.list_recipes())


@manifests.command("copy")
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


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to put photographs, shards and pictures")] = Path("demo"),
) -> None:
    """The whole way on a few real photographs: masks, captions, and a network that learns them. Downloads nothing."""
    from synthgen.cli import messages
    from synthgen.demo import photographs

    laid = photographs.write_demo_files(folder)
    store, where = folder / "shards", ["--annotations", str(laid.annotations), "--images", str(laid.images)]
    run, photograph = folder / "run", laid.images / "coffee.jpg"
    learned = ["--checkpoint", str(run / "step-00000150.pt")]
    own = ["--dataset", "coco-json", "--name", "demo", *where]
    annotate = (
        ["ingest", *own, "--store", str(store)],
        ["doctor", *own],
        ["masks", *own, "--store", str(store)],
        ["captions", *own, "--store", str(store)],
        ["status", "--store", str(store)],
        ["show", "demo/train/captions", "--store", str(store), "--out", str(folder / "pictures")],
    )
    learn = (
        ["check", str(laid.preview_manifest)],
        ["show", str(laid.preview_manifest), "--n", "12", "--out", str(folder / "training")],
        ["train", "--manifest", str(laid.train_manifest), "--out", str(run)],
        ["evaluate", *learned, "--manifest", str(laid.eval_manifest)],
        ["predict", str(photograph), "cup", "saucer", "spoon", *learned, "--out", str(folder / "predictions")],
    )
    missing = [package for package, extra in EXTRAS.items() if extra == "train" and find_spec(package) is None]
    for command in annotate if missing else (*annotate, *learn):
        print_lines("", f"$ synthgen {' '.join(command)}")
        if (code := app(command, standalone_mode=False)) and (code != 1 or command[0] != "doctor"):
            raise typer.Exit(code)
    if missing:
        print_lines("", f"The second half of the demo trains a network. It needs {', '.join(missing)}; install them:")
        print_lines(f"  {install_command('train')}")
    print_lines("", *messages.format_next_steps(folder, trained=not missing))


def _error_message(why: Exception, command: str) -> str | None:
    """What to print instead of a traceback; None where the traceback is wanted."""
    if isinstance(why, ModuleNotFoundError):
        package = (why.name or "").partition(".")[0]
        return str(missing_extra_error(package, f"`synthgen {command}`")) if package in EXTRAS else None
    return describe_os_error(why) if isinstance(why, OSError) else str(why)


def main(*, command: str | None = None, engine: str = "local") -> None:
    """Run the command line.

    Args:
        command: run only this command, as the entry points in `pipelines/` do; None = the first argument names it.
        engine: the default of its option `--engine`.
    """
    # Threads of one step that wait for each other busily take the cores that others need to come on: where anything
    # else runs, a reader process will do, a step takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # File and category names come from anywhere; a terminal of another encoding must not end a job.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        if command is None:
            app()
        else:  # alone, so that its help and its sentences speak of what was typed
            own = typer.main.get_group(app).commands[command]
            own.main(prog_name=f"python -m pipelines.{command}", default_map={"engine": engine}, **_CONTEXT_SETTINGS)
    except (SynthgenError, OSError, ModuleNotFoundError) as why:
        sentence = _error_message(why, command or " ".join(sys.argv[1:2]))
        if sentence is None:
            raise
        lines = why.lines if isinstance(why, MultipleErrors) else [escape_control_chars(sentence)]
        typer.echo("synthgen: " + "\n".join(lines), err=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:  # Ctrl-C; typer makes an exit of it where a command is at work
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        typer.echo("stopped; what is committed stays, and the same command continues", err=True)
        sys.exit(130)
