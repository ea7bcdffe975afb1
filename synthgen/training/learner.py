"""Learners: what the trainer needs of a network and its losses. Contains MQ-Former's; the captioner has its own
module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from synthgen.checkpoints import build_network
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.config import ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import DistributedContext
from synthgen.evaluation.evaluate import evaluate_network
from synthgen.evaluation.results import EvalResult
from synthgen.models.mqformer.criterion import SetCriterion
from synthgen.models.mqformer.losses import PointSampling
from synthgen.progress import OpenProgress
from synthgen.training import prediction_view
from synthgen.training.optimizer import parameter_groups
from synthgen.training.targets import build_mask_targets

#: Keys of the manifest's `model` that may be paths.
_PATH_KEYS = ("backbone_weights", "text_encoder")


class Learner(Protocol):
    """A trainable network with its losses and evaluation.

    Attributes:
        kind: `Checkpoint.kind` of its checkpoints.
        module: the network.
        has_learned_masks: whether the network had been trained with masks when this process loaded it; see
            `checkpoint.Checkpoint`.
        sidecar_files: text files to copy to the folder of its checkpoints.
    """

    has_learned_masks: bool

    @property
    def kind(self) -> str: ...

    @property
    def module(self) -> nn.Module: ...

    @property
    def sidecar_files(self) -> tuple[Path, ...]: ...

    def model_config(self) -> dict[str, Any]:
        """The part of the manifest that describes the network, as JSON with absolute paths."""

    def param_groups(self, schedule: ScheduleConfig) -> list[dict[str, Any]]:
        """Parameter groups for AdamW, with the learning rates of `schedule`; see `optimizer.parameter_groups`."""

    def count_targets(self, batch: Batch) -> int:
        """The number of targets in a batch (objects or tokens), by which losses are normalized."""

    def compute_losses(self, batch: Batch, *, num_targets: float) -> dict[str, Tensor]:
        """Weighted losses by name; training minimizes their sum. Uses torch's global generator.

        Args:
            batch: on the CPU; in page-locked memory if the network is on a GPU.
            num_targets: targets in the step, averaged over processes; at least 1.
        """

    def evaluate(
        self, manifest: Manifest, context: DistributedContext, *, num_workers: int, progress: OpenProgress
    ) -> Sequence[EvalResult]:
        """Evaluate on the manifest's `eval`.

        Args:
            manifest: names the layers, in its `eval`.
            context: the processes of the run; all of them must call this.
            num_workers: data loader workers of each process.
            progress: opens a progress bar.
        """

    def draw_predictions(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:
        """A few images of `batch`, with predictions next to ground truth: uint8 [H, W, 3] each; may be empty."""


class LossModule(nn.Module):
    """The losses as a forward pass, as DistributedDataParallel requires.

    Args:
        learner: computes the losses; its network is the submodule `module`.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.module, self._learner = learner.module, learner

    def forward(self, batch: Batch, num_targets: float) -> dict[str, Tensor]:
        """See `Learner.compute_losses`."""
        return self._learner.compute_losses(batch, num_targets=num_targets)


def wrap_distributed(learner: Learner, context: DistributedContext) -> nn.Module:
    """The losses of a learner as a module whose gradients are averaged over processes.

    Args:
        learner: gives the network and the losses.
        context: the processes of the run, all of which must call this; with one process, nothing is averaged.
    """
    losses = LossModule(learner)
    if context.world_size == 1:
        return losses
    # Buffers never change. Newer versions of torch renamed the argument and warn about the old name.
    known = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(losses, **options)


class SegmentationLearner:
    """MQ-Former as configured by a manifest; see `Learner`.

    Args:
        manifest: gives the network's settings, the schedule and the mixture.
        device: where the network is trained.
    """

    kind = "mqformer"
    has_learned_masks = False
    sidecar_files: tuple[Path, ...] = ()

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        schedule, self._model = manifest.schedule, manifest.model
        self.module = (
            build_network.build_from_config(manifest.model, checkpointing=schedule.activation_checkpointing)
            .to(device)
            .train()
        )
        if schedule.compile:
            build_network.compile_layers(self.module)
        # Evaluation images have varying shapes, and each shape would be compiled anew.
        self._eager_mode = partial(torch.compiler.set_stance, "force_eager") if schedule.compile else nullcontext
        self._is_category_name = [build_network.has_category_names(source.task) for source in manifest.mixture]
        self._uses_bf16 = schedule.precision == "bf16"
        self._criterion = SetCriterion(sampling=PointSampling(num_points=schedule.mask_points))

    def model_config(self) -> dict[str, Any]:
        """The manifest's `model` without the initial weights."""
        return {
            key: str(Path(value).absolute()) if key in _PATH_KEYS and "/" in value else value
            for key, value in self._model.model_dump(mode="json", exclude={"weights"}).items()
        }

    def param_groups(self, schedule: ScheduleConfig) -> list[dict[str, Any]]:
        """Parameter groups for AdamW. By `schedule`, the pretrained backbone and text encoder have their own learning
        rates.
        """
        rates = {"backbone.": schedule.backbone_lr, "text_encoder.": schedule.text_encoder_lr}
        return parameter_groups(self.module, schedule, rates)

    def count_targets(self, batch: Batch) -> int:
        """The number of objects in `batch`."""
        return sum(len(target["labels"]) for target in batch.targets)

    def compute_losses(self, batch: Batch, *, num_targets: float) -> dict[str, Tensor]:
        """The losses "label", "box", "giou", "mask" and "dice" of all layers; see `SetCriterion`.

        Args:
            batch: as in `Learner.compute_losses`.
            num_targets: as in `Learner.compute_losses`; targets are objects.
        """
        device = next(self.module.parameters()).device
        asked = [target["texts"] for target in batch.targets]
        names = [self._is_category_name[source] for source in batch.source_ids]
        right = build_mask_targets(batch.targets, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._uses_bf16):
            found = self.module(
                batch.images.to(device, non_blocking=True), batch.padding_mask.to(device, non_blocking=True),
                asked, names, right,
            )  # fmt: skip
        return self._criterion(found, right, num_objects=num_targets)

    def draw_predictions(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:
        """See `prediction_view.draw_predictions`."""
        with self._eager_mode():
            return iter(
                [
                    *prediction_view.draw_predictions(
                        self.module, batch, [self._is_category_name[source] for source in batch.source_ids]
                    )
                ]
            )

    def evaluate(
        self, manifest: Manifest, context: DistributedContext, *, num_workers: int, progress: OpenProgress
    ) -> Sequence[EvalResult]:
        """See `evaluate_network`."""
        with self._eager_mode():
            return evaluate_network(
                self.module, manifest, device=context.device, num_workers=num_workers, rank=context.rank,
                world_size=context.world_size,
                precision=manifest.schedule.precision, progress=progress,
            )  # fmt: skip
