"""The commands that run a job over a layer: masks, captions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.parsing import parse_part, parse_plugin_options
from synthgen.cli.plugin_flags import add_flags, plugin_flags, stage_flags
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.errors import job_has_started
from synthgen.plugin_options import OptionValue

if TYPE_CHECKING:
    from synthgen.generate.auto_choice import PluginChoice
    from synthgen.generate.dataset_spec import DatasetSpec
    from synthgen.generate.job import Job
    from synthgen.generate.run import Engine
    from synthgen.generate.worker import ShardReport

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
    from synthgen.generate.auto_choice import choose_plugins
    from synthgen.generate.dataset_spec import resolve_datasets
    from synthgen.generate.job_builder import create_job

    specs = resolve_datasets(
        path,
        dataset,
        name,
        split,
        data,
        annotations,
        images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )
    choices = choose_plugins(
        segmenter,
        parse_plugin_options(option or [], plugin_options or {}),
        stage="masks",
        specs=specs,
        store=store,
        layer=layer,
        part=parse_part(part),
    )
    jobs = [
        (
            spec,
            create_job(
                spec,
                store,
                stage="masks",
                plugin=choice.plugin,
                options=choice.options,
                input_layer=reads,
                layer=layer,
                max_error_share=max_error_share,
                retry_failed=retry_failed,
                timeout=timeout,
            ),
        )
        for spec, choice in zip(specs, choices, strict=True)
    ]
    placement: dict[str, int | float | None] = {"workers": workers, "gpus_per_worker": gpus_per_worker}
    _run_jobs(engine, jobs, choices, path=path, part=part, limit=limit, placement=placement, dry_run=dry_run)


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
    from synthgen.generate.auto_choice import choose_plugins
    from synthgen.generate.dataset_spec import resolve_datasets
    from synthgen.generate.input_layer import default_input_layer
    from synthgen.generate.job_builder import create_job

    specs = resolve_datasets(
        path,
        dataset,
        name,
        split,
        data,
        annotations,
        images,
        match_names=match_names,
        crowds_as_objects=crowds_as_objects,
    )
    choices = choose_plugins(
        captioner,
        parse_plugin_options(option or [], plugin_options or {}),
        stage="captions",
        specs=specs,
        store=store,
        layer=layer,
        part=parse_part(part),
    )
    jobs = [
        (
            spec,
            create_job(
                spec,
                store,
                stage="captions",
                plugin=choice.plugin,
                options=choice.options,
                stage_options=stage_options or {},
                input_layer=reads or default_input_layer(spec, store, layer, preferred="masks"),
                layer=layer,
                max_error_share=max_error_share,
                retry_failed=retry_failed,
                timeout=timeout,
            ),
        )
        for spec, choice in zip(specs, choices, strict=True)
    ]
    placement: dict[str, int | float | None] = {"workers": workers, "gpus_per_worker": gpus_per_worker}
    _run_jobs(engine, jobs, choices, path=path, part=part, limit=limit, placement=placement, dry_run=dry_run)


def _load_engine(name: opt.EngineName, placement: dict[str, int | float | None]) -> Engine:
    """Return the function that makes shards; see `synthgen.generate.engine`. Without Ray, its options are checked."""
    if name == opt.EngineName.RAY:
        from synthgen.cluster.ray_engine import run_on_cluster

        return run_on_cluster
    from synthgen.generate.engine import check_in_process_options, run_in_process

    check_in_process_options(**placement)
    return run_in_process


def _run_jobs(
    engine: opt.EngineName,
    jobs: Sequence[tuple[DatasetSpec, Job]],
    choices: Sequence[PluginChoice],
    *,
    path: Path | None,
    part: str,
    limit: int | None,
    placement: dict[str, int | float | None],
    dry_run: bool,
) -> None:
    """Run the job of each split in turn, after the layers that they read are made; ends with an exit code.

    1 if a shard failed, or if no split has any output.
    """
    from synthgen.cli import messages
    from synthgen.generate.input_layer import describe_missing_input, ensure_input_layer

    shard_part = parse_part(part)
    make = _load_engine(engine, placement)  # first: where Ray is not installed, nothing is done
    print_lines(*dict.fromkeys(choice.sentence for choice in choices if choice.sentence))
    if dry_run:
        missing = [first for spec, job in jobs if (first := describe_missing_input(spec, job))]
        print_lines(*missing)
        if missing:
            return
    else:
        has_started = False
        for spec, job in jobs:
            with job_has_started() if has_started else nullcontext():
                has_started |= ensure_input_layer(spec, job, open_progress=open_progress)
    if path is not None:
        print_lines(messages.format_recognized(path, [spec for spec, _ in jobs], *messages.count_inputs(jobs)))
    results: list[tuple[bool, bool]] = []
    for _, job in jobs:
        with job_has_started() if results else nullcontext():
            results.append(_run_job(job, make, part=shard_part, limit=limit, placement=placement, dry_run=dry_run))
    if dry_run:
        return
    shown = next((job for (_, job), (_, has_output) in zip(jobs, results, strict=True) if has_output), None)
    if shown is not None:
        print_lines(*messages.format_note(shown))
        print_lines(messages.format_next_command(shown, None if shown.store == opt.default_store() else shown.store))
    if any(failed for failed, _ in results) or shown is None:
        raise typer.Exit(1)


def _run_job(
    job: Job,
    make: Engine,
    *,
    part: tuple[int, int],
    limit: int | None,
    placement: dict[str, int | float | None],
    dry_run: bool,
) -> tuple[bool, bool]:
    """Let the engine make a layer; returns (has a shard failed, is there output)."""
    from synthgen.cli import messages
    from synthgen.generate.run import layer_has_output, run_job, select_shards

    shards = select_shards(job, part=part, limit=limit, dry_run=dry_run)
    print_lines(*messages.format_plan(job, shards))
    if dry_run:
        return False, False
    if not shards:
        has_output = layer_has_output(job)
        if not has_output:
            print_lines(messages.describe_no_output(job))
        return False, has_output
    with open_progress(job.layer, messages.count_images(job, shards), "images") as done:
        chances = iter(range(messages.MAX_LISTED_ERRORS))

        def report_failure(report: ShardReport) -> None:
            if report.error is not None and next(chances, None) is not None:
                done.print_line(f"failed: {report.error}")

        tally = run_job(
            job,
            shards,
            make,
            part=part,
            engine_options=placement,
            on_images=done.advance,
            on_report=report_failure,
        )
    print_lines(*messages.format_result(job, tally))
    return bool(tally.errors), tally.has_output(job.stage)
