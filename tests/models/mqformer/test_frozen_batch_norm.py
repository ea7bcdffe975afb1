"""Frozen batch norms compute what the norms compute in evaluation."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from synthgen.models.mqformer.frozen_batch_norm import FrozenBatchNorm, freeze_batch_norms


def randomized(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return norm


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(5),
        nn.BatchNorm2d(5, affine=False),
        BatchNormAct2d(5, eps=0.1),
        BatchNormAct2d(5, apply_act=False),
    ],
)
def test_a_frozen_norm_computes_what_the_norm_does_in_evaluation(norm: nn.BatchNorm2d) -> None:
    x = torch.randn(2, 5, 4, 3)
    frozen = FrozenBatchNorm(randomized(norm)).train()
    assert torch.allclose(frozen(x), norm.eval()(x), atol=1e-5)
    assert not list(frozen.parameters()) and set(frozen.state_dict()) == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
    }
    assert frozen(x.bfloat16()).dtype == torch.bfloat16


def test_all_norms_in_a_network_are_replaced_at_their_places() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(nn.BatchNorm2d(5), nn.ReLU()), BatchNormAct2d(5))
    names = {name for name in network.state_dict() if "num_batches" not in name}
    expected = network.eval()(x := torch.randn(1, 3, 4, 4))
    freeze_batch_norms(network)
    assert [type(part) for part in (network[1][0], network[2])] == [FrozenBatchNorm] * 2
    assert set(network.state_dict()) == names
    assert torch.allclose(network.train()(x), expected, atol=1e-5)
