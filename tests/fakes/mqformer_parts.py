"""Recorded and random inputs of the parts of MQ-Former, and their losses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget


def golden_part(golden: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{file}/"): t for name, t in golden.items() if name.startswith(f"{file}/")}


def is_close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> bool:
    return found.shape == expected.shape and torch.allclose(found.detach(), expected, rtol=0, atol=atol)


def shape_list(tensor: Tensor) -> list[tuple[int, int]]:
    return [(int(h), int(w)) for h, w in tensor]


class RecordedRandom:
    """In place of `torch.rand`: what the reference drew, in its order."""

    def __init__(self, *drawn: Tensor) -> None:
        self.left: Iterator[Tensor] = iter(drawn)

    def __call__(self, *size: int, **_: object) -> Tensor:
        drawn = next(self.left)
        assert drawn.shape == size
        return drawn


def recorded_target(g: dict[str, Tensor], i: int) -> MaskTarget:
    count = len(g[f"target{i}.labels"])
    return MaskTarget(
        labels=g[f"target{i}.labels"],
        boxes=g[f"target{i}.boxes"],
        has_mask=torch.ones(count, dtype=torch.bool),
        masks=g[f"target{i}.masks"].bool(),
        mask_weights=torch.ones(count),
        ignore_mask=torch.zeros(64, 80, dtype=torch.bool),
    )


SMALL = PointSampling(num_points=64)


def random_predictions(seed: int, images: int = 2, queries: int = 6, texts: int = 4) -> Predictions:
    rng = torch.Generator().manual_seed(seed)
    return Predictions(
        [torch.randn(queries, texts, generator=rng) for _ in range(images)],
        torch.rand(images, queries, 4, generator=rng) * 0.5 + 0.25,
        torch.randn(images, queries, 8, 12, generator=rng) * 4,
    )


def random_target(seed: int, count: int, *, masked: list[bool] | None = None) -> MaskTarget:
    rng = torch.Generator().manual_seed(seed)
    has_mask = torch.tensor([True] * count if masked is None else masked, dtype=torch.bool)
    return MaskTarget(
        labels=torch.randint(4, (count,), generator=rng),
        boxes=torch.rand(count, 4, generator=rng) * 0.5 + 0.25,
        has_mask=has_mask,
        masks=torch.rand(int(has_mask.sum()), 32, 48, generator=rng) > 0.5,
        mask_weights=torch.rand(count, generator=rng),
        ignore_mask=torch.zeros(32, 48, dtype=torch.bool),
    )


def sum_losses(predictions: Predictions, truths: list[MaskTarget], seed: int = 0) -> dict[str, float]:
    rng = torch.Generator().manual_seed(seed)
    found = compute_losses([predictions], truths, num_objects=3.0, weights=LossWeights(), sampling=SMALL, generator=rng)
    return {name: float(loss) for name, loss in found.items()}


def factored_predictions(seed: int, images: int = 2, queries: int = 6, texts: int = 4) -> Predictions:
    rng = torch.Generator().manual_seed(seed)
    plain = random_predictions(seed, images, queries, texts)
    embeddings = torch.randn(images, queries, 5, generator=rng)
    return Predictions(plain.logits, plain.boxes, torch.randn(images, 5, 8, 12, generator=rng), embeddings)
