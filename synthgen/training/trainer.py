"""The training loop: batches in, checkpoints out; killed anywhere, the same command goes on where it was.

All that a step draws at random follows from the manifest's seed, the step and the process, so that nothing but
weights, the optimiser's state and the place in the data need be kept to go on bit for bit.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from synthgen.checkpoints import checkpoint
from synthgen.checkpoints.build_network import learned_names
from synthgen.dataloading import summary
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest, load
from synthgen.dataloading.manifest_check import check
from synthgen.dataloading.mixture import planned
from synthgen.dataloading.train_loader import Loader, joined
from synthgen.distributed import Ranks, together
from synthgen.errors import SynthgenError
from synthgen.evaluation import results
from synthgen.evaluation.results import Measured
from synthgen.progress import NoProgress, OpenProgress
from synthgen.storage.atomic import write_text
from synthgen.training import resume, run_dir
from synthgen.training.captioner_learner import Captioning
from synthgen.training.learner import Learner, Segmentation, in_ranks
from synthgen.training.logger import Journal
from synthgen.training.optimizer import Average, set_rates, share_of_rate
from synthgen.training.preemption import EXIT, Notice
from synthgen.training.report import Trained, device_words, memory, not_finite, note, seen_lines

log = logging.getLogger(__name__)

#: Seconds between two changes of what the progress line says.
_EVERY = 2.0

#: The run ends with so many steps in a row whose gradients are no numbers.
_UNSOUND = 10


def train(
    path: Path,
    *,
    out: Path | None = None,
    store: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    patience: float = 15.0,
    bar: OpenProgress = NoProgress,
) -> Trained:
    """Train what a manifest describes; or go on, where `out` holds a run of the same manifest.

    Args:
        out: the run's folder; None = runs/ and the manifest's name.
        store: the shards' root, instead of the manifest's.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        workers: reader processes of each training process, instead of the manifest's.
        patience: seconds that another process which trains in the folder is waited for: readers of one that was killed
            hold it until they see that.
        bar: makes what counts progress for a person.

    Raises:
        SynthgenError: the manifest has mistakes; the folder is another run's or cannot be written; a loss is no number;
            a reader died.
    """
    with together(device) as here, ExitStack() as held:
        checked = here.by_the_first(lambda: check(path, store=store, bar=bar))
        manifest = load(path, store=store)
        if not manifest.mixture:
            raise SynthgenError(f"{path} has no mixture: to learn from; add one, or use `synthgen evaluate`")
        run = out or Path("runs") / manifest.name
        begins = here.by_the_first(lambda: run_dir.newest(run)) is None
        learner = _learner(manifest, here, begins=begins)  # before the folder is: what it needs may not be there

        def begin() -> Path | None:
            held.enter_context(run_dir.alone(run, patience=patience))
            run_dir.begin(run, path, manifest, kind=learner.kind, world=here.world, device=device_words(here.device))
            write_text(run / "checked.txt", "\n".join(summary.checked(checked)) + "\n", remedy=run_dir.REMEDY)
            for file in learner.beside:
                write_text(run / file.name, file.read_text(encoding="utf-8"), remedy=run_dir.REMEDY)
            return run_dir.newest(run)

        last = here.by_the_first(begin)  # others may see an older one, where folders are remembered for a while
        own = manifest.readers.workers if workers is None else workers
        return _Run(manifest, run, learner, here, own, bar, last).go()


def kind(manifest: Manifest) -> str:
    """Of what the checkpoints of a manifest's runs are."""
    return Segmentation.kind if manifest.captioner is None else Captioning.kind


def _learner(manifest: Manifest, here: Ranks, *, begins: bool = True) -> Learner:
    torch.manual_seed(_seed(manifest.seed, "weights"))  # those that come from nowhere
    if manifest.captioner is not None:
        return Captioning(manifest, here.device)
    learner = Segmentation(manifest, here.device)
    if begins and manifest.model.weights is not None:
        learner.masks = checkpoint.begin_with(learner.module, Path(manifest.model.weights))
    return learner


class _Run:
    """The state of a run between two steps, and how to come from one to the next."""

    def __init__(
        self,
        manifest: Manifest,
        run: Path,
        learner: Learner,
        here: Ranks,
        workers: int,
        bar: OpenProgress,
        last: Path | None,
    ) -> None:
        schedule = manifest.schedule
        portion, rest = divmod(schedule.batch_size, here.world * schedule.accumulate)
        if rest or not portion:
            raise SynthgenError(
                f"schedule.batch_size {schedule.batch_size} is not divisible by {here.world} processes times "
                f"accumulate {schedule.accumulate}; change one of them"
            )
        self._manifest, self._schedule, self._folder = manifest, schedule, run
        self._learner, self._here = learner, here
        self._bar = bar if here.rank == 0 else NoProgress
        self._portion, self._workers = portion, workers
        self._optimiser = torch.optim.AdamW(learner.groups(schedule))
        self._average = Average(learner.module, schedule.ema) if schedule.ema else None
        self._step, self._best = 0, -math.inf
        self._notice, self._quits = Notice(), False
        self._unsound = 0  # steps in a row
        self._place: Mapping[str, Any] | None = None
        if last is not None:
            found = resume.resume(last, learner, self._optimiser, self._average)
            self._step, self._place, self._best, self._unsound = found.step, found.place, found.best, found.unsound
            if len(set(here.gathered(self._step))) > 1:
                raise RuntimeError("processes go on from different steps")
        self._forward = in_ranks(learner, here)
        self._plan = planned(manifest)

    def go(self) -> Trained:
        """All steps that are left, and an evaluation after the last."""
        first, schedule = self._step, self._schedule
        measured: tuple[Measured, ...] = ()
        with ExitStack() as stack:
            stack.enter_context(self._notice)
            loader = stack.enter_context(self._loader())
            journal = stack.enter_context(Journal(self._folder, first)) if self._here.rank == 0 else None
            left = (schedule.steps - first) * schedule.batch_size
            progress = stack.enter_context(self._bar("training", left, "images"))
            told = 0.0
            measured_as = run_dir.results(self._folder, first)
            if first and self._is_due() and not self._here.by_the_first(measured_as.exists):
                measured = self._evaluate(loader, journal)  # where it was broken off
            for step in range(first, schedule.steps):
                began = time.monotonic()
                portions = [next(loader) for _ in range(schedule.accumulate)]
                waited = time.monotonic() - began
                values = self._learn(step, portions)
                self._step = step + 1
                seconds = time.monotonic() - began
                values |= {"images_per_s": schedule.batch_size / seconds, "data_share": waited / seconds}
                values["memory_mib"] = memory(self._here.device)
                if journal is not None:
                    journal.write(step, values)
                said = note(values) if time.monotonic() - told > _EVERY else None
                told = time.monotonic() if said else told
                progress.advance(schedule.batch_size, said)
                due = self._is_due()
                ends = self._step == schedule.steps
                if due or ends or self._quits or self._step % schedule.checkpoint_every == 0:
                    self._save(loader)  # before it is measured, which may fail where learning does not
                    if journal is not None and not self._quits:
                        for i, picture in enumerate(self._learner.pictures(portions[0])):
                            journal.picture(step, f"target and prediction/{i}", picture)
                if self._quits and not ends:
                    self._quit()
                if due:
                    measured = self._evaluate(loader, journal)
            seen = joined(self._here.gathered(loader.state()))["seen"]
        lines = seen_lines(self._manifest, seen)
        if self._here.rank == 0:
            write_text(self._folder / "seen.txt", "\n".join(lines) + "\n")
        best, last = self._folder / "best.pt", run_dir.checkpoint(self._folder, self._step)
        kept = best if best.exists() else None
        return Trained(self._folder, last, kept, self._step - first, measured, tuple(lines), self._here.rank == 0)

    def _loader(self) -> Loader:
        return Loader(
            self._manifest, rank=self._here.rank, world=self._here.world, batch_size=self._portion,
            workers=self._workers, state=self._place, plan=self._plan, pin_memory=self._here.device.type == "cuda",
        )  # fmt: skip

    def _learn(self, step: int, portions: Sequence[Batch]) -> dict[str, float]:
        """One step; returns the losses of all processes by name, "loss", "gradient" (before clipping) and "lr".

        A gradient that is no number where the losses are numbers, as half precision has it now and then, changes
        nothing, as with torch's GradScaler: instead of "gradient" there is "unsound" then.
        """
        torch.manual_seed(_seed(self._manifest.seed, f"{step}/{self._here.rank}"))
        set_rates(self._optimiser, self._schedule, step)
        self._optimiser.zero_grad(set_to_none=True)
        objects = self._here.summed(sum(self._learner.objects(batch) for batch in portions)) / self._here.world
        totals: dict[str, Tensor] = {}
        for i, batch in enumerate(portions):
            later = self._here.world > 1 and i + 1 < len(portions)
            with self._forward.no_sync() if later else nullcontext():  # type: ignore[operator]
                losses = self._forward(batch, max(objects, 1.0))
                torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + loss.detach()
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._schedule.clip or math.inf)
        quits = torch.full_like(norm, float(self._notice.given))  # of one process, and all of them end
        *found, gradient, quitting = self._here.averaged(torch.stack([*totals.values(), norm, quits]))
        self._quits = quitting > 0
        values = {"loss": sum(found), **dict(zip(totals, found, strict=True))}
        self._unsound = 0 if math.isfinite(gradient) else self._unsound + 1
        if self._unsound >= _UNSOUND or not all(map(math.isfinite, values.values())):
            keys = self._here.gathered([target["image_key"] for batch in portions for target in batch.targets])
            values["gradient"] = gradient
            raise self._here.once(SynthgenError(not_finite(step, values, keys, self._manifest, self._folder)))
        values["lr"] = self._schedule.lr * share_of_rate(self._schedule, step)
        if self._unsound:  # in all processes, as it is one number
            if self._unsound == 1 and self._here.rank == 0:
                log.warning("step %d: the gradient is no number, though its losses are; it changes nothing", step)
            return {**values, "unsound": 1.0}
        self._optimiser.step()
        if self._average is not None:
            self._average.update()
        return {**values, "gradient": gradient}

    def _quit(self) -> NoReturn:
        if self._here.rank == 0:
            log.warning("told to end (SIGTERM) after step %d, which is kept; the same command continues", self._step)
        raise SystemExit(EXIT)

    def _is_due(self) -> bool:
        """Whether what was learned so far is to be measured."""
        every = self._schedule.evaluate_every or self._schedule.steps
        return bool(self._manifest.eval) and (self._step % every == 0 or self._step == self._schedule.steps)

    def _evaluate(self, loader: Loader, journal: Journal | None) -> tuple[Measured, ...]:
        """Measure it, and keep it as the best, where it is; the results are written last: then it is done."""
        if any(self._here.gathered(self._notice.given)):  # all end, or some would wait for the others
            self._quit()
        self._learner.module.eval()
        try:
            with self._notice.obeyed(), self._average.swapped() if self._average is not None else nullcontext():
                found = tuple(self._learner.measured(self._manifest, self._here, workers=self._workers, bar=self._bar))
        except SystemExit as why:
            if why.code != EXIT:  # the first process has said why
                raise
            self._quit()
        self._learner.module.train()
        score = sum(one.values[one.metric] for one in found) / len(found)
        if self._here.by_the_first(lambda: score >= self._best):  # as good: it was killed before it had the name
            self._best = score
            self._save(loader, is_best=True)
        if journal is not None:
            for one in found:
                journal.write(self._step - 1, one.values, under=one.source)
            results.save(run_dir.results(self._folder, self._step), found, step=self._step)
        return found

    def _save(self, loader: Loader, *, is_best: bool = False) -> None:
        """Write a checkpoint."""
        place = joined(self._here.gathered(loader.state()))
        if self._here.rank:
            return
        weights, training = resume.training(
            self._learner, self._optimiser, self._average, place, self._best, self._unsound
        )
        learner, known = self._learner, learned_names(self._manifest.mixture, self._plan.taken)
        content = checkpoint.Checkpoint(
            learner.kind, self._step, learner.section(), known, weights, self._manifest.eval_size, training,
            masks=learner.masks or resume.saw_masks(place),
        )  # fmt: skip
        path = run_dir.checkpoint(self._folder, self._step)
        checkpoint.save(path, content)
        if is_best:
            run_dir.best(self._folder, path)
        run_dir.tidy(self._folder, self._schedule.keep)


def _seed(seed: int, what: str) -> int:
    """64 bits for what is drawn at one place."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{what}".encode()).digest()[:8], "big") >> 1
