"""Exponential moving average (EMA) of the weights, which evaluation and inference use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ModelEma:
    """An exponential moving average (EMA) of the trainable parameters of a module.

    PyTorch's `AveragedModel` copies the whole module, frozen text encoders included, takes the first update as it is
    and counts updates in a buffer, which checkpoints would have to hold.

    Args:
        module: its parameters with `requires_grad` are averaged.
        decay: share of the old average that an update keeps, in (0, 1).

    Attributes:
        weights: the averages, by parameter name, in the parameters' dtype and on their device.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.weights = {name: p.detach().clone() for name, p in self._trainable.items()}

    def update(self) -> None:
        """Move the averages towards the current weights."""
        self._average(list(self.weights.values()), [p.detach() for p in self._trainable.values()], None)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore the averages from a checkpoint.

        Args:
            weights: tensors by parameter name, of the parameters' shapes; further names are ignored.
        """
        for name, own in self.weights.items():
            own.copy_(weights[name])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Load the averages into the module for the duration of the block, then restore its weights."""
        own = {name: p.detach().clone() for name, p in self._trainable.items()}
        with torch.no_grad():
            for name, p in self._trainable.items():
                p.copy_(self.weights[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._trainable.items():
                    p.copy_(own[name])
