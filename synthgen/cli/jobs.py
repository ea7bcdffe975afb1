"""The commands that run a job over a layer: masks, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.parsing import parse_part, parse_plugin_options
from synthgen.cli.plugin_flags import add_flags, plugin_flags, stage_flags
from synthgen.cli.terminal import print_lines
from synthgen.plugin_options import OptionValue
from synthgen.storage.disk import default_store

if TYPE_CHECKING:
    from synthgen.generate.stage_run import LayerRun, StageRequest

#: By the name of the option.
OptionValues = dict[str, OptionValue] | None


@add_flags(plugin_options=plugin_flags("generate.segmenters"))
def masks(
    path: opt.DatasetPath = None,
    dataset: opt.Dataset = None,
    segmenter: opt.Segmenter = "auto",
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    match_names: opt.MatchNames = False,
    crowds_as_objects: opt.CrowdsAsObjects = False,
    data: opt.Data = opt.DEFAULT_DATA,
    store: opt.Store = opt.DEFAULT_STORE,
    reads: Annotated[str, typer.Option(help="Layer whose boxes are the prompts")] = "annotations",
    layer: Annotated[str, typer.Option(help="Layer to write")] = "masks",
    plugin_options: OptionValues = None,
    option: opt.ExtraOptions = None,
    part: opt.Part = "0/1",
    limit: opt.Limit = None,
    engine: opt.Engine = opt.EngineName.LOCAL,
    workers: opt.Workers = None,
    gpus_per_worker: opt.GpusPerWorker = None,
    max_error_share: opt.MaxErrorShare = 0.05,
    timeout: opt.Timeout = None,
    retry_failed: opt.RetryFailed = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Draw a mask for every box.

    Kill it at any moment and type the same command again: what is committed stays, and the result is that of a run
    undisturbed; byte for byte on the same kind of device, with the same batch size and threads. Exit code 0: all done;
    1: some shards failed and are named, or no box got a mask; 2: wrong input, nothing was started; 129, 130, 143:
    stopped by SIGHUP, Ctrl-C or SIGTERM.

    \b
    Examples:
      synthgen masks boxes.json --images photos/
      synthgen masks datasets/cones
      synthgen masks --dataset objects365 --segmenter sam --precision bf16
    """
    from synthgen.generate.dataset_spec import DatasetRequest
    from synthgen.generate.stage_run import StageRequest

    _run(
        StageRequest(
            stage="masks",
            dataset=DatasetRequest(
                path=path,
                dataset=dataset,
                name=name,
                split=split,
                data=data,
                annotations=annotations,
                images=images,
                match_names=match_names,
                crowds_as_objects=crowds_as_objects,
            ),
            plugin=segmenter,
            options=parse_plugin_options(option or [], plugin_options or {}),
            store=store,
            reads=reads,
            layer=layer,
            part=parse_part(part),
            limit=limit,
            engine=engine,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            max_error_share=max_error_share,
            timeout=timeout,
            retry_failed=retry_failed,
            dry_run=dry_run,
        )
    )


@add_flags(stage_options=stage_flags("captions"), plugin_options=plugin_flags("generate.captioners"))
def captions(
    path: opt.DatasetPath = None,
    dataset: opt.Dataset = None,
    captioner: opt.Captioner = "auto",
    name: opt.Name = None,
    split: opt.Split = None,
    annotations: opt.Annotations = None,
    images: opt.Images = None,
    match_names: opt.MatchNames = False,
    crowds_as_objects: opt.CrowdsAsObjects = False,
    data: opt.Data = opt.DEFAULT_DATA,
    store: opt.Store = opt.DEFAULT_STORE,
    reads: Annotated[
        str | None,
        typer.Option(help="Layer whose boxes are captioned (default: masks if it is there, else annotations)"),
    ] = None,
    layer: Annotated[str, typer.Option(help="Layer to write")] = "captions",
    stage_options: OptionValues = None,
    plugin_options: OptionValues = None,
    option: opt.ExtraOptions = None,
    part: opt.Part = "0/1",
    limit: opt.Limit = None,
    engine: opt.Engine = opt.EngineName.LOCAL,
    workers: opt.Workers = None,
    gpus_per_worker: opt.GpusPerWorker = None,
    max_error_share: opt.MaxErrorShare = 0.05,
    timeout: opt.Timeout = None,
    retry_failed: opt.RetryFailed = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Write captions for every box.

    Captions by people that are there already are kept, and stand first. Nothing is dropped for its score or its words:
    each caption carries the reasons why a reader may not want it.

    Kill it and type the same command again, as with `masks`; the exit codes are the same, too.

    \b
    Examples:
      synthgen captions boxes.json --images photos/
      synthgen captions --dataset objects365 --reads masks --forbidden words.txt
    """
    from synthgen.generate.dataset_spec import DatasetRequest
    from synthgen.generate.stage_run import StageRequest

    _run(
        StageRequest(
            stage="captions",
            dataset=DatasetRequest(
                path=path,
                dataset=dataset,
                name=name,
                split=split,
                data=data,
                annotations=annotations,
                images=images,
                match_names=match_names,
                crowds_as_objects=crowds_as_objects,
            ),
            plugin=captioner,
            options=parse_plugin_options(option or [], plugin_options or {}),
            stage_options=stage_options or {},
            store=store,
            reads=reads,
            layer=layer,
            part=parse_part(part),
            limit=limit,
            engine=engine,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            max_error_share=max_error_share,
            timeout=timeout,
            retry_failed=retry_failed,
            dry_run=dry_run,
        )
    )


def _run(request: StageRequest) -> None:
    """Run a stage and print what it does. The exit code is 1 if a shard failed, or if no split has any output."""
    from synthgen.api import generation
    from synthgen.cli.job_printer import JobPrinter

    runs = generation.run_stage(request, JobPrinter(request))
    if request.dry_run:
        return
    shown = _print_next_steps(runs)
    if any(run.stats is not None and run.stats.errors for run in runs) or not shown:
        raise typer.Exit(1)


def _print_next_steps(runs: Sequence[LayerRun]) -> bool:
    """Print what to do with the layers that have output; returns whether there is one."""
    from synthgen.cli import messages

    jobs = [run.job for run in runs if run.has_output]
    if not jobs:
        return False
    print_lines(*messages.format_note(jobs[0]))
    print_lines(*messages.format_next_commands(jobs, None if jobs[0].store == default_store() else jobs[0].store))
    return True
