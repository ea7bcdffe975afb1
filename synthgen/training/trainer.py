"""The training loop. A run that was killed at any point resumes when the same command is run again.

All random numbers of a step follow from the manifest's seed, the step and the rank. Therefore the weights, the
optimizer state and the position in the data are sufficient to resume bit by bit.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from synthgen.checkpoints import checkpoint
from synthgen.checkpoints.build_network import collect_category_names
from synthgen.dataloading import summary
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.dataloading.mixture import plan_mixture
from synthgen.dataloading.train_loader import TrainLoader, merge_states
from synthgen.dataloading.worker_processes import StoppedWaitingError
from synthgen.distributed import DistributedContext, join_process_group
from synthgen.errors import SynthgenError, job_has_started
from synthgen.evaluation import results
from synthgen.evaluation.results import EvalResult
from synthgen.progress import NoProgress, OpenProgress
from synthgen.storage.atomic import write_text_atomic
from synthgen.training import resume, run_dir
from synthgen.training.box_segmenter_learner import BoxSegmenterLearner
from synthgen.training.captioner_learner import CaptionerLearner
from synthgen.training.ema import ModelEma
from synthgen.training.learner import Learner, SegmentationLearner, wrap_distributed
from synthgen.training.logger import MetricsLogger
from synthgen.training.nonfinite_loss import describe_nonfinite_step
from synthgen.training.optimizer import lr_factor, set_learning_rates
from synthgen.training.preemption import EXIT_CODE, SigtermHandler
from synthgen.training.report import (
    TrainResult,
    describe_device,
    format_progress,
    format_sample_stats,
    peak_memory_mib,
)

log = logging.getLogger(__name__)

#: Seconds between updates of the progress line.
_PROGRESS_INTERVAL_SECONDS = 2.0

#: Images of a step that are drawn with their predictions at each checkpoint.
_MAX_PICTURES = 4

#: The run ends after this many steps in a row with non-finite gradients.
_MAX_NONFINITE_STEPS = 10


def train(
    manifest_path: Path,
    *,
    out: Path | None = None,
    store: Path | None = None,
    device: str = "auto",
    num_workers: int | None = None,
    lock_timeout: float = 15.0,
    progress: OpenProgress = NoProgress,
) -> TrainResult:
    """Train what a manifest describes, or resume if `out` contains a run of the same manifest.

    Args:
        manifest_path: a YAML file with `mixture`.
        out: the run directory; None = runs/ and the manifest's name.
        store: root of the shards, instead of the manifest's.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        num_workers: data loader workers per training process, instead of the manifest's.
        lock_timeout: seconds to wait for another process that trains in the directory. Data loader workers of a killed
            process hold the lock until they notice.
        progress: creates progress bars.

    Raises:
        SynthgenError: the manifest is invalid; the directory belongs to another run or is not writable. With exit code
            1: the loss is not finite, a data loader worker died, or the disk is full.
    """
    with join_process_group(device) as context, ExitStack() as held:
        checked = context.on_rank0(lambda: check_manifest(manifest_path, store=store, open_progress=progress))
        manifest = load_manifest(manifest_path, store=store)
        if not manifest.mixture:
            raise SynthgenError(f"{manifest_path} has no mixture: to learn from; add one, or use `synthgen evaluate`")
        run = out or Path("runs") / manifest.name
        resumed = context.on_rank0(lambda: run_dir.latest_checkpoint(run))
        # Before the directory is created, because weights may be missing.
        learner = _build_learner(manifest, context, resumed)

        def begin() -> Path | None:
            held.enter_context(run_dir.lock_run_dir(run, lock_timeout=lock_timeout))
            run_dir.init_run_dir(
                run,
                manifest_path,
                manifest,
                kind=learner.kind,
                world_size=context.world_size,
                device=describe_device(context.device),
            )
            write_text_atomic(
                run / "checked.txt", "\n".join(summary.format_report(checked)) + "\n", remedy=run_dir.REMEDY
            )
            if any(source.stats.num_stale_shards for source in checked.sources):
                log.warning("some layers are stale, their inputs have changed: `synthgen check` names them")
            for file in learner.sidecar_files:
                write_text_atomic(run / file.name, file.read_text(encoding="utf-8"), remedy=run_dir.REMEDY)
            return run_dir.latest_checkpoint(run)

        last = context.on_rank0(begin)  # other ranks may see an older one, because file systems cache directories
        own = manifest.dataloader.num_workers if num_workers is None else num_workers
        one = Trainer(manifest, run, learner, context, own, progress, last)
        with job_has_started():
            return one.run()


def checkpoint_kind(manifest: Manifest) -> str:
    """`Checkpoint.kind` of the checkpoints of a manifest's runs."""
    if manifest.captioner is not None:
        return CaptionerLearner.kind
    return SegmentationLearner.kind if manifest.box_segmenter is None else BoxSegmenterLearner.kind


def _build_learner(manifest: Manifest, context: DistributedContext, resumed: Path | None = None) -> Learner:
    torch.manual_seed(_derive_seed(manifest.seed, "weights"))  # for weights that are not pretrained
    if manifest.captioner is not None:
        return CaptionerLearner(manifest, context.device)
    if manifest.box_segmenter is not None:
        return BoxSegmenterLearner(manifest, context.device, resumed)
    learner = SegmentationLearner(manifest, context.device)
    if resumed is None and manifest.model.weights is not None:
        learner.has_learned_masks = checkpoint.load_initial_weights(learner.module, Path(manifest.model.weights))
    return learner


class Trainer:
    """The state of a run, and its training step.

    The run trains `learner` as `manifest` says, in the run directory `folder` and in the processes of `context`. Each
    process has `num_workers` data loader workers, and rank 0 shows `progress`. `last_checkpoint` is the checkpoint to
    resume from; None = the run begins.
    """

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        learner: Learner,
        context: DistributedContext,
        num_workers: int,
        progress: OpenProgress,
        last_checkpoint: Path | None,
    ) -> None:
        schedule = manifest.schedule
        portion, rest = divmod(schedule.batch_size, context.world_size * schedule.accumulation_steps)
        if rest or not portion:
            raise SynthgenError(
                f"schedule.batch_size {schedule.batch_size} is not divisible by {context.world_size} processes times "
                f"accumulation_steps {schedule.accumulation_steps}; change one of them"
            )
        self._manifest, self._schedule, self._folder = manifest, schedule, folder
        self._learner, self._context = learner, context
        self._open_progress = progress if context.rank == 0 else NoProgress
        self._micro_batch_size, self._num_workers = portion, num_workers
        self._optimizer = torch.optim.AdamW(learner.param_groups(schedule))
        self._ema = ModelEma(learner.module, schedule.ema_decay) if schedule.ema_decay else None
        self._step, self._best_score = 0, -math.inf
        self._sigterm_handler, self._is_preempted = SigtermHandler(), False
        self._nonfinite_steps = 0  # in a row
        self._loader_state: Mapping[str, Any] | None = None
        if last_checkpoint is not None:
            found = resume.restore_training_state(last_checkpoint, learner, self._optimizer, self._ema)
            self._step, self._loader_state, self._best_score, self._nonfinite_steps = (
                found.step,
                found.loader_state,
                found.best_score,
                found.nonfinite_steps,
            )
            if len(set(context.all_gather(self._step))) > 1:
                raise RuntimeError("processes go on from different steps")
        self._loss_module = wrap_distributed(learner, context)
        self._mixture_plan = plan_mixture(manifest)

    def run(self) -> TrainResult:
        """Run all remaining steps, and evaluate after the last one."""
        first, schedule = self._step, self._schedule
        measured: tuple[EvalResult, ...] = ()
        measured_as = run_dir.results_path(self._folder, first)
        is_eval_missing = bool(first) and self._is_eval_due() and not self._context.on_rank0(measured_as.exists)
        with ExitStack() as stack:
            stack.enter_context(self._sigterm_handler)
            loader = stack.enter_context(self._build_loader())
            journal = None
            if self._context.rank == 0:
                journal = stack.enter_context(MetricsLogger(self._folder, first, repeats_evaluation=is_eval_missing))
            left = (schedule.steps - first) * schedule.batch_size
            progress = stack.enter_context(self._open_progress("training", left, "images"))
            last_note_time = 0.0
            lines = self._save_seen(loader) if first == schedule.steps else []
            if is_eval_missing:  # it was interrupted
                measured = self._evaluate(loader, journal)
            for step in range(first, schedule.steps):
                began = time.monotonic()
                portions = self._take_batches(loader)
                waited = time.monotonic() - began
                values = self._train_step(step, portions)
                self._step = step + 1
                seconds = time.monotonic() - began
                values |= {"images_per_s": schedule.batch_size / seconds, "data_share": waited / seconds}
                values["memory_mib"] = peak_memory_mib(self._context.device)
                if journal is not None:
                    journal.log_metrics(step, values)
                note = (
                    format_progress(values) if time.monotonic() - last_note_time > _PROGRESS_INTERVAL_SECONDS else None
                )
                last_note_time = time.monotonic() if note else last_note_time
                progress.advance(schedule.batch_size, note)
                due = self._is_eval_due()
                ends = self._step == schedule.steps
                if due or ends or self._is_preempted or self._step % schedule.checkpoint_every == 0:
                    self._save_checkpoint(loader)  # before the evaluation, which may fail
                    if journal is not None and not self._is_preempted:
                        pictures = chain.from_iterable(map(self._learner.draw_predictions, portions))
                        for i, picture in enumerate(islice(pictures, _MAX_PICTURES)):
                            journal.log_image(step, f"target and prediction/{i}", picture)
                if self._is_preempted and not ends:
                    self._exit_preempted()
                if ends:
                    lines = self._save_seen(loader)  # before the results, which mark the run as done
                if due:
                    measured = self._evaluate(loader, journal)
        best, last = self._folder / "best.pt", run_dir.checkpoint_path(self._folder, self._step)
        kept = best if best.exists() else None
        return TrainResult(
            self._folder, last, kept, self._step - first, measured, tuple(lines), self._context.rank == 0
        )

    def _save_seen(self, loader: TrainLoader) -> list[str]:
        """Write what the run has seen; returns the lines."""
        seen = merge_states(self._context.all_gather(loader.state_dict()))["seen"]
        lines = format_sample_stats(self._manifest, seen)
        if self._context.rank == 0:
            write_text_atomic(self._folder / "seen.txt", "\n".join(lines) + "\n", remedy=run_dir.REMEDY)
        return lines

    def _build_loader(self) -> TrainLoader:
        return TrainLoader(
            self._manifest, rank=self._context.rank, world_size=self._context.world_size,
            batch_size=self._micro_batch_size, batches_per_step=self._schedule.accumulation_steps,
            group_by_size=self._schedule.group_by_size,
            num_workers=self._num_workers, state=self._loader_state, plan=self._mixture_plan,
            pin_memory=self._context.device.type == "cuda", is_stopping=lambda: self._sigterm_handler.received,
        )  # fmt: skip

    def _take_batches(self, loader: TrainLoader) -> list[Batch]:
        """The batches of the next step."""
        try:
            return loader.next_step()
        except StoppedWaitingError:
            # The place in the data is that of the last step. Other processes cannot take part, because they wait in a
            # step.
            if self._context.world_size == 1 and self._step:
                self._save_checkpoint(loader)
            log.warning(
                "told to end (SIGTERM) while no batch came, after step %d; the same command continues from the last "
                "checkpoint",
                self._step,
            )
            raise SystemExit(EXIT_CODE) from None

    def _train_step(self, step: int, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """Train one step; return the losses by name, "loss", "gradient" (norm before clipping) and "lr".

        A step with finite losses and a non-finite gradient, which happens in half precision, is skipped, as with
        torch's GradScaler. It returns "unsound" instead of "gradient".
        """
        torch.manual_seed(_derive_seed(self._manifest.seed, f"{step}/{self._context.rank}"))
        set_learning_rates(self._optimizer, self._schedule, step)
        self._optimizer.zero_grad(set_to_none=True)
        objects = (
            self._context.all_reduce_sum(sum(self._learner.count_targets(batch) for batch in micro_batches))
            / self._context.world_size
        )
        totals: dict[str, Tensor] = {}
        for i, batch in enumerate(micro_batches):
            later = self._context.world_size > 1 and i + 1 < len(micro_batches)
            with self._loss_module.no_sync() if later else nullcontext():  # type: ignore[operator]
                losses = self._loss_module(batch, max(objects, 1.0))
                torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + loss.detach()
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._schedule.max_grad_norm or math.inf)
        # If one process is preempted, all of them stop.
        quits = torch.full_like(norm, float(self._sigterm_handler.received))
        *found, gradient, quitting = self._context.all_reduce_mean(torch.stack([*totals.values(), norm, quits]))
        self._is_preempted = quitting > 0
        values = {"loss": sum(found), **dict(zip(totals, found, strict=True))}
        self._nonfinite_steps = 0 if math.isfinite(gradient) else self._nonfinite_steps + 1
        if self._nonfinite_steps >= _MAX_NONFINITE_STEPS or not all(map(math.isfinite, values.values())):
            keys = self._context.all_gather(
                [target["image_key"] for batch in micro_batches for target in batch.targets]
            )
            values["gradient"] = gradient
            raise self._context.raise_on_rank0(
                SynthgenError(describe_nonfinite_step(step, values, keys, self._manifest, self._folder))
            )
        values["lr"] = self._schedule.lr * lr_factor(self._schedule, step)
        if self._nonfinite_steps:  # equal in all processes, because it is reduced
            if self._nonfinite_steps == 1 and self._context.rank == 0:
                log.warning("step %d: the gradient is no number, though its losses are; it changes nothing", step)
            return {**values, "unsound": 1.0}
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update()
        return {**values, "gradient": gradient}

    def _exit_preempted(self) -> NoReturn:
        if self._context.rank == 0:
            log.warning("told to end (SIGTERM) after step %d, which is kept; the same command continues", self._step)
        raise SystemExit(EXIT_CODE)

    def _is_eval_due(self) -> bool:
        """Whether an evaluation is due after the current step."""
        every = self._schedule.evaluate_every or self._schedule.steps
        return bool(self._manifest.eval) and (self._step % every == 0 or self._step == self._schedule.steps)

    def _evaluate(self, loader: TrainLoader, logger: MetricsLogger | None) -> tuple[EvalResult, ...]:
        """Evaluate and update the best checkpoint. The results are written last and mark the evaluation as done."""
        # All ranks exit together; otherwise some would wait for others.
        if any(self._context.all_gather(self._sigterm_handler.received)):
            self._exit_preempted()
        self._learner.module.eval()
        try:
            with (
                self._sigterm_handler.exit_immediately(),
                self._ema.swapped() if self._ema is not None else nullcontext(),
            ):
                found = tuple(
                    self._learner.evaluate(
                        self._manifest, self._context, num_workers=self._num_workers, progress=self._open_progress
                    )
                )
        except SystemExit as why:
            if why.code != EXIT_CODE:  # rank 0 has reported the error
                raise
            self._exit_preempted()
        self._learner.module.train()
        score = sum(one.values[one.metric] for one in found) / len(found)
        # The score is equal if the run was killed before the link was created.
        if self._context.on_rank0(lambda: score >= self._best_score):
            self._best_score = score
            self._save_checkpoint(loader, is_best=True)
        if logger is not None:
            for one in found:
                logger.log_metrics(self._step - 1, one.values, prefix=one.source)
            results.save_results(run_dir.results_path(self._folder, self._step), found, step=self._step)
        return found

    def _save_checkpoint(self, loader: TrainLoader, *, is_best: bool = False) -> None:
        """Write a checkpoint."""
        place = merge_states(self._context.all_gather(loader.state_dict()))
        if self._context.rank:
            return
        weights, training = resume.collect_training_state(
            self._learner, self._optimizer, self._ema, place, self._best_score, self._nonfinite_steps
        )
        learner, known = (
            self._learner,
            collect_category_names(self._manifest.mixture, self._mixture_plan.source_indexes),
        )
        content = checkpoint.Checkpoint(
            learner.kind, self._step, learner.model_config(), known, weights, self._manifest.eval_size, training,
            has_learned_masks=learner.has_learned_masks or resume.has_seen_masks(place),
        )  # fmt: skip
        path = run_dir.checkpoint_path(self._folder, self._step)
        checkpoint.save_checkpoint(path, content)
        if is_best:
            run_dir.link_best_checkpoint(self._folder, path)
        run_dir.delete_old_checkpoints(self._folder, self._schedule.keep_checkpoints)


def _derive_seed(seed: int, purpose: str) -> int:
    """A 64-bit seed for one use."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1
