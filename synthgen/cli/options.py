"""What the options mean that several commands share, and those of the models, in the words of `--help`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA, DEFAULT_STORE = Path("data"), Path("shards")

Dataset = Annotated[
    str,
    typer.Option(
        help="coco, coco-panoptic, lvis, refcoco, refcoco-plus, refcocog, objects365, dataseg-objects365, "
        "visual-genome, ade20k, ade20k-full, foreground, semantic-folder; or, for your own, coco-json with "
        "--annotations FILE, and foreground or semantic-folder with --annotations FOLDER"
    ),
]
Name = Annotated[
    str | None, typer.Option(help="What the store calls it (default: the dataset; for coco-json the file's name)")
]
Split = Annotated[str | None, typer.Option(help="Part of the dataset (default: its first, e.g. train)")]
# readable=False: whether they may be read is for the rooms to say, in their own words.
Annotations = Annotated[
    Path | None,
    typer.Option(
        readable=False, help="The annotation file, or folder of masks, where it is not in the dataset's usual place"
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(readable=False, help="Folder of the images, where it is not in the dataset's usual place"),
]
Data = Annotated[
    Path, typer.Option(readable=False, envvar="SYNTHGEN_DATA", help="Folder of the datasets, one folder each")
]
Store = Annotated[
    Path, typer.Option(readable=False, envvar="SYNTHGEN_STORE", help="Folder of the shards that synthgen makes")
]
ManifestStore = Annotated[
    Path | None,
    typer.Option(
        "--store", readable=False, help="Folder of the shards (default: the manifest's, SYNTHGEN_STORE, ./shards)"
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
    typer.Option(
        help="sam, hq_sam (both with weights, best on a GPU); grabcut (no weights), box_fill (the floor); or "
        "package.module of your own"
    ),
]
ExtraOptions = Annotated[
    list[str] | None, typer.Option("--option", "-O", metavar="KEY=VALUE", help="Any other option of the model")
]

Captioner = Annotated[
    str,
    typer.Option(
        help="ofa, florence2 (both with --checkpoint, best on a GPU); attributes (no weights: category, colour, "
        "size, place); or package.module of your own"
    ),
]
TopK = Annotated[int, typer.Option(min=1, help="Captions of a box, beside those by people")]
MinScore = Annotated[
    float | None,
    typer.Option(
        help="Captions below it get the reason low_score, those without a score no_score (mean token log-probability, "
        "at most 0)"
    ),
]
Forbidden = Annotated[
    str,
    typer.Option(metavar="WORDS|FILE", help="Captions with one of a,b,c or of a file get the reason forbidden_word"),
]

Limit = Annotated[int | None, typer.Option(min=1, help="Stop after this many shards: a first look")]
MaxErrorShare = Annotated[
    float, typer.Option(min=0, max=1, help="A shard with a larger share of failed images is not committed")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do failed images of finished shards again")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing")]


class EngineName(StrEnum):
    """Where a command does its work."""

    LOCAL = "local"
    RAY = "ray"


Engine = Annotated[
    EngineName,
    typer.Option(
        help="local: in this process; ray: on the Ray cluster of RAY_ADDRESS, of `ray job submit` or of this machine, "
        "else on one that is started here"
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="With --engine ray: at most so many (default: as many as the cluster has GPUs, else CPUs)"
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(min=0, help="With --engine ray: 0.5 puts two workers on a GPU (default: 1, if there are any)"),
]

# The options of a plugin that have a flag of their own. Each is the plugin's to take or to refuse; None = not given.
Variant = Annotated[
    str | None,
    typer.Option(
        metavar="vit_b|vit_l|vit_h",
        help="Size of the model (default: the checkpoint's, else vit_h)",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Weights (default: the official ones, downloaded once to $SYNTHGEN_WEIGHTS or ./weights)",
    ),
]
CaptionerCheckpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the weights, which ofa and florence2 need (the README has a line that fetches each); or, of "
        "ofa, a file as `synthgen train` writes it"
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute (default: auto)"),
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="fp32|bf16", help="bf16 is several times as fast on a GPU (default: fp32)"),
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile", help="torch.compile: a slow start, some percent faster"),
]
BatchSize = Annotated[
    str | None,
    typer.Option(metavar="auto|N", help="Images at once; auto halves it when the memory does not do"),
]
Multimask = Annotated[
    bool | None,
    typer.Option(
        "--multimask",
        help="Choose the best of three candidates by evidence, not the single mask",
    ),
]
Zoom = Annotated[
    bool | None,
    typer.Option("--zoom", help="Prompt small boxes again on an enlarged part of the image"),
]
NumBeams = Annotated[int | None, typer.Option(min=1, help="Beams of the search for captions")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Tokens of a caption at most")]
