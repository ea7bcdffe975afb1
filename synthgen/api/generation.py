"""Functions that generate annotations for a dataset: generate_masks, generate_captions."""

from __future__ import annotations

import difflib
import inspect
import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen import plugins
from synthgen.api.arguments import (
    PathLike,
    Progress,
    caption_options,
    check_choice,
    check_count,
    check_flag,
    check_number,
    dataset_request,
    progress_opener,
    resolve_store,
)
from synthgen.api.results import GenerateResult, summarize_run
from synthgen.errors import ArgumentError, FailedRunError, SynthgenError, explain_missing_extra, shorten_value
from synthgen.generate import stage_run
from synthgen.generate.stage_run import LayerRun, StageReporter, StageRequest
from synthgen.plugin_options import OptionValue
from synthgen.progress import OpenProgress, ProgressBar
from synthgen.storage.update_record import REMOVED_CHOICES

if TYPE_CHECKING:
    from synthgen.generate.run import Engine

_ENGINES = ("local", "ray")

#: The default of `reads`, by the stage.
_DEFAULT_READS = {"masks": "annotations", "captions": None}


def generate_masks(
    path: PathLike | None = None,
    *,
    images: PathLike | None = None,
    segmenter: str = "auto",
    dataset: str | None = None,
    name: str | None = None,
    split: str | None = None,
    annotations: PathLike | None = None,
    data: PathLike | None = None,
    store: PathLike | None = None,
    reads: str = "annotations",
    layer: str = "masks",
    match_names: bool = False,
    crowds_as_objects: bool = False,
    part: tuple[int, int] = (0, 1),
    limit: int | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    max_error_share: float = 0.05,
    timeout: float | None = None,
    retry_failed: bool = False,
    update: bool = False,
    removed: str = "drop",
    raise_failed: bool = False,
    progress: Progress = False,
    **options: OptionValue,
) -> GenerateResult:
    """Draw a mask for every box, as `synthgen masks` does: the same job, and the same bytes.

    The boxes are ingested first if they are not in the store. Interrupt the call at any moment, by Ctrl-C too: what is
    committed stays, and the same call continues.

    Args:
        path: the dataset's folder or annotation file, or a layer of the store, "dataset/split/layer".
        images: see `doctor`.
        segmenter: a segmenter of synthgen, a module of your own ("package.module"), or "auto".
        dataset: see `doctor`.
        name: see `doctor`.
        split: see `doctor`.
        annotations: see `doctor`.
        data: see `doctor`.
        store: root of the shards. None = the environment variable SYNTHGEN_STORE, or `shards`.
        reads: the layer whose boxes are the prompts.
        layer: the layer to write.
        match_names: see `doctor`.
        crowds_as_objects: see `doctor`.
        part: (i, n): only shards whose index is i modulo n, to run n calls side by side.
        limit: stop after so many shards.
        engine: "local", or "ray" for a Ray cluster.
        workers: maximum number of workers; for the engine "ray".
        gpus_per_worker: GPUs of each worker; for the engine "ray".
        max_error_share: in [0, 1]; a shard with a larger share of failed images is not committed.
        timeout: seconds after which a batch counts as hung. None = no limit.
        retry_failed: also do failed images of committed shards again.
        update: bring the layer, and the boxes that it is made from, up to date with changed annotation files. Only new
            and changed images are processed.
        removed: what an update does with images that the files list no more: "drop" or "keep" them.
        raise_failed: raise if a shard failed. By default `failed_shards` of the result reports it.
        progress: whether, or how, progress is shown.
        **options: options of the segmenter, such as `variant="vit_h"` or `device="cuda"`.

    Returns:
        The layers, with their counts and the reasons why boxes have no mask.

    Raises:
        ArgumentError: an argument is not valid.
        SynthgenError: the dataset, an image folder, weights or an option are missing or wrong; nothing was started.
        FailedRunError: the disk is full, the device is lost, or too many images of every shard failed; with
            `raise_failed`, also if one shard failed.
    """
    return _generate(
        StageRequest(
            stage="masks",
            dataset=dataset_request(
                path, dataset, name, split, annotations, images, data,
                match_names=match_names, crowds_as_objects=crowds_as_objects,
            ),
            plugin=segmenter, options=options,
            store=resolve_store(store), reads=reads, layer=layer, part=part, limit=limit,
            engine=engine, workers=workers, gpus_per_worker=gpus_per_worker, max_error_share=max_error_share,
            timeout=timeout, retry_failed=retry_failed, update=update, removed=removed,
        ),
        progress, raise_failed=raise_failed,
    )  # fmt: skip


def generate_captions(
    path: PathLike | None = None,
    *,
    images: PathLike | None = None,
    captioner: str = "auto",
    top_k: int | None = None,
    min_score: float | None = None,
    forbidden: PathLike = "",
    dataset: str | None = None,
    name: str | None = None,
    split: str | None = None,
    annotations: PathLike | None = None,
    data: PathLike | None = None,
    store: PathLike | None = None,
    reads: str | None = None,
    layer: str = "captions",
    match_names: bool = False,
    crowds_as_objects: bool = False,
    part: tuple[int, int] = (0, 1),
    limit: int | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    max_error_share: float = 0.05,
    timeout: float | None = None,
    retry_failed: bool = False,
    update: bool = False,
    removed: str = "drop",
    raise_failed: bool = False,
    progress: Progress = False,
    **options: OptionValue,
) -> GenerateResult:
    """Write captions for every box, as `synthgen captions` does: the same job, and the same bytes.

    Captions by people stay, and stand first. Interrupted calls continue as those of `generate_masks` do.

    Args:
        path: the dataset's folder or annotation file, or a layer of the store, "dataset/split/layer".
        images: see `doctor`.
        captioner: a captioner of synthgen, a module of your own ("package.module"), or "auto".
        top_k: captions per box, beside those by people. None = 5.
        min_score: captions below it get the reason `low_score`; a mean token log-probability, at most 0.
        forbidden: words with commas between them, or a file of words; captions with one get the reason
            `forbidden_word`.
        dataset: see `doctor`.
        name: see `doctor`.
        split: see `doctor`.
        annotations: see `doctor`.
        data: see `doctor`.
        store: see `generate_masks`.
        reads: the layer whose boxes are captioned. None = `masks` if it is there, else `annotations`.
        layer: the layer to write.
        match_names: see `doctor`.
        crowds_as_objects: see `doctor`.
        part: see `generate_masks`.
        limit: see `generate_masks`.
        engine: see `generate_masks`.
        workers: see `generate_masks`.
        gpus_per_worker: see `generate_masks`.
        max_error_share: see `generate_masks`.
        timeout: see `generate_masks`.
        retry_failed: see `generate_masks`.
        update: see `generate_masks`.
        removed: see `generate_masks`.
        raise_failed: see `generate_masks`.
        progress: whether, or how, progress is shown.
        **options: options of the captioner, such as `checkpoint="weights/ofa-base"`.

    Returns:
        The layers, with their counts and the reasons why boxes have no caption.

    Raises:
        ArgumentError, SynthgenError, FailedRunError: as `generate_masks`.
    """
    return _generate(
        StageRequest(
            stage="captions",
            dataset=dataset_request(
                path, dataset, name, split, annotations, images, data,
                match_names=match_names, crowds_as_objects=crowds_as_objects,
            ),
            plugin=captioner, options=options,
            stage_options=caption_options(top_k, min_score, forbidden),
            store=resolve_store(store), reads=reads, layer=layer, part=part, limit=limit,
            engine=engine, workers=workers, gpus_per_worker=gpus_per_worker, max_error_share=max_error_share,
            timeout=timeout, retry_failed=retry_failed, update=update, removed=removed,
        ),
        progress, raise_failed=raise_failed,
    )  # fmt: skip


def run_stage(request: StageRequest, reporter: StageReporter) -> list[LayerRun]:
    """Run the stage of `request` on this machine or on a Ray cluster, and tell `reporter`; see
    `synthgen.generate.stage_run.run_stage`.
    """
    return stage_run.run_stage(request, _load_engine, reporter)


class _ProgressReporter(StageReporter):
    """Shows progress, and nothing else."""

    def __init__(self, open_progress: OpenProgress) -> None:
        self._open = open_progress

    def open_progress(self, description: str, total: int, unit: str) -> AbstractContextManager[ProgressBar]:
        """See `StageReporter`."""
        return self._open(description, total, unit)


def _generate(request: StageRequest, progress: Progress, *, raise_failed: bool) -> GenerateResult:
    """Check a request and run it."""
    open_progress = progress_opener(progress)
    check_flag("raise_failed", raise_failed)
    request = _find_input_layer(_check_request(request))
    with explain_missing_extra(f"`synthgen {request.stage}`"):
        runs = run_stage(request, _ProgressReporter(open_progress))
    result = GenerateResult(tuple(map(summarize_run, runs)))
    if raise_failed and (failed := result.failed_shards):
        number = f"{len(failed)} shard{'s' if len(failed) > 1 else ''}"
        raise FailedRunError(f"{number} failed; make the same call to try again. The first one: {failed[0]}")
    return result


def _check_request(request: StageRequest) -> StageRequest:
    """Check what the command line checks while it parses flags.

    Args:
        request: the request to check.

    Returns:
        The request with its numbers in types of Python.

    Raises:
        ArgumentError: with the argument.
    """
    check_choice("engine", request.engine, _ENGINES)
    check_flag("retry_failed", request.retry_failed)
    check_flag("update", request.update)
    check_choice("removed", request.removed, REMOVED_CHOICES)
    part = request.part
    is_pair = isinstance(part, tuple) and len(part) == 2 and all(type(number) is int for number in part)
    if not is_pair or not 0 <= part[0] < part[1]:
        raise ArgumentError(f"part={shorten_value(part)} is not valid; give (i, n) with i from 0 to n - 1")
    plugin = "captioner" if request.stage == "captions" else "segmenter"
    for argument, text in (("layer", request.layer), ("reads", request.reads), (plugin, request.plugin)):
        if not isinstance(text, str) and not (text is None and argument == "reads"):
            raise ArgumentError(f"{argument}={shorten_value(text)} is not a text; give a name")
    _check_option_names(request)
    return replace(
        request,
        limit=check_count("limit", request.limit, 1),
        workers=check_count("workers", request.workers, 1),
        gpus_per_worker=check_number("gpus_per_worker", request.gpus_per_worker, 0),
        max_error_share=check_number("max_error_share", request.max_error_share, 0, 1, optional=False),
        timeout=check_number("timeout", request.timeout, 0),
    )


def _check_option_names(request: StageRequest) -> None:
    """Find misspelt arguments, which Python takes for options of the plugin.

    Args:
        request: the request to check.

    Raises:
        ArgumentError: with the argument that is meant.
    """
    function = generate_captions if request.stage == "captions" else generate_masks
    arguments = {name for name in inspect.signature(function).parameters if name != "options"}
    for name in request.options:
        if not difflib.get_close_matches(name, arguments):
            continue
        package = f"generate.{'captioners' if request.stage == 'captions' else 'segmenters'}"
        names = plugins.list_plugins(package) if request.plugin == "auto" else [request.plugin]
        known = {option for plugin in names for option in plugins.build_parameters(package, plugin)}
        meant = difflib.get_close_matches(name, sorted(arguments | known), n=1)
        if name not in known and meant and meant[0] in arguments:
            raise ArgumentError(f"there is no argument or option {name}=; did you mean {meant[0]}=?")


def _find_input_layer(request: StageRequest) -> StageRequest:
    """The request with the layer that its path names, if it is not a path of a file or folder.

    Args:
        request: a request whose path may name a layer.

    Raises:
        ArgumentError: the path names a layer, and another argument names a dataset.
        SynthgenError: there is nothing of that name.
    """
    named = request.dataset
    if named.path is None:
        return request
    text = named.path.as_posix()
    place = stage_run.find_layer(request.store, text)
    # A file or folder of that name comes first. The layer's own folder, which is there under that name if the working
    # directory is the store, is not a dataset.
    is_own_folder = place is not None and _is_same_folder(named.path, request.store / text)
    exists = os.path.exists(named.path)  # noqa: PTH110 - pathlib raises for a name that is too long
    if exists and not is_own_folder:
        return request
    if place is None and text.count("/") == 2:
        raise SynthgenError(
            f"no file, folder or layer of {request.store} is named {text}; `synthgen status` lists layers"
        )
    if place is None:
        return request
    others: dict[str, object] = {
        "dataset": named.dataset,
        "name": named.name,
        "split": named.split,
        "annotations": named.annotations,
        "match_names": named.match_names or None,
        "crowds_as_objects": named.crowds_as_objects or None,
        "reads": None if request.reads in (place[2], _DEFAULT_READS.get(request.stage)) else request.reads,
    }
    if given := [argument for argument, value in others.items() if value is not None]:
        raise ArgumentError(f"{'/'.join(place)} is a layer, which needs no {given[0]}=; leave it out")
    return replace(request, input_place=place)


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _load_engine(request: StageRequest) -> Engine:
    """Return the function that makes shards; see `synthgen.generate.engine`. Without Ray, its options are checked."""
    if request.engine == "ray":
        from synthgen.cluster.ray_engine import run_on_cluster

        return run_on_cluster
    from synthgen.generate.engine import check_in_process_options, run_in_process

    check_in_process_options(**request.placement)
    return run_in_process
