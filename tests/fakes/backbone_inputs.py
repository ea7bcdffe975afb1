"""Images and random weights for backbones, and the comparison of feature maps."""

from __future__ import annotations

import torch
from torch import nn


def randomize(network: nn.Module, seed: int = 0) -> None:
    """Everything is random, biases and tables too: a name that is lost shows."""
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=rng)
            tensor.copy_(noise.abs() * 0.3 + 0.7 if "var" in name or tensor.dim() == 1 else noise * 0.08)


def random_images(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def all_close(a: list[torch.Tensor], b: list[torch.Tensor], atol: float = 0.0) -> bool:
    return len(a) == len(b) == 4 and all(torch.allclose(x, y, atol=atol, rtol=atol) for x, y in zip(a, b, strict=True))
