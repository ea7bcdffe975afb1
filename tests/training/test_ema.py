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


def test_averages_are_those_of_a_linear_interpolation_bit_for_bit():
    """Runs that began with an earlier version go on as they would have, and frozen parameters have no average."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
    module[0].weight.requires_grad_(False)
    average, expected = ModelEma(module, 0.999), {}
    for name, parameter in module.named_parameters():
        expected[name] = parameter.detach().clone()
    del expected["0.weight"]
    for _ in range(5):
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.add_(torch.randn_like(parameter))
                if name in expected:
                    expected[name].lerp_(parameter, 1 - 0.999)
        average.update()
    assert average.weights.keys() == expected.keys()
    assert all(torch.equal(average.weights[name], value) for name, value in expected.items())
