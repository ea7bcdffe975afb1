"""Ablation of synthetic data: train a manifest with and without its synthetic sources, for several seeds, and compare.

Each training is an ordinary run with its own manifest and run directory. A run that was killed resumes, a finished run
is not repeated, and a cluster may train any of them. `ablation_stats` formats the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from synthgen import plugins
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.manifest_check import ManifestReport, check_manifest
from synthgen.dataloading.source_checks import describe_synthetic_labels
from synthgen.dataloading.source_config import TASKS_PACKAGE, TrainSource
from synthgen.distributed import DistributedContext, join_process_group
from synthgen.errors import SynthgenError, did_you_mean, escape_control_chars, job_has_started
from synthgen.evaluation import evaluate
from synthgen.evaluation.ablation_stats import Difference, compare_arms, format_differences
from synthgen.evaluation.results import EvalResult, load_results, printable_json
from synthgen.progress import NoProgress, OpenProgress
from synthgen.storage.atomic import atomic_write, remove_stale_files, write_text_atomic
from synthgen.storage.disk import create_folder
from synthgen.training import run_dir, trainer

ARMS = ("with", "without")


@dataclass(frozen=True, slots=True)
class AblationSource:
    """A source of the mixture: which of its labels are synthetic, and whether one arm leaves it out."""

    source: TrainSource
    synthetic: tuple[str, ...]
    is_left_out: bool

    @property
    def name(self) -> str:
        """Its name in `--without` and in tables."""
        return f"{self.source.shards} {self.source.task}"


@dataclass(frozen=True, slots=True)
class AblationResult:
    """The result of an ablation.

    Attributes:
        folder: of the ablation; `ablation.json` in it has the same content.
        differences: for each evaluated layer and value.
        unmeasured: layers without an image that could be evaluated.
        is_rank0: whether this is rank 0, which prints the result.
    """

    folder: Path
    seeds: tuple[int, ...]
    sources: tuple[AblationSource, ...]
    differences: tuple[Difference, ...]
    unmeasured: tuple[str, ...]
    is_rank0: bool

    def format_lines(self) -> Iterator[str]:
        """The lines to print."""
        left_out = [one for one in self.sources if one.is_left_out]
        what = (
            "synthetic data" if all(one.synthetic for one in left_out) else _join_names([one.name for one in left_out])
        )
        yield from format_differences(self.differences, len(self.seeds), what)
        for name in self.unmeasured:
            yield f"no image of {name} could be measured in some of the runs, and so it is not compared"
        yield f"in full: {self.folder / 'ablation.json'}"


def ablate(
    manifest_path: Path,
    *,
    num_seeds: int = 3,
    out: Path | None = None,
    store: Path | None = None,
    without: Sequence[str] = (),
    device: str = "auto",
    num_workers: int | None = None,
    progress: OpenProgress = NoProgress,
    echo: Callable[..., None] = lambda *_: None,
) -> AblationResult:
    """Train a manifest with and without its synthetic sources, for several seeds, and compare.

    Both arms train the same number of steps with the same batch size and seeds: the manifest's seed and those after it.
    If sources are left out, the ratios of the others are rescaled, so that manual annotations are seen more often.

    Args:
        manifest_path: a YAML file with `mixture` and `eval`.
        num_seeds: trainings of each arm.
        out: folder of all runs; None = ablations/ and the manifest's name.
        store: root of the shards, instead of the manifest's.
        without: sources to leave out, "dataset/split/layer" or that and " task"; () = all with synthetic labels.
        device: as for `trainer.train`.
        num_workers: as for `trainer.train`.
        progress: opens a progress bar.
        echo: prints lines: each argument is one line, without its end.

    Raises:
        SynthgenError: no source is synthetic, or all are; nothing is evaluated; or `trainer.train` fails.
    """
    manifest_path = manifest_path.absolute()  # absolute, because the manifests of the runs are in other folders
    manifest = load_manifest(manifest_path, store=store)
    manifest = manifest.model_copy(update={"store": manifest.store.absolute()})
    for key, remedy in (("mixture", "there is nothing to leave out"), ("eval", "nothing could be compared")):
        if not getattr(manifest, key):
            raise SynthgenError(f"{manifest_path} has no {key}: and so {remedy}; add it, as manifests/ show")
    with join_process_group(device) as context:
        checked = context.on_rank0(lambda: check_manifest(manifest_path, store=store, open_progress=progress))
        judged = select_sources(checked, without)
        if context.rank == 0:
            echo(*_format_plan(manifest, judged, num_seeds), "")
        place = out or Path("ablations") / manifest.name
        own = tuple((manifest.seed + i) % 2**63 for i in range(num_seeds))
        runs = {
            place / f"{arm}-seed-{seed}": _arm_manifest(manifest, judged, arm, seed) for seed in own for arm in ARMS
        }  # fmt: skip
        texts = {run: _dump_manifest(recipe) for run, recipe in runs.items()}

        def plan() -> None:
            for run, recipe in runs.items():  # write all manifests before the plan of another ablation can replace them
                run_dir.load_starts(run, recipe, kind=trainer.checkpoint_kind(recipe))
            create_folder(place, remedy="choose another --out")
            remove_stale_files(place)
            for run, text in texts.items():
                write_text_atomic(_manifest_path(run), text)

        context.on_rank0(plan)
        results: list[list[EvalResult]] = []
        for number, (run, text) in enumerate(texts.items(), 1):
            if context.rank == 0:
                echo(f"{number} of {len(texts)}: {run}")
            with job_has_started() if results else nullcontext():
                results.append(_run_arm(run, text, manifest, context, device, num_workers, progress))
        found = tuple(compare_arms(results[::2], results[1::2]))
        if context.rank == 0:
            _save_json(place / "ablation.json", manifest, own, judged, found)
        compared = {(one.source, one.task) for one in found}
        lost = (f"{one.shards} {one.task}" for one in manifest.eval if (one.shards, one.task) not in compared)
        return AblationResult(place, own, judged, found, tuple(lost), context.rank == 0)


def select_sources(checked: ManifestReport, without: Sequence[str] = ()) -> tuple[AblationSource, ...]:
    """Determine the synthetic labels of each source, and the sources to leave out.

    Args:
        checked: report of the manifest.
        without: sources to leave out; see `ablate`.

    Raises:
        SynthgenError: `without` names an unknown source, or all or none would be left out.
    """
    rows = [row for row in checked.sources if row.draw_probability is not None]
    sources = [cast(TrainSource, row.source) for row in rows]
    known = [name for source in sources for name in (source.shards, f"{source.shards} {source.task}")]
    for name in without:
        if name not in known:
            have = f" (have: {', '.join(dict.fromkeys(source.shards for source in sources))})"
            raise SynthgenError(f"--without {name} is no source of the mixture{did_you_mean(name, known) or have}")
    judged = []
    for source, row in zip(sources, rows, strict=True):
        made = tuple(
            describe_synthetic_labels(source, row.stats, plugins.load_plugin(TASKS_PACKAGE, source.task).METRIC)
        )
        named = not {source.shards, f"{source.shards} {source.task}"}.isdisjoint(without)
        judged.append(AblationSource(source, made, named if without else bool(made)))
    left = [one for one in judged if not one.is_left_out]
    if len(left) == len(judged):
        raise SynthgenError(
            f"no source of {checked.manifest.name} learns from masks or captions by machines, so there is nothing to "
            "leave out; name the sources to do without: --without DATASET/SPLIT/LAYER"
        )
    if not left:
        every = f"every source of {checked.manifest.name}"
        if without:
            raise SynthgenError(f"--without names {every}, so nothing would be left to learn from; name fewer")
        raise SynthgenError(
            f"{every} learns from masks or captions by machines, so nothing would be left to learn from; "
            "add one by people, or name what to do without: --without DATASET/SPLIT/LAYER"
        )
    return tuple(judged)


def _join_names(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} other sources"


def _format_plan(manifest: Manifest, sources: Sequence[AblationSource], num_seeds: int) -> Iterator[str]:
    """Describe the sources left out and the resulting mixture."""
    total = sum(one.source.ratio for one in sources)
    rest = sum(one.source.ratio for one in sources if not one.is_left_out)
    width = max(len(one.name) for one in sources)
    yield f"{'source':<{width}}      with   without  by machines"
    for one in sources:
        share = one.source.ratio / total
        other = "-" if one.is_left_out else f"{one.source.ratio / rest:.1%}"
        synthetic = ", ".join(map(escape_control_chars, one.synthetic)) or "-"
        yield f"{one.name:<{width}}  {share:>8.1%}  {other:>8}  {synthetic}"
    schedule = manifest.schedule
    yield (
        f"both learn {schedule.steps:,} steps of {schedule.batch_size} images from the same {num_seeds} "
        f"seed{'s' * (num_seeds != 1)}; without the sources that are left out, an image of the others is seen "
        f"{total / rest:.2g} times as often"
    )


def _arm_manifest(manifest: Manifest, sources: Sequence[AblationSource], arm: str, seed: int) -> Manifest:
    """The manifest of a run."""
    mixture = tuple(one.source for one in sources if arm == "with" or not one.is_left_out)
    name = f"{manifest.name[:70]}-{arm}-seed-{seed}"
    return manifest.model_copy(update={"name": name, "seed": seed, "mixture": mixture})


def _dump_manifest(manifest: Manifest) -> str:
    """As JSON, which is valid YAML."""
    return json.dumps(manifest.model_dump(mode="json", exclude_unset=True), indent=1, ensure_ascii=False) + "\n"


def _manifest_path(folder: Path) -> Path:
    """The path of a run's manifest."""
    return folder.with_name(f"{folder.name}.yaml")


def _run_arm(
    folder: Path,
    text: str,
    manifest: Manifest,
    context: DistributedContext,
    device: str,
    num_workers: int | None,
    progress: OpenProgress,
) -> list[EvalResult]:
    """Train a run to its last step, if it is not finished, and return its evaluation."""
    steps, path = manifest.schedule.steps, _manifest_path(folder)
    results = run_dir.results_path(folder, steps)

    def ended() -> bool:
        begun = folder / "manifest.yaml"
        same = begun.is_file() and begun.read_text(encoding="utf-8") == text
        there = same and results.is_file() and run_dir.checkpoint_path(folder, steps).is_file()
        return there and load_results(results)[1]

    if not context.on_rank0(ended):
        done = trainer.train(path, out=folder, device=device, num_workers=num_workers, progress=progress)
        if not done.eval_results:  # finished earlier, but evaluated on other layers or by other rules
            own = manifest.dataloader.num_workers if num_workers is None else num_workers
            evaluate.evaluate_checkpoint(
                done.last_checkpoint, path, out=results, device=device, num_workers=own, progress=progress,
                precision=manifest.schedule.precision,
            )  # fmt: skip

    return context.on_rank0(lambda: load_results(results)[0])


def _save_json(
    path: Path,
    manifest: Manifest,
    seeds: Sequence[int],
    sources: Sequence[AblationSource],
    differences: Sequence[Difference],
) -> None:
    content: dict[str, Any] = {
        "manifest": manifest.name,
        "steps": manifest.schedule.steps,
        "seeds": list(seeds),
        "sources": [
            {"source": one.source.shards, "task": one.source.task, "ratio": one.source.ratio,
            "by_machines": one.synthetic,
             "is_left_out": one.is_left_out}
            for one in sources
        ],
        "differences": [{**asdict(one), **one.summarize()} for one in differences],
    }  # fmt: skip
    with atomic_write(path, remedy="choose another --out") as temporary:
        temporary.write_text(printable_json(content), encoding="utf-8")
