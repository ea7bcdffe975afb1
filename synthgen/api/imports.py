"""The function that imports masks which were made elsewhere: import_masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synthgen.api.arguments import (
    PathLike,
    Progress,
    check_choice,
    check_flag,
    check_number,
    progress_opener,
    resolve_store,
)
from synthgen.errors import ArgumentError, shorten_value
from synthgen.generate.imports.matching import MATCH_MODES, MatchRules
from synthgen.generate.imports.request import DEFAULT_LAYER, ImportRequest, check_model, find_place
from synthgen.progress import OpenProgress, PhaseProgress
from synthgen.storage.disk import require_path

if TYPE_CHECKING:
    from synthgen.generate.imports.request import ImportReport


def import_masks(
    source: PathLike,
    dataset: str | None = None,
    *,
    into: str | None = None,
    layer: str = DEFAULT_LAYER,
    model: str | None = None,
    store: PathLike | None = None,
    match: str = "auto",
    min_box_iou: float = 0.5,
    any_category: bool = False,
    progress: Progress = False,
) -> ImportReport:
    """Bring in masks that were made elsewhere, as `synthgen import-masks` does.

    With `dataset`, they become a new layer on the boxes of an ingested dataset. With `into`, they replace single masks
    of an existing layer, and count as reviewed; layers that were made from it become stale. Interrupt the call at any
    moment: the same call continues.

    Args:
        source: a COCO instances file, a list of COCO results, or a folder of PNG masks: an id map for each image, or a
            folder of binary masks for each image.
        dataset: the dataset in the store: "dataset", "dataset/split" or "dataset/split/layer", whose boxes get the
            masks.
        into: "dataset/split/layer", the layer whose masks are replaced; instead of `dataset`.
        layer: the layer to write; not used with `into`.
        model: who drew the masks of which the file does not say it.
        store: root of the shards. None = the environment variable SYNTHGEN_STORE, or `shards`.
        match: how a mask finds its box: "id" (by the annotation's id), "box" (by image, category and box), or "auto"
            (by the id where mask and box agree, else by the box).
        min_box_iou: in [0, 1]; least IoU of the mask's tight box with the box.
        any_category: do not compare categories.
        progress: whether, or how, progress is shown.

    Returns:
        How many masks the layer has, and why others of the file became none.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: the file or the layer is missing or wrong, or no mask has an image of the dataset; nothing was
            written.
        FailedRunError: the disk is full.
    """
    for argument, text in (("dataset", dataset), ("into", into), ("model", model)):
        if text is not None and (not isinstance(text, str) or not text):
            raise ArgumentError(f"{argument}={shorten_value(text)} is not a name; give one, or None")
    if not isinstance(layer, str):
        raise ArgumentError(f"layer={shorten_value(layer)} is not a name; give one")
    check_choice("match", match, MATCH_MODES)
    check_flag("any_category", any_category)
    iou = check_number("min_box_iou", min_box_iou, 0, 1, optional=False)
    file, root = require_path("source", source), resolve_store(store)
    request = make_request(file, dataset, into, layer, model, root, MatchRules(match, iou, any_category))
    return run_import(request, progress_opener(progress))


def make_request(
    source: Path, dataset: str | None, into: str | None, layer: str, model: str | None, store: Path, rules: MatchRules
) -> ImportRequest:
    """The request of a user.

    Args:
        source: a COCO file or a folder of PNG masks.
        dataset: as in `import_masks`.
        into: as in `import_masks`.
        layer: as in `import_masks`.
        model: as in `import_masks`.
        store: root of the shards.
        rules: how masks find their boxes.

    Raises:
        SynthgenError: not exactly one of `dataset` and `into` is given, `layer` is given with `into`, or there is no
            such layer.
    """
    if (dataset is None) == (into is None):
        raise ArgumentError(
            "name one of the two: the dataset whose boxes get the masks (dataset), or the layer whose masks are "
            "replaced (into)"
        )
    if into is not None and layer != DEFAULT_LAYER:
        raise ArgumentError("layer names a new layer, and into replaces masks of an existing one; give one of the two")
    if into is not None and into.strip("/").count("/") != 2:
        raise ArgumentError(f"'{into}' is not DATASET/SPLIT/LAYER; name the layer whose masks are replaced")
    return ImportRequest(
        source=source,
        store=store,
        place=find_place(store, into or dataset or ""),
        layer=layer,
        model=check_model(model),
        rules=rules,
        replaces=into is not None,
    )


def run_import(request: ImportRequest, open_progress: OpenProgress) -> ImportReport:
    """Run an import.

    Args:
        request: what to import.
        open_progress: opens a progress bar for each phase.
    """
    from synthgen.generate.imports.new_layer import import_layer
    from synthgen.generate.imports.replace_masks import replace_masks

    with PhaseProgress(open_progress, {"reading": "bytes", "writing": "images"}) as bars:
        return (replace_masks if request.replaces else import_layer)(request, bars.report)
