"""The command that predicts objects in photographs: predict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from synthgen.cli.terminal import open_progress, print_lines
from synthgen.cli.training import Checkpoint, Device, LongSide, Precision, ShortSide, TextEncoder
from synthgen.errors import SynthgenError, shorten_value


class PredictTask(StrEnum):
    """What `predict` writes of a folder."""

    INSTANCE = "instance"
    DETECTION = "detection"
    PANOPTIC = "panoptic"
    SEMANTIC = "semantic"
    REFERRING = "referring"
    FOREGROUND = "foreground"


class ColorBy(StrEnum):
    """What the colours of a picture mean."""

    OBJECT = "object"
    QUERY = "query"


#: Minimum score for one photograph; results of a folder keep all, as average precision needs them.
_PICTURE_SCORE = 0.25

#: What begins so is a path.
_PATH_STARTS = ("/", "./", "../", "~/")

_FOLDER_PANEL = "For folders and several images"


def predict(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE|FOLDER", readable=False, help="A photograph, or a folder of them")
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|FOLDER/|PROMPT...",
            help="Further images and folders; and what to find (default: all names that it learned)",
        ),
    ] = None,
    *,
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(readable=False, help="Folder of the results")] = Path("predictions"),
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            "--threshold",
            min=0,
            max=1,
            help="Lower scores are left out (default: 0.25 for one photograph, else 0); not for panoptic and semantic",
        ),
    ] = None,
    color_by: Annotated[
        ColorBy, typer.Option(help="Colours of pictures: each object its own, or by the kind of query that found it")
    ] = ColorBy.OBJECT,
    task: Annotated[
        PredictTask | None,
        typer.Option(
            rich_help_panel=_FOLDER_PANEL,
            help="What is written (default: instance; detection, if the network has never learned masks)",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            rich_help_panel=_FOLDER_PANEL,
            help="A COCO file: write a list of results with its ids of images and categories",
        ),
    ] = None,
    stuff: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", rich_help_panel=_FOLDER_PANEL, help="A name that is stuff, such as sky; repeatable"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=_FOLDER_PANEL, help="Images of one size at once (default: 8)"),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_FOLDER_PANEL,
            help="Of an image (default: 100, as COCO); not for panoptic and semantic",
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", rich_help_panel=_FOLDER_PANEL, help="Also draw each image")
    ] = False,
    text_encoder: TextEncoder = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    short: ShortSide = None,
    long: LongSide = None,
) -> None:
    """Find what prompts name in photographs, with masks, boxes and scores.

    One photograph gives a picture and a JSON. A folder, several images, or an option for folders gives COCO files
    (predictions.json, or with --annotations results.json), panoptic PNGs or label maps, and a report. An argument that
    is an image file, or a folder with a slash, is not a prompt; begin a prompt of such a name with a blank. The exit
    code is 1 if an image of these cannot be read; with one photograph it is 2.

    \b
    Examples:
      synthgen predict photo.jpg "left horse" --checkpoint runs/mqformer_full/best.pt
      synthgen predict photos/ --checkpoint runs/mqformer_full/best.pt --batch-size 16
      synthgen predict val2017/ --checkpoint best.pt --annotations instances_val2017.json
      synthgen predict photo.jpg --checkpoint best.pt --task panoptic --pictures --color-by query
    """
    places, prompts = sort_arguments(image, more or ())
    of_folders: dict[str, Any] = {
        "task": task and task.value,
        "annotations": annotations,
        "stuff": stuff or None,
        "batch_size": batch_size,
        "max_detections": max_detections,
        "pictures": pictures or None,
    }
    chosen = {name: value for name, value in of_folders.items() if value is not None}
    if len(places) == 1 and not chosen and not os.path.isdir(image):  # noqa: PTH112 - see `sort_arguments`
        from synthgen.evaluation import predictor as network

        threshold = _PICTURE_SCORE if min_score is None else min_score
        done = network.predict_file(
            image, prompts, checkpoint, out=out, threshold=threshold, text_encoder=text_encoder, device=device,
            precision=precision, short=short, long=long, color_by=color_by.value,
        )  # fmt: skip
        print_lines(*(done.format_shares() if color_by is ColorBy.QUERY else ()), *done.format_lines(threshold))
        return
    from synthgen.api.prediction import predict_folder

    report = predict_folder(
        places, checkpoint, prompts, out=out, min_score=min_score, color_by=color_by.value,
        text_encoder=text_encoder, device=device, precision=precision, short=short, long=long, progress=open_progress,
        **chosen,
    )  # fmt: skip
    print_lines(*report.format_lines())
    raise typer.Exit(1 if report.num_failed else 0)


def sort_arguments(first: Path, more: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The images and folders, and the prompts.

    Args:
        first: an image or a folder.
        more: an image file, a folder with a slash in its name, or a prompt. A prompt may begin with a blank.

    Raises:
        SynthgenError: one may be both, or is the name of an image or a folder that does not exist.
    """
    from synthgen.images.image_listing import is_image_name

    places: list[Path] = [first]
    prompts: list[str] = []
    for text in more:
        if text[:1].isspace():
            prompts.append(text)
            continue
        # Unlike pathlib, these do not raise for names that no path has.
        is_file, is_folder = os.path.isfile(text), os.path.isdir(text)  # noqa: PTH112, PTH113
        prompt_hint = "begin it with a blank, if it is a prompt"
        if is_file and not is_image_name(text):
            raise SynthgenError(f"{shorten_value(text)} is a file without the suffix of an image; {prompt_hint}")
        if is_folder and "/" not in text:
            raise SynthgenError(f"{shorten_value(text)} is a folder; write {text}/ to predict in it, or {prompt_hint}")
        if is_file or is_folder:
            places.append(Path(text))
        elif is_image_name(text):
            raise SynthgenError(f"no image file {shorten_value(text)}; check its name, or {prompt_hint}")
        elif text.endswith("/") or text.startswith(_PATH_STARTS):
            raise SynthgenError(f"no folder or image {shorten_value(text)}; check its name, or {prompt_hint}")
        else:
            prompts.append(text)
    return places, prompts
