"""Does synthetic data pay? A manifest is trained with and without its synthetic sources, seed by seed, and compared.

Each of the trainings is an ordinary run: a manifest and a folder of its own, so that one that was killed goes on, one
that has ended is not trained again, and a cluster may train any of them. What they came to is told by `differences`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from synthgen import plugins
from synthgen.dataloading.layer_stats import machines
from synthgen.dataloading.manifest import Manifest, load
from synthgen.dataloading.manifest_check import Checked, check
from synthgen.dataloading.source_config import SHELF, Source
from synthgen.distributed import Ranks, together
from synthgen.errors import SynthgenError, did_you_mean, printable
from synthgen.evaluation import evaluate
from synthgen.evaluation.ablation_stats import Difference, differences, told
from synthgen.evaluation.results import Measured, printable_json, read
from synthgen.progress import NoProgress, OpenProgress
from synthgen.storage.atomic import new_file, remove_leftovers, write_text
from synthgen.training import run_dir, trainer

ARMS = ("with", "without")


@dataclass(frozen=True, slots=True)
class Judged:
    """A source of the mixture: what of it machines made, and whether one arm goes without it."""

    source: Source
    made: tuple[str, ...]
    is_left_out: bool

    @property
    def name(self) -> str:
        """As `--without` and tables have it."""
        return f"{self.source.shards} {self.source.task}"


@dataclass(frozen=True, slots=True)
class Ablation:
    """What came of it.

    Attributes:
        folder: of the ablation, in which `ablation.json` says the same.
        differences: for each layer and number. unmeasured: layers of which no image could be measured.
        is_first: whether this is the process that speaks.
    """

    folder: Path
    seeds: tuple[int, ...]
    judged: tuple[Judged, ...]
    differences: tuple[Difference, ...]
    unmeasured: tuple[str, ...]
    is_first: bool

    def lines(self) -> Iterator[str]:
        """For a person."""
        left_out = [one for one in self.judged if one.is_left_out]
        what = "synthetic data" if all(one.made for one in left_out) else _listed([one.name for one in left_out])
        yield from told(self.differences, len(self.seeds), what)
        for name in self.unmeasured:
            yield f"no image of {name} could be measured in some of the runs, and so it is not compared"
        yield f"in full: {self.folder / 'ablation.json'}"


def ablate(
    path: Path,
    *,
    seeds: int = 3,
    out: Path | None = None,
    store: Path | None = None,
    without: Sequence[str] = (),
    device: str = "auto",
    readers: int | None = None,
    bar: OpenProgress = NoProgress,
    tell: Callable[..., None] = lambda *_: None,
) -> Ablation:
    """Train a manifest with and without its synthetic sources, from several seeds, and compare.

    Both arms learn as many steps of as many images, from the same seeds: the manifest's own and those after it. Where
    sources are left out, the ratios of the others make up the whole, so that what people made is seen more often.

    Args:
        out: folder of all runs; None = ablations/ and the manifest's name.
        store: the shards' root, instead of the manifest's.
        without: the sources to leave out, "dataset/split/layer" or that and " task"; () = those of which machines made
            what is learned.
        device, readers: see `loop.train`.
        tell: says lines to a person.

    Raises:
        SynthgenError: nothing is synthetic, all is, or nothing is measured; what `loop.train` raises.
    """
    path = path.absolute()  # the manifests of the runs lie elsewhere, and their paths are relative to them
    manifest = load(path, store=store)
    manifest = manifest.model_copy(update={"store": manifest.store.absolute()})
    for key, remedy in (("mixture", "there is nothing to leave out"), ("eval", "nothing could be compared")):
        if not getattr(manifest, key):
            raise SynthgenError(f"{path} has no {key}: and so {remedy}; add it, as manifests/ show")
    with together(device) as here:
        checked = here.by_the_first(lambda: check(path, store=store, bar=bar))
        judged = judge(checked, without)
        if here.rank == 0:
            tell(*_plan(manifest, judged, seeds), "")
        place = out or Path("ablations") / manifest.name
        own = tuple((manifest.seed + i) % 2**63 for i in range(seeds))
        runs = {
            place / f"{arm}-seed-{seed}": _recipe(manifest, judged, arm, seed) for seed in own for arm in ARMS
        }  # fmt: skip
        texts = {run: _text(recipe) for run, recipe in runs.items()}

        def plan() -> None:
            for run, recipe in runs.items():  # all of them, before the first plan is another
                run_dir.earlier(run, recipe, kind=trainer.kind(recipe))
            remove_leftovers(place)
            for run, text in texts.items():
                write_text(_beside(run), text)

        here.by_the_first(plan)
        results = []
        for number, (run, text) in enumerate(texts.items(), 1):
            if here.rank == 0:
                tell(f"{number} of {len(texts)}: {run}")
            results.append(_measured(run, text, manifest, here, device, readers, bar))
        found = tuple(differences(results[::2], results[1::2]))
        if here.rank == 0:
            _save(place / "ablation.json", manifest, own, judged, found)
        compared = {(one.source, one.task) for one in found}
        lost = (f"{one.shards} {one.task}" for one in manifest.eval if (one.shards, one.task) not in compared)
        return Ablation(place, own, judged, found, tuple(lost), here.rank == 0)


def judge(checked: Checked, without: Sequence[str] = ()) -> tuple[Judged, ...]:
    """What of each source machines made, and which are left out.

    Raises:
        SynthgenError: `without` names what is not there; none would be left out, or all.
    """
    rows = [row for row in checked.rows if row.chance is not None]
    sources = [cast(Source, row.source) for row in rows]
    known = [name for source in sources for name in (source.shards, f"{source.shards} {source.task}")]
    for name in without:
        if name not in known:
            have = f" (have: {', '.join(dict.fromkeys(source.shards for source in sources))})"
            raise SynthgenError(f"--without {name} is no source of the mixture{did_you_mean(name, known) or have}")
    judged = []
    for source, row in zip(sources, rows, strict=True):
        made = tuple(machines(source, row.held, plugins.load(SHELF, source.task).METRIC))
        named = not {source.shards, f"{source.shards} {source.task}"}.isdisjoint(without)
        judged.append(Judged(source, made, named if without else bool(made)))
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


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} other sources"


def _plan(manifest: Manifest, judged: Sequence[Judged], seeds: int) -> Iterator[str]:
    """What is left out, and what that changes."""
    total = sum(one.source.ratio for one in judged)
    rest = sum(one.source.ratio for one in judged if not one.is_left_out)
    width = max(len(one.name) for one in judged)
    yield f"{'source':<{width}}      with   without  by machines"
    for one in judged:
        share = one.source.ratio / total
        other = "-" if one.is_left_out else f"{one.source.ratio / rest:.1%}"
        yield f"{one.name:<{width}}  {share:>8.1%}  {other:>8}  {', '.join(map(printable, one.made)) or '-'}"
    schedule = manifest.schedule
    yield (
        f"both learn {schedule.steps:,} steps of {schedule.batch_size} images from the same {seeds} "
        f"seed{'s' * (seeds != 1)}; without the sources that are left out, an image of the others is seen "
        f"{total / rest:.2g} times as often"
    )


def _recipe(manifest: Manifest, judged: Sequence[Judged], arm: str, seed: int) -> Manifest:
    """The manifest of a run."""
    mixture = tuple(one.source for one in judged if arm == "with" or not one.is_left_out)
    name = f"{manifest.name[:70]}-{arm}-seed-{seed}"
    return manifest.model_copy(update={"name": name, "seed": seed, "mixture": mixture})


def _text(recipe: Manifest) -> str:
    """As JSON, which is YAML."""
    return json.dumps(recipe.model_dump(mode="json", exclude_unset=True), indent=1, ensure_ascii=False) + "\n"


def _beside(run: Path) -> Path:
    """Where the manifest of a run lies."""
    return run.with_name(f"{run.name}.yaml")


def _measured(
    run: Path, text: str, manifest: Manifest, here: Ranks, device: str, readers: int | None, bar: OpenProgress
) -> list[Measured]:
    """What a run comes to after its last step; trained as far as it is not."""
    steps, path = manifest.schedule.steps, _beside(run)
    results = run_dir.results(run, steps)

    def ended() -> bool:
        begun = run / "manifest.yaml"
        same = begun.is_file() and begun.read_text(encoding="utf-8") == text
        there = same and results.is_file() and run_dir.checkpoint(run, steps).is_file()
        return there and read(results)[1]

    if not here.by_the_first(ended):
        done = trainer.train(path, out=run, device=device, workers=readers, bar=bar)
        if not done.measured:  # it had learned all, and was measured on other layers then, or by other rules
            own = manifest.readers.workers if readers is None else readers
            evaluate.run(
                done.checkpoint, path, out=results, device=device, workers=own, bar=bar,
                precision=manifest.schedule.precision,
            )  # fmt: skip

    return here.by_the_first(lambda: read(results)[0])


def _save(
    path: Path, manifest: Manifest, seeds: Sequence[int], judged: Sequence[Judged], found: Sequence[Difference]
) -> None:
    content: dict[str, Any] = {
        "manifest": manifest.name,
        "steps": manifest.schedule.steps,
        "seeds": list(seeds),
        "sources": [
            {"source": one.source.shards, "task": one.source.task, "ratio": one.source.ratio, "by_machines": one.made,
             "is_left_out": one.is_left_out}
            for one in judged
        ],
        "differences": [{**asdict(one), **one.reckoned()} for one in found],
    }  # fmt: skip
    with new_file(path, remedy="choose another --out") as temporary:
        temporary.write_text(printable_json(content), encoding="utf-8")
