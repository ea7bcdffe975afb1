"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch

from synthgen.training.ema import ModelEma


def test_a_moving_average():
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average = ModelEma(module, 0.75)
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.update()
    assert average.weights["weight"].item() == pytest.approx(1.5)
    with average.swapped():
        assert module.weight.item() == pytest.approx(1.5)
    assert module.weight.item() == 3.0
