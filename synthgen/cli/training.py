"""The commands that train and measure networks: train, ablate, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.plugin_flags import RAY_PANEL
from synthgen.cli.terminal import open_progress, print_lines

Manifest = Annotated[Path, typer.Option(readable=False, help="A YAML file, see manifests/")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ... or mps")]
LoaderWorkers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that read images, of each training process (default: the manifest's)"),
]
Checkpoint = Annotated[Path, typer.Option(readable=False, help="A file that training wrote, such as runs/NAME/best.pt")]
TextEncoder = Annotated[
    str | None,
    typer.Option(metavar="NAME|FOLDER", help="Where the text encoder lies, if not where it lay in training"),
]
Precision = Annotated[str, typer.Option(metavar="fp32|bf16", help="bf16 is several times as fast on a GPU")]
ShortSide = Annotated[
    int | None,
    typer.Option(
        min=32,
        max=8192,
        help="The network sees images with their shorter side at so many pixels (default: the manifest's)",
    ),
]
LongSide = Annotated[int | None, typer.Option(min=32, max=8192, help="... and their longer side at so many at most")]


def train(
    manifest: Manifest,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="Folder of the run (default: runs/ and the manifest's name)")
    ] = None,
    store: opt.ManifestStore = None,
    device: Device = "auto",
    loader_workers: LoaderWorkers = None,
    engine: opt.Engine = opt.EngineName.LOCAL,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=RAY_PANEL,
            help="Number of training processes (default: as many as find a GPU, else a CPU)",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0, rich_help_panel=RAY_PANEL, help="GPUs of each process: 0 or 1 (default: 1, if there are any)"
        ),
    ] = None,
) -> None:
    """Train what a manifest describes, and evaluate it.

    The manifest is checked first, as `synthgen check` does. Kill it at any moment and type the same command again: it
    goes on from its last checkpoint, and learns what it would have learned undisturbed; bit for bit in one process on
    a CPU.

    \b
    Examples:
      synthgen train --manifest demo/learn.yaml
      torchrun --nproc-per-node 8 -m synthgen train --manifest manifests/mqformer_full.yaml
    """
    from synthgen.api import training

    done = training.train(
        manifest,
        out=out,
        store=store,
        device=device,
        loader_workers=loader_workers,
        engine=engine,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        progress=open_progress,
    )
    if done.is_rank0:
        print_lines(*done.format_lines())


def ablate(
    manifest: Manifest,
    seeds: Annotated[int, typer.Option(min=1, help="So many trainings of each arm")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder of all runs (default: ablations/ and the manifest's name)"),
    ] = None,
    store: opt.ManifestStore = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="Leave out this source instead of all synthetic ones; repeatable"),
    ] = None,
    device: Device = "auto",
    loader_workers: LoaderWorkers = None,
) -> None:
    """Does synthetic data pay, here, for me? Train with and without it, from a few seeds, and compare.

    Synthetic is a source that learns from masks or captions by machines. Both arms learn as many steps of as many
    images. Kill it and type the same command again: trainings that have ended are not done again. Each is an ordinary
    run below --out, beside its manifest, and may as well be trained elsewhere.

    \b
    Example:
      synthgen ablate --manifest manifests/mqformer_full.yaml --seeds 5
    """
    from synthgen.training.ablation import ablate as compare

    done = compare(
        manifest, num_seeds=seeds, out=out, store=store, without=without or (), device=device,
        num_workers=loader_workers,
        progress=open_progress,
        echo=print_lines,
    )  # fmt: skip
    if done.is_rank0:
        print_lines("", *done.format_lines())


def evaluate(
    checkpoint: Checkpoint,
    manifest: Manifest,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="The JSON to write (default: beside the checkpoint)")
    ] = None,
    store: opt.ManifestStore = None,
    text_encoder: TextEncoder = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once")] = 1,
    loader_workers: Annotated[int, typer.Option(min=0, help="Processes that read images")] = 2,
    short: ShortSide = None,
    long: LongSide = None,
) -> None:
    """Measure a checkpoint on the layers of a manifest's `eval:`.

    Mask and box AP, PQ, mIoU, cIoU, maxF, and of a captioner CIDEr and token F1, each as its task has it and as its
    reference implementation reckons it, in percent; and by which kind of query things and stuff were found. Under
    torchrun each process measures a part. The exit code is 1 if a layer has no image that could be measured.

    \b
    Example:
      synthgen evaluate --checkpoint runs/mqformer_full/best.pt --manifest manifests/seginw.yaml
    """
    from synthgen.api import training
    from synthgen.evaluation import results

    done = training.evaluate(
        checkpoint, manifest, out=out, store=store, text_encoder=text_encoder, device=device, precision=precision,
        batch_size=batch_size, loader_workers=loader_workers, short=short, long=long, progress=open_progress,
    )  # fmt: skip
    if done.path is not None:
        print_lines(*results.format_results(done.layers), "", f"in full: {done.path}")
    raise typer.Exit(0 if all(one.images for one in done.layers) else 1)
