"""The function that predicts objects in folders of images: predict_folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen import __version__
from synthgen.api.arguments import (
    PathLike,
    Progress,
    check_choice,
    check_count,
    check_flag,
    check_number,
    progress_opener,
)
from synthgen.errors import ArgumentError, SynthgenError, did_you_mean, explain_missing_extra, shorten_value
from synthgen.formats.coco_ids import CocoIds, read_coco_ids
from synthgen.images.image_listing import MAX_EXAMPLES, ImageListing, list_images
from synthgen.storage.disk import check_path, require_path, without_empty_folders

if TYPE_CHECKING:
    from synthgen.checkpoints.checkpoint import Checkpoint
    from synthgen.evaluation.folder_predictor import PredictionReport
    from synthgen.evaluation.prediction_files import PredictedCategory

#: The tasks whose results can be written, in the order of `--help`.
TASKS = ("instance", "detection", "panoptic", "semantic", "referring", "foreground")

#: Those whose results are maps, which have rules of their own for scores.
_MAP_TASKS = ("panoptic", "semantic")

#: The only text of the task `foreground`.
_FOREGROUND = "foreground"


@without_empty_folders()
def predict_folder(
    images: PathLike | Sequence[PathLike],
    checkpoint: PathLike,
    prompts: Sequence[str] | None = None,
    *,
    out: PathLike = "predictions",
    task: str | None = None,
    annotations: PathLike | None = None,
    stuff: Sequence[str] = (),
    batch_size: int = 8,
    min_score: float | None = None,
    max_detections: int | None = None,
    pictures: bool = False,
    color_by: str = "object",
    text_encoder: PathLike | None = None,
    device: str = "auto",
    precision: str = "fp32",
    short: int | None = None,
    long: int | None = None,
    progress: Progress = False,
) -> PredictionReport:
    """Predict objects in many images, and write COCO files, as `synthgen predict FOLDER` does.

    Without `annotations`, images and categories are numbered from 1 in their order, and `predictions.json` is a COCO
    file with annotations that have scores. With it, `results.json` is a list of COCO results. Panoptic predictions are
    `panoptic_predictions.json` and PNG files, semantic ones `semantic_predictions/` with label maps. All files appear
    in `out` when they are complete.

    Args:
        images: a file, a folder or several; folders are searched with all folders below them.
        checkpoint: a file that training wrote.
        prompts: names or phrases. None = the categories of `annotations`, or else the names that were learned.
        out: the folder of the results.
        task: "instance", "detection", "panoptic", "semantic", "referring" or "foreground". None = "instance", or
            "detection" if the network has never learned masks.
        annotations: a COCO file whose ids of images and categories the results have; images that it does not list are
            skipped.
        stuff: the names that are stuff, if `annotations` has no `isthing`.
        batch_size: images at once.
        min_score: in [0, 1]; detections with a lower score are left out. None = 0. Panoptic and semantic maps have
            rules of their own, and refuse it.
        max_detections: the maximum number of detections per image. None = 100. Likewise not for maps.
        pictures: draw what was found in each image, too.
        color_by: colours of the pictures: "object", or "query" for the kind of query that found an object.
        text_encoder: name or folder of the text encoder, if it is not where it was in training.
        device: "auto", "cpu", "cuda", "cuda:1", ... or "mps".
        precision: "fp32" or "bf16", of activations.
        short: shorter side of the network's input, in pixels. None = that of the evaluation in training.
        long: maximum of the longer side, in pixels. None = that of the evaluation in training.
        progress: whether, or how, progress is shown.

    Returns:
        The files, the numbers of images and objects, and the images that could not be read.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: there are no images, or none can be read; a file is not a checkpoint or a COCO file; or the
            results cannot be written.
        FailedRunError: the disk is full, or the device fails.
    """
    if task is not None:
        check_choice("task", task, TASKS)
    check_choice("color_by", color_by, ("object", "query"))
    check_flag("pictures", pictures)
    batch_size = check_count("batch_size", batch_size, 1, optional=False)
    most = check_count("max_detections", max_detections, 1)
    least = check_number("min_score", min_score, 0, 1)
    for option, value in (("--min-score", min_score), ("--max-detections", max_detections)):
        if task in _MAP_TASKS and value is not None:
            raise ArgumentError(f"the task {task} takes no {option}: its maps have rules of their own; leave it out")
    texts, stuff_names = _check_texts("prompts", () if prompts is None else prompts), _check_texts("stuff", stuff)
    if task == _FOREGROUND and texts:
        raise ArgumentError("the task foreground finds what stands out and takes no prompts; leave them out")
    places, target = _check_places(images), require_path("out", out)
    file, ids_file = require_path("checkpoint", checkpoint), check_path("annotations", annotations)
    with explain_missing_extra("`synthgen predict`"):
        from synthgen.devices import check_device_options
        from synthgen.evaluation import postprocess
        from synthgen.evaluation.folder_predictor import PredictOptions, check_out, predict_images
        from synthgen.evaluation.network_predictor import Predictor
        from synthgen.evaluation.prediction_files import ResultHead

        check_device_options(device, precision, batch_size)
        for place in places:
            if place.resolve() == target.resolve():
                raise SynthgenError(f"{target} holds the images; choose another --out")
        listing = list_images(places, excluded=target)
        if not listing.file_names:
            raise SynthgenError(f"no image files in {', '.join(map(str, places))}; name a folder with photographs")
        ids = None if ids_file is None else read_coco_ids(ids_file, listing.file_names)
        if task == _FOREGROUND and ids is not None and _FOREGROUND not in ids.category_ids:
            raise SynthgenError(
                f"{ids_file} has no category 'foreground', the only one of the task foreground; leave out --annotations"
            )
        predictor = Predictor.from_checkpoint(
            file, text_encoder=text_encoder, device=device, precision=precision, short=short, long=long
        )
        chosen = _choose_task(task, predictor.checkpoint)
        texts = (_FOREGROUND,) if chosen == _FOREGROUND else texts
        head = ResultHead(
            _name_categories(texts or (() if ids else predictor.checkpoint.category_names), ids, stuff_names),
            f"mqformer {file.name}, step {predictor.checkpoint.step:,}",
            __version__,
        )
        options = PredictOptions(
            task=chosen,
            batch_size=batch_size,
            min_score=0.0 if least is None else least,
            max_detections=postprocess.MAX_DETECTIONS if most is None else most,
            pictures=pictures,
            color_by=color_by,
            has_given_ids=ids is not None,
            # As in evaluation. Without a file, a text is a name if it was learned as one.
            is_category_name=True if chosen == _FOREGROUND else None if ids is None else chosen != "referring",
        )
        numbered = _number_images(listing, ids, places)
        check_out(target, options, [*places, file, *([] if ids_file is None else [ids_file])])
        return predict_images(
            predictor,
            listing.root,
            numbered,
            head,
            options,
            target,
            skipped=_describe_skipped(listing, ids, ids_file),
            progress=progress_opener(progress),
        )


def _check_places(images: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files and folders that a user names; each exists."""
    given = [images] if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable) else list(images)
    if not given:
        raise ArgumentError("images is empty; give a file, a folder or several")
    places = [require_path("images", one) for one in given]
    for place in places:
        if not place.exists():
            raise SynthgenError(f"no file or folder {place}; name an image, or a folder of images")
    return places


def _check_texts(argument: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Texts with single spaces, each once."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ArgumentError(f"{argument}={shorten_value(texts)} is not valid; give a list of texts")
    given = tuple(texts)
    if not all(isinstance(text, str) and text.strip() for text in given):
        raise ArgumentError(f"{argument}={shorten_value(given)} has an entry that is not a text or is empty")
    return tuple(dict.fromkeys(" ".join(text.split()) for text in given))


def _choose_task(task: str | None, checkpoint: Checkpoint) -> str:
    if checkpoint.has_learned_masks:
        return task or "instance"
    if task not in (None, "detection"):
        raise SynthgenError(
            f"the task {task} needs masks, and this network has never learned one, only boxes; say --task detection"
        )
    return "detection"


def _name_categories(
    texts: Sequence[str], ids: CocoIds | None, stuff: tuple[str, ...]
) -> tuple[PredictedCategory, ...]:
    """The categories of the results, with ids of the annotation file, or else from 1 on."""
    from synthgen.evaluation.prediction_files import PredictedCategory

    names = list(texts) or list(ids.category_ids if ids else ())
    if not names:
        raise SynthgenError("the checkpoint has learned no names of categories, only phrases; say what to look for")
    for name in stuff:
        if name not in names:
            raise SynthgenError(f"stuff '{name}' is none of the texts to look for{did_you_mean(name, names)}")
    if ids is None:
        return tuple(
            PredictedCategory(number, name, name not in stuff if stuff else None)
            for number, name in enumerate(names, 1)
        )
    for name in names:
        if name not in ids.category_ids:
            close = did_you_mean(name, list(ids.category_ids))
            raise SynthgenError(f"the annotation file has no category '{name}'{close}; leave it out")
    is_thing = {name: name not in stuff for name in names} if stuff else ids.is_thing
    return tuple(PredictedCategory(ids.category_ids[name], name, is_thing.get(name)) for name in names)


def _number_images(listing: ImageListing, ids: CocoIds | None, places: Sequence[Path]) -> list[tuple[int, str]]:
    """(id, file name) of the images to predict."""
    if ids is None:
        return list(enumerate(listing.file_names, 1))
    found = [(ids.image_ids[name], name) for name in listing.file_names if name in ids.image_ids]
    if not found:
        raise SynthgenError(
            f"the annotation file lists none of the {len(listing.file_names):,} images in "
            f"{', '.join(map(str, places))} (such as {listing.file_names[0]}); name the folder that its file names "
            "begin in"
        )
    return found


def _describe_skipped(
    listing: ImageListing, ids: CocoIds | None, file: Path | None
) -> dict[str, tuple[int, tuple[str, ...]]]:
    """What is left out, for the report."""
    skipped: dict[str, tuple[int, tuple[str, ...]]] = {}
    if listing.num_others:
        skipped["other files, without the suffix of an image"] = (listing.num_others, listing.others)
    if ids is not None and file is not None:
        unlisted = [name for name in listing.file_names if name not in ids.image_ids]
        if unlisted:
            skipped[f"images that {file.name} does not list"] = (len(unlisted), tuple(unlisted[:MAX_EXAMPLES]))
        if ids.num_other_images:
            skipped[f"images of {file.name} that are not in the folder"] = (ids.num_other_images, ())
    return skipped
