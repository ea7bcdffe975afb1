"""What the loop trains: a module, and what of a batch is its loss. This is MQ-Former's; the captioner has its own."""

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
from synthgen.dataloading.config import Schedule
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import Ranks
from synthgen.evaluation.evaluate import evaluate
from synthgen.evaluation.results import Measured
from synthgen.models.mqformer.criterion import total_losses
from synthgen.models.mqformer.losses import Sampling
from synthgen.models.mqformer.matcher import Weights
from synthgen.progress import OpenProgress
from synthgen.training import prediction_view
from synthgen.training.optimizer import parameter_groups
from synthgen.training.targets import truths

#: What of `model` may be a path.
_PATHS = ("backbone_weights", "text_encoder")


class Learner(Protocol):
    """What can be trained.

    Attributes:
        kind: what its checkpoints say they are of.
        module: its weights.
        masks: whether these had learned a mask when this process began with them; see `checkpoint.Checkpoint`.
        beside: files of text that are to lie beside its checkpoints.
    """

    masks: bool

    @property
    def kind(self) -> str: ...

    @property
    def module(self) -> nn.Module: ...

    @property
    def beside(self) -> tuple[Path, ...]: ...

    def section(self) -> dict[str, Any]:
        """What of the manifest says what the module is, as JSON has it, with absolute paths."""

    def groups(self, schedule: Schedule) -> list[dict[str, Any]]:
        """AdamW's groups; see `optimiser.parameter_groups`."""

    def objects(self, batch: Batch) -> int:
        """What its losses are divided by: objects, or words."""

    def losses(self, batch: Batch, *, objects: float) -> dict[str, Tensor]:
        """Losses by name, weighted; their sum is made smaller. Draws are the global generator's.

        Args:
            objects: how many there are in a step, averaged over the processes; at least 1.
        """

    def measured(self, manifest: Manifest, here: Ranks, *, workers: int, bar: OpenProgress) -> Sequence[Measured]:
        """Evaluate on the manifest's `eval`."""

    def pictures(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:
        """What it finds in a batch, beside what is to be found: uint8 [H, W, 3] each; a few, or none."""


class Losses(nn.Module):
    """Losses as a forward pass: what DistributedDataParallel wraps."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.module, self._learner = learner.module, learner

    def forward(self, batch: Batch, objects: float) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        return self._learner.losses(batch, objects=objects)


def in_ranks(learner: Learner, here: Ranks) -> nn.Module:
    """The losses of a learner, whose gradients are averaged over the processes."""
    losses = Losses(learner)
    if here.world == 1:
        return losses
    # Buffers never change; newer versions of torch have another name for it, and warn of the old one.
    known = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(losses, **options)


class Segmentation:
    """MQ-Former as a manifest describes it; see `Learner`."""

    kind = "mqformer"
    masks = False
    beside: tuple[Path, ...] = ()

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        schedule, self._model = manifest.schedule, manifest.model
        self.module = build_network.build(manifest.model, checkpointing=schedule.checkpointing).to(device).train()
        if schedule.compile:
            build_network.compile_layers(self.module)
        # Images that are looked at are of any shape, and each would be compiled anew.
        self._as_it_is = partial(torch.compiler.set_stance, "force_eager") if schedule.compile else nullcontext
        self._names = [build_network.is_names(source.task) for source in manifest.mixture]
        self._half = schedule.precision == "bf16"
        self._weights, self._sampling = Weights(), Sampling(points=schedule.mask_points)

    def section(self) -> dict[str, Any]:
        """The manifest's `model`, without what it began with."""
        return {
            key: str(Path(said).absolute()) if key in _PATHS and "/" in said else said
            for key, said in self._model.model_dump(mode="json", exclude={"weights"}).items()
        }

    def groups(self, schedule: Schedule) -> list[dict[str, Any]]:
        """The backbone and the text encoder came with weights: they have rates of their own."""
        rates = {"backbone.": schedule.backbone_lr, "text_encoder.": schedule.text_encoder_lr}
        return parameter_groups(self.module, schedule, rates)

    def objects(self, batch: Batch) -> int:
        """All that are to be found."""
        return sum(len(target["labels"]) for target in batch.targets)

    def losses(self, batch: Batch, *, objects: float) -> dict[str, Tensor]:
        """Of all layers together: "label", "box", "giou", "mask", "dice"; with denoising these after "dn_", too."""
        device = next(self.module.parameters()).device
        asked = [target["texts"] for target in batch.targets]
        names = [self._names[source] for source in batch.sources]
        right = truths(batch.targets, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            found = self.module(
                batch.images.to(device, non_blocking=True), batch.padding_mask.to(device, non_blocking=True),
                asked, names, right,
            )  # fmt: skip
        return total_losses(found, right, objects=objects, weights=self._weights, sampling=self._sampling)

    def pictures(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:
        """See `beside`."""
        with self._as_it_is():
            return iter(
                [*prediction_view.pictures(self.module, batch, [self._names[source] for source in batch.sources])]
            )

    def measured(self, manifest: Manifest, here: Ranks, *, workers: int, bar: OpenProgress) -> Sequence[Measured]:
        """See `evaluate`."""
        with self._as_it_is():
            return evaluate(
                self.module, manifest, device=here.device, workers=workers, rank=here.rank, world=here.world,
                precision=manifest.schedule.precision, bar=bar,
            )  # fmt: skip
