"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.plugin_flags import RAY_PANEL, describe_datasets, describe_plugins
from synthgen.storage.disk import reject_url

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}

DEFAULT_DATA, DEFAULT_STORE = Path("data"), Path("shards")


DatasetPath = Annotated[
    Path | None,
    typer.Argument(
        readable=False,
        callback=reject_url,
        help="Folder or annotation file of a dataset; its format is recognised, and all its splits are read",
    ),
]
Dataset = Annotated[str | None, typer.Option(help=describe_datasets())]
Name = Annotated[
    str | None, typer.Option(help="What the store calls it (default: the dataset; for coco-json the file's name)")
]
Split = Annotated[
    str | None,
    typer.Option(help="Part of the dataset (default: all at PATH; without PATH the first of a release, e.g. train)"),
]
# readable=False: the packages behind a command check readability, with their own messages.
Annotations = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        callback=reject_url,
        help="The annotation file, or folder of masks, where it is not in the dataset's usual place",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        readable=False, callback=reject_url, help="Folder of the images, where it is not in the dataset's usual place"
    ),
]
MatchNames = Annotated[
    bool,
    typer.Option("--match-names", help="Also take image files that are there under another form of their name"),
]
CrowdsAsObjects = Annotated[
    bool,
    typer.Option("--crowds-as-objects", help="Take annotations with iscrowd for single objects, as CVAT's masks are"),
]
Data = Annotated[
    Path,
    typer.Option(
        readable=False, callback=reject_url, envvar="SYNTHGEN_DATA", help="Folder of the datasets, one folder each"
    ),
]
Store = Annotated[
    Path,
    typer.Option(
        readable=False, callback=reject_url, envvar="SYNTHGEN_STORE", help="Folder of the shards that synthgen makes"
    ),
]
ManifestStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        readable=False,
        callback=reject_url,
        help="Folder of the shards (default: the manifest's, SYNTHGEN_STORE, ./shards)",
    ),
]
Part = Annotated[
    str, typer.Option(metavar="I/N", help="Only part I (from 0) of N: run N commands side by side, e.g. one a GPU")
]
LayerOrManifest = Annotated[
    str,
    typer.Argument(
        metavar="LAYER|MANIFEST",
        help="DATASET/SPLIT/LAYER, as `synthgen status` lists; or a manifest, which ends with .yaml",
    ),
]

Segmenter = Annotated[
    str,
    typer.Option(help=describe_plugins("generate.segmenters", weights="with weights, best on a GPU")),
]
ExtraOptions = Annotated[
    list[str] | None, typer.Option("--option", "-O", metavar="KEY=VALUE", help="Any other option of the model")
]

Captioner = Annotated[
    str,
    typer.Option(help=describe_plugins("generate.captioners", weights="with --checkpoint, best on a GPU")),
]

Limit = Annotated[int | None, typer.Option(min=1, help="Stop after this many shards: a first look")]
MaxErrorShare = Annotated[
    float, typer.Option(min=0, max=1, help="A shard with a larger share of failed images is not committed")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="A model hangs if it finishes no batch for so long: its images are named, and their shard fails; with "
        "--engine ray, only the images that hang fail (default: no limit)",
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do failed images of finished shards again")]
Update = Annotated[
    bool,
    typer.Option("--update", help="Bring layers up to date whose annotation files, or input, have changed since"),
]


class RemovedImages(StrEnum):
    """What an update does with images that the annotation files do not list any more."""

    DROP = "drop"
    KEEP = "keep"


Removed = Annotated[RemovedImages, typer.Option(help="What --update does with images that the files list no more")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing")]


class EngineName(StrEnum):
    """Where a command does its work."""

    LOCAL = "local"
    RAY = "ray"


Engine = Annotated[
    EngineName,
    typer.Option(
        is_eager=True,  # so that the help knows it
        help="local: in this process; ray: on the Ray cluster of RAY_ADDRESS, of `ray job submit` or of this machine, "
        "else on one that is started here (`--engine ray --help` lists its options)",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=RAY_PANEL,
        help="Maximum number of workers (default: as many as the cluster has GPUs, else CPUs)",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=RAY_PANEL,
        help="GPUs of each worker: 0.5 puts two workers on a GPU (default: 1, if there are any)",
    ),
]
