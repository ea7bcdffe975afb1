"""Parameter groups of AdamW and the learning rate of each step (as in Mask2Former and Mask DINO)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from synthgen.dataloading.config import ScheduleConfig

#: Embedding tables that are not `nn.Embedding`. They have no weight decay, and neither do norms and scalars: a row that
#: is rarely used would otherwise decay to zero. "gamma" is the scale of a layer (LayerScale) in networks of timm.
_NO_DECAY_SUFFIXES = ("query_feat", "query_embed", "level_embed", "relative_position_bias_table", "pos_embed", "gamma")


def parameter_groups(
    module: nn.Module, schedule: ScheduleConfig, lr_by_prefix: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by learning rate and weight decay.

    Args:
        module: the network; parameters without `requires_grad` are left out.
        schedule: gives `lr` and `weight_decay`.
        lr_by_prefix: learning rates by prefix of parameter names; the others use `schedule.lr`. Parameters with rate 0
            are frozen and left out.

    Returns:
        Groups for AdamW; "initial_lr" is the base of `set_learning_rates`.
    """
    undecayed = {
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) or "norm" in type(part).__name__.lower()
        for own, _ in part.named_parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = next((rate for start, rate in lr_by_prefix.items() if name.startswith(start)), schedule.lr)
        free = name in undecayed or parameter.dim() == 0 or name.endswith(_NO_DECAY_SUFFIXES)
        if not rate:
            parameter.requires_grad_(False)
        else:
            groups.setdefault((rate, 0.0 if free else schedule.weight_decay), []).append(parameter)
    return [
        {"params": own, "lr": rate, "initial_lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()
    ]


def lr_factor(schedule: ScheduleConfig, step: int) -> float:
    """The factor of the learning rate at a step: linear warmup over `warmup_steps`, and the decay of the schedule."""
    warm = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    if schedule.lr_decay == "cosine":
        return warm * (1 + math.cos(math.pi * min(step / schedule.steps, 1))) / 2
    return warm * 0.1 ** sum(step >= share * schedule.steps for share in schedule.milestones)


def set_learning_rates(optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, step: int) -> None:
    """Set the learning rates of a step. They depend only on the step, so a checkpoint need not store them.

    Args:
        optimizer: an optimizer of `parameter_groups`; changed in place.
        schedule: gives the warm-up and the decay; see `lr_factor`.
        step: the step that comes next; see `lr_factor`.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lr_factor(schedule, step)
