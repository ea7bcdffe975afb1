"""Batch norms of backbones, frozen, as in detectron2."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def freeze_batch_norms(network: nn.Module) -> None:
    """Replace each BatchNorm2d of `network`, in place, also those of timm with a joined activation.

    Args:
        network: not itself a BatchNorm.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and child.track_running_stats:
                setattr(parent, name, FrozenBatchNorm(child))


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and scales: batches are too small and too mixed to estimate them.

    The output has the dtype of the input. torchvision's `FrozenBatchNorm2d` gives float32 for bfloat16, which keeps 1.7
    times the activations of a ResNet-50 for the backward pass.

    `weight`, `bias`, `running_mean` and `running_var` are float32 [channels].

    Args:
        norm: gives the statistics, which it must have, the scales and the shifts. A dropout and an activation that timm
            joins to a norm are kept.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        ones = torch.ones(norm.num_features)
        self.register_buffer("weight", norm.weight.detach().clone() if norm.affine else ones)
        self.register_buffer("bias", norm.bias.detach().clone() if norm.affine else 0 * ones)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).clone())
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """`x`, float [B, channels, h, w] -> the same shape and dtype."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        normed = x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]
        out: Tensor = self.act(self.drop(normed))
        return out
