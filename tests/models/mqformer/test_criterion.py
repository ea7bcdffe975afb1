"""The loss of a batch: a weighted sum over the layers, in float32."""

from __future__ import annotations

import math

import pytest
import torch

from synthgen.models.mqformer.criterion import SetCriterion
from synthgen.models.mqformer.decoder import DecoderOutput
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget

SAMPLING = PointSampling(num_points=32)
WEIGHTS = LossWeights(label=2.0, mask=3.0, dice=5.0, box=7.0, giou=11.0)


def layer(seed: int, dtype: torch.dtype = torch.float32) -> Predictions:
    rng = torch.Generator().manual_seed(seed)
    return Predictions(
        [torch.randn(6, 3, generator=rng).to(dtype), torch.randn(6, 2, generator=rng).to(dtype)],
        torch.rand(2, 6, 4, generator=rng).to(dtype),
        torch.randn(2, 6, 8, 8, generator=rng).to(dtype),
    )


def truths() -> list[MaskTarget]:
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :16, :16] = masks[1, 20:, 20:] = True
    nowhere = torch.zeros(32, 32, dtype=torch.bool)
    some = MaskTarget(
        labels=torch.tensor([0, 2]), boxes=torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.8, 0.8, 0.4, 0.4]]),
        has_mask=torch.ones(2, dtype=torch.bool), masks=masks, mask_weights=torch.ones(2), ignore_mask=nowhere,
    )  # fmt: skip
    none = MaskTarget(
        labels=torch.zeros(0, dtype=torch.int64), boxes=torch.zeros(0, 4), has_mask=torch.zeros(0, dtype=torch.bool),
        masks=masks[:0], mask_weights=torch.zeros(0), ignore_mask=nowhere,
    )  # fmt: skip
    return [some, none]


def total(decoded: DecoderOutput) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return SetCriterion(WEIGHTS, SAMPLING)(decoded, truths(), num_objects=2, generator=rng)


def test_the_total_is_the_weighted_sum_of_the_layers(monkeypatch):
    """At the same points, however many are asked for; otherwise each layer's would be others when it is alone."""

    def spread(*size: int, **_: object) -> torch.Tensor:
        return torch.linspace(0, 1, math.prod(size)).mul(7.3).frac().view(size)

    monkeypatch.setattr(torch, "rand", spread)
    found = total(DecoderOutput((layer(0), layer(1)), 0))
    parts = [compute_losses([layer(i)], truths(), num_objects=2, weights=WEIGHTS, sampling=SAMPLING) for i in range(2)]
    assert found.keys() == {"label", "box", "giou", "mask", "dice"}
    for name, value in found.items():
        assert value.item() == pytest.approx(getattr(WEIGHTS, name) * (parts[0][name] + parts[1][name]).item())
        assert value.item() > 0


def test_losses_of_half_precision_are_computed_in_whole():
    plain = total(DecoderOutput((layer(0, torch.bfloat16),), 0))
    with torch.autocast("cpu", torch.bfloat16):
        found = total(DecoderOutput((layer(0, torch.bfloat16),), 0))
    assert all(found[name].dtype == torch.float32 and torch.equal(found[name], plain[name]) for name in plain)
