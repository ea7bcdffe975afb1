"""Run a stage over the splits of a dataset: resolve it, ingest what is missing, run the job of each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen import plugins
from synthgen.errors import SynthgenError, job_has_started
from synthgen.formats.recognition import READERS_PACKAGE
from synthgen.generate import input_layer
from synthgen.generate.auto_choice import PluginChoice, choose_plugins
from synthgen.generate.dataset_spec import DatasetRequest, DatasetSpec
from synthgen.generate.job import Job
from synthgen.generate.job_builder import create_job
from synthgen.generate.renewal import RenewalCounts, count_renewal
from synthgen.generate.run import Engine, RunStats, layer_has_output, run_job, select_shards
from synthgen.generate.worker import ShardReport
from synthgen.ingest.update import LayerChanges
from synthgen.progress import NoProgress, ProgressBar
from synthgen.storage.disk import without_empty_folders
from synthgen.storage.identity import parent_shard
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import Shard, ShardStore

#: The input layer of a stage if the user names none and this layer is there; else it is "annotations".
_PREFERRED_INPUT = {"captions": "masks"}

#: A layer has at most so many ancestors; a file may claim any.
_MAX_ANCESTORS = 32

#: Stands for the reader of a layer whose footers name none that synthgen has.
_ANY_READER = "coco_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """A stage over a dataset, as a user asks for it.

    Attributes:
        stage: a plugin of `generate.stages`.
        dataset: the dataset; with `input_place`, only its `images` count.
        input_place: (dataset, split, layer) of a committed layer to read instead.
        plugin: a segmenter or captioner, or "auto"; options: those that the user gives, as values or as text.
        stage_options: of the stage itself, those that the user gives; None for a stage without options.
        store: root of the shards.
        reads: the input layer; None = the default of the stage.
        layer: the output layer.
        part: (i, n): only shards whose index is i modulo n.
        limit: stop after so many shards.
        engine: "local" or "ray"; workers, gpus_per_worker: options of the engine `ray`.
        max_error_share, retry_failed, update, timeout: see `Job`.
        removed: what an update does with images that the annotation files do not list any more: "drop" or "keep".
        dry_run: report what would be done, and do nothing.
    """

    stage: str
    dataset: DatasetRequest
    input_place: tuple[str, str, str] | None = None
    plugin: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    stage_options: Mapping[str, Any] | None = None
    store: Path = Path("shards")
    reads: str | None = None
    layer: str
    part: tuple[int, int] = (0, 1)
    limit: int | None = None
    engine: str = "local"
    workers: int | None = None
    gpus_per_worker: float | None = None
    max_error_share: float = 0.05
    retry_failed: bool = False
    update: bool = False
    removed: str = "drop"
    timeout: float | None = None
    dry_run: bool = False

    @property
    def placement(self) -> dict[str, int | float | None]:
        """The options that only an engine uses."""
        return {"workers": self.workers, "gpus_per_worker": self.gpus_per_worker}


@dataclass(frozen=True, slots=True)
class LayerRun:
    """The run of one split.

    Attributes:
        job: what was run; choice: its plugin, and why.
        shards: those that were not committed before.
        stats: the counts of the run; None = every shard was committed already, or a dry run.
        has_output: whether a box of the layer has what the stage makes.
    """

    job: Job
    choice: PluginChoice
    shards: tuple[Shard, ...]
    stats: RunStats | None
    has_output: bool


class StageReporter:
    """Hears what a run does, in this order. This class is silent; the command line has one that prints."""

    def open_progress(self, description: str, total: int, unit: str) -> AbstractContextManager[ProgressBar]:
        """Open a progress bar for a `description`, a `total` and a `unit`; an `OpenProgress`."""
        return NoProgress(description, total, unit)

    def on_choice(self, choices: Sequence[PluginChoice]) -> None:
        """The plugin of each split is chosen, in `choices`, and nothing is done yet."""

    def on_missing_inputs(self, sentences: Sequence[str]) -> None:
        """Of a dry run: input layers that would be made or updated first, in `sentences`."""

    def on_update(self, job: Job, changes: LayerChanges) -> None:
        """The input layer of `job` was updated, by these `changes`."""

    def on_inputs(self, specs: Sequence[DatasetSpec], jobs: Sequence[Job]) -> None:
        """The input layers are there, for the splits `specs` and their `jobs`."""

    def on_plan(self, job: Job, shards: Sequence[Shard]) -> None:
        """The job `job` is about to do these `shards`."""

    def on_renewal(self, counts: RenewalCounts) -> None:
        """Of a dry run, after its plan: some of the shards are there already, and `counts` says what would stay."""

    def on_nothing_to_do(self, job: Job, *, has_output: bool) -> None:
        """Every shard of `job` is committed; `has_output`: whether a box of the layer has what the stage makes."""

    def on_shard(self, report: ShardReport) -> None:
        """A shard is committed, or has failed, as `report` says."""

    def on_stats(self, job: Job, stats: RunStats) -> None:
        """The job `job` has ended, with the counts `stats`."""


@without_empty_folders()
def run_stage(
    request: StageRequest, load_engine: Callable[[StageRequest], Engine], reporter: StageReporter
) -> list[LayerRun]:
    """Run the job of each split in turn, after the layers that they read are made.

    A failed shard is in the stats of its split and raises nothing. An exception, Ctrl-C included, leaves every
    committed shard in its place; the same request continues.

    Args:
        request: what to do with which dataset.
        load_engine: returns the engine, before anything is done.
        reporter: hears what happens.

    Returns:
        The runs, one for each split; [] for a dry run where input layers are missing or would be updated.

    Raises:
        SynthgenError: wrong input, and nothing was started.
        FailedRunError: the cause would hit every shard, such as a full disk.
    """
    specs = request.dataset.resolve() if request.input_place is None else [_spec_of_layer(request)]
    choices = choose_plugins(
        request.plugin,
        request.options,
        stage=request.stage,
        specs=specs,
        store=request.store,
        layer=request.layer,
        part=request.part,
    )
    jobs = [_create_job(request, spec, choice) for spec, choice in zip(specs, choices, strict=True)]
    engine = load_engine(request)  # first: where Ray is not installed, nothing is done
    reporter.on_choice(choices)
    if request.input_place is None:
        missing = _prepare_inputs(request, specs, jobs, reporter)
        if missing:
            reporter.on_missing_inputs(missing)
            return []
    reporter.on_inputs(specs, jobs)
    runs: list[LayerRun] = []
    for job, choice in zip(jobs, choices, strict=True):
        with job_has_started() if runs else nullcontext():
            runs.append(_run_layer(request, job, choice, engine, reporter))
    return runs


def find_layer(store: Path, text: str) -> tuple[str, str, str] | None:
    """The (dataset, split, layer) that a text such as "boxes/train/masks" names; None = no layer of the store."""
    shard_store, parts = ShardStore(store), text.split("/")
    try:
        if len(parts) == 3 and shard_store.scan_layer(*parts).shards:
            return parts[0], parts[1], parts[2]
    except SynthgenError:  # a name that no layer can have
        return None
    return None


def _spec_of_layer(request: StageRequest) -> DatasetSpec:
    """The dataset of a committed layer. Its files need not be on this machine; its images must be.

    Args:
        request: a request that reads a committed layer.

    Raises:
        SynthgenError: the image folder is unknown.
    """
    dataset, split, layer = request.input_place or ("", "", "")
    store = ShardStore(request.store)
    images = request.dataset.images or find_image_folder(store, dataset, split, layer)
    if images is None:
        raise SynthgenError(
            f"the image folder of {dataset}/{split}/{layer} is not known; name it: images=FOLDER of the function"
        )
    folder = store.layer_folder(dataset, split, layer)
    return DatasetSpec(_find_reader(store, dataset, split, layer), dataset, split, folder, None, images)


def _find_reader(store: ShardStore, dataset: str, split: str, layer: str) -> str:
    """The reader that the ingest of a layer's first ancestor names. The footers come from files and are not trusted."""
    shard: Shard | None = store.list_shards(dataset, split, layer)[0]
    for _ in range(_MAX_ANCESTORS):
        footer = store.read_footer(shard) if shard is not None else None
        if shard is None or footer is None:
            break
        reader = footer.get("recipe", {}).get("reader")
        if isinstance(reader, str) and reader in plugins.list_plugins(READERS_PACKAGE):
            return reader
        shard = parent_shard(shard, footer)
    return _ANY_READER


def _create_job(request: StageRequest, spec: DatasetSpec, choice: PluginChoice) -> Job:
    reads = request.reads
    if request.input_place is not None:
        reads = request.input_place[2]
    elif reads is None:
        preferred = _PREFERRED_INPUT.get(request.stage, "annotations")
        reads = input_layer.default_input_layer(spec, request.store, request.layer, preferred=preferred)
    return create_job(
        spec,
        request.store,
        stage=request.stage,
        plugin=choice.plugin,
        options=choice.options,
        stage_options=None if request.stage_options is None else dict(request.stage_options),
        input_layer=reads,
        layer=request.layer,
        max_error_share=request.max_error_share,
        retry_failed=request.retry_failed,
        update=request.update,
        timeout=request.timeout,
    )


def _prepare_inputs(
    request: StageRequest, specs: Sequence[DatasetSpec], jobs: Sequence[Job], reporter: StageReporter
) -> list[str]:
    """Make the input layers that are missing, and update them on request; in a dry run, return sentences instead."""
    pairs = list(zip(specs, jobs, strict=True))
    if request.dry_run:
        return [
            sentence
            for spec, job in pairs
            for sentence in input_layer.preview_input_layer(
                spec, job, removed=request.removed, part=request.part, limit=request.limit
            )
        ]
    has_started = False
    for spec, job in pairs:
        with job_has_started() if has_started else nullcontext():
            made = input_layer.ensure_input_layer(
                spec, job, removed=request.removed, open_progress=reporter.open_progress
            )
        if made is not None:
            has_started = True
            if made.changes is not None:
                reporter.on_update(job, made.changes)
    return []


def _run_layer(
    request: StageRequest, job: Job, choice: PluginChoice, engine: Engine, reporter: StageReporter
) -> LayerRun:
    shards = select_shards(job, part=request.part, limit=request.limit, dry_run=request.dry_run)
    reporter.on_plan(job, shards)
    if request.dry_run:
        if (counts := count_renewal(job, shards)).renewed:
            reporter.on_renewal(counts)
        return LayerRun(job, choice, tuple(shards), None, has_output=False)
    if not shards:
        has_output = layer_has_output(job)
        reporter.on_nothing_to_do(job, has_output=has_output)
        return LayerRun(job, choice, (), None, has_output)
    with reporter.open_progress(job.layer, count_images(job, shards), "images") as done:
        stats = run_job(
            job,
            shards,
            engine,
            part=request.part,
            engine_options=request.placement,
            on_images=done.advance,
            on_report=reporter.on_shard,
        )
    reporter.on_stats(job, stats)
    return LayerRun(job, choice, tuple(shards), stats, stats.has_output(job.stage))


def count_images(job: Job, shards: Sequence[Shard]) -> int:
    """How many images the `shards` of `job` hold, by the footers of the input layer."""
    store = ShardStore(job.store)
    return sum(
        (store.read_footer(shard.in_layer(job.input_layer)) or {}).get("counts", {}).get("images", 0)
        for shard in shards
    )
