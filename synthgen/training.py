"""The commands around a network: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen import options as opt
from synthgen.terminal import bar, say

Manifest = Annotated[Path, typer.Option(readable=False, help="A YAML file, see manifests/")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ... or mps")]
Readers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that read images, of each training process (default: the manifest's)"),
]


def train(
    manifest: Manifest,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="Folder of the run (default: runs/ and the manifest's name)")
    ] = None,
    store: opt.ManifestStore = None,
    device: Device = "auto",
    workers: Readers = None,
) -> None:
    """Train what a manifest describes, and evaluate it.

    The manifest is checked first, as `synthgen check` does. Kill it at any moment and type the same command again: it
    goes on from its last checkpoint, and learns what it would have learned undisturbed; bit for bit in one process on
    the same kind of device.

    \b
    Examples:
      synthgen train --manifest manifests/toy.yaml
      torchrun --nproc-per-node 8 -m synthgen train --manifest manifests/mqformer_full.yaml
    """
    from synthgen.train import loop

    done = loop.train(manifest, out=out, store=store, device=device, workers=workers, bar=bar)
    if done.is_first:
        say(*done.lines())
