"""A network to train for a step, wherever it lies: a manifest, a batch, and what the loop does of one step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fakes import train_layers
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.config import ModelConfig, ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.training.learner import Learner, LossModule


def small_manifest(root: Path, *, precision: str = "fp32", checkpointing: bool = False, **model: Any) -> Manifest:
    said = {"captions": (train_layers.phrase("the cat"),)}
    train_layers.commit(root, [train_layers.row(i, train_layers.annotation(i, **said)) for i in range(4)])
    kinds = {"mixed": ("learnable", "conditional"), "learnable": ("learnable",), "conditional": ("conditional",)}
    counts = {f"{kind}_queries": 4 for kind in kinds[model.get("queries", "mixed")]}
    tiny = {"backbone": "tiny", "text_encoder": "tiny", "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 1}
    manifest = train_layers.manifest(
        root,
        train_layers.source(root, task="panoptic"),
        train_layers.source(root, task="referring"),
        model=ModelConfig(**{**tiny, **model}, **counts),
        schedule=ScheduleConfig(
            batch_size=2, mask_points=16, precision=precision, activation_checkpointing=checkpointing
        ),
    )
    # In bf16 torch's convolution of a single pixel has gradients on the CPU that are no numbers, now and then.
    return manifest.model_copy(update={"augment": replace(manifest.augment, size=64)})


def training_step(learner: Learner, batch: Batch, schedule: ScheduleConfig) -> dict[str, float]:
    """What the loop does of one step; the losses, and the sum of all weights after it."""
    optimiser = torch.optim.AdamW(learner.param_groups(schedule), eps=1e-2)
    torch.manual_seed(1)
    losses = LossModule(learner)(batch, max(1, learner.count_targets(batch)))
    torch.stack(list(losses.values())).sum().backward()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, 0.1)
    optimiser.step()
    left = sum(p.detach().abs().sum() for p in parameters)
    return {name: float(loss.detach()) for name, loss in {**losses, "norm": norm, "weights": left}.items()}


def load_batch(manifest: Manifest, device: torch.device) -> Batch:
    """A batch; for a GPU by way of page-locked memory."""
    with TrainLoader(manifest, batch_size=2, num_workers=0, pin_memory=device.type == "cuda") as loader:
        return next(loader)
