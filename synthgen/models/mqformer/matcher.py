"""Hungarian matching of queries to ground-truth objects (DETR). One assignment covers learnable and conditional
queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert

from synthgen.models.mqformer.boxes import generalized_iou
from synthgen.models.mqformer.point_sampling import sample_points
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget, valid_ratio_of

FOCAL_ALPHA = 0.25  # weight of positives in the focal loss

#: Replaces non-finite costs, so that an assignment exists. The trainer reports the non-finite loss.
_NONFINITE_COST = 1e6


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the parts of the matching cost and of the loss (values of Mask DINO)."""

    label: float = 4.0
    mask: float = 5.0
    dice: float = 5.0
    box: float = 5.0
    giou: float = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class MatchCosts:
    """Unweighted matching costs of each query and object of an image. K counts the queries of all layers.

    An object without a mask has `mask` and `dice` costs of 0 for every query.

    Attributes:
        label: float32 [K, n], focal cost of the object's label.
        mask: float32 [K, n], binary cross-entropy of the masks, averaged over points.
        dice: float32 [K, n] in [0, 1], dice cost of the masks.
        box: float32 [K, n], L1 distance of the boxes, CXCYWH relative to the image size.
        giou: float32 [K, n], the negative generalized IoU of the boxes.
    """

    label: Tensor
    mask: Tensor
    dice: Tensor
    box: Tensor
    giou: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """The sum of the costs, weighted by `weights`: float32 [K, n]."""
        return (
            weights.label * self.label
            + weights.mask * self.mask
            + weights.dice * self.dice
            + weights.box * self.box
            + weights.giou * self.giou
        )


def compute_costs(
    logits: Tensor, boxes: Tensor, mask_logits: Iterable[Tensor], target: MaskTarget, points: Tensor
) -> MatchCosts:
    """Compute the costs of K queries for one image: those of one layer, or of several layers one after another.

    Args:
        logits: float [K, T], of each query and text.
        boxes: float [K, 4] CXCYWH in [0, 1], relative to the unpadded image.
        mask_logits: for each layer float [its queries, P], mask logits at the points; consumed one layer at a time.
        target: the n objects of the image.
        points: float32 [1, P, 2] in [0, 1], where masks are compared; see `sample_points`. Points in `ignore_mask` do
            not count.
    """
    probability = logits[..., target["labels"]].float().sigmoid()
    absent = (1 - FOCAL_ALPHA) * probability**2 * -(1 - probability + 1e-8).log()
    present = FOCAL_ALPHA * (1 - probability) ** 2 * -(probability + 1e-8).log()
    own, theirs = boxes.float()[..., None, :], target["boxes"].float()
    mask = dice = torch.zeros_like(probability)
    if len(target["masks"]):
        has_mask = target["has_mask"]
        place = (has_mask.cumsum(0) - 1).clamp(min=0)  # index into the masks
        counts = (sample_points(target["ignore_mask"][None].float(), points) == 0).float()  # [1, P]
        there = sample_points(target["masks"].float(), points) * counts  # [m, P]
        pairs = [_mask_costs(guess.float(), there, counts) for guess in mask_logits]
        mask, dice = (torch.cat(each)[:, place] * has_mask for each in zip(*pairs, strict=True))
    return MatchCosts(
        label=present - absent,
        mask=mask,
        dice=dice,
        box=(own - theirs).abs().sum(-1),
        giou=-generalized_iou(box_convert(own, "cxcywh", "xyxy"), box_convert(theirs, "cxcywh", "xyxy")),
    )


def _mask_costs(guess: Tensor, there: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice costs of [Q, P] and [m, P], over points where [1, P] is 1: [Q, m] each."""
    # For a logit x and a target t: t * softplus(-x) + (1 - t) * softplus(x) = softplus(x) - t * x.
    entropy = functional.softplus(guess) @ counts.T - guess @ there.T
    share = guess.sigmoid()
    both, sums = 2 * share @ there.T, share @ counts.T + there.sum(1)
    return entropy / counts.sum().clamp(min=1), 1 - (both + 1) / (sums + 1)


@dataclass(frozen=True, slots=True)
class HungarianMatcher:
    """Assigns queries to objects at the lowest total cost, per image and layer (DETR).

    Attributes:
        weights: how much each part of the cost counts.
        num_points: at how many points masks are compared. They are drawn anew for each image and shared by its layers.
    """

    weights: LossWeights
    num_points: int

    @torch.no_grad()
    def __call__(
        self,
        layers: Sequence[Predictions],
        targets: Sequence[MaskTarget],
        *,
        generator: torch.Generator | None = None,
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Match all layers. The costs are copied to the CPU in one transfer, and the matches back in another.

        Args:
            layers: predictions of L decoder layers for B images; layers may have different numbers of queries.
            targets: the objects of each image.
            generator: draws the points, on the device of the predictions; None = PyTorch's global generator.

        Returns:
            For each layer, for each image (queries, objects): int64 [min(Q, n)] each, ascending by query.
        """
        device = layers[0].boxes.device
        sizes = [layer.boxes.shape[1] for layer in layers]
        costs = []
        for i, target in enumerate(targets):
            points = torch.rand(1, self.num_points, 2, generator=generator, device=device) * valid_ratio_of(target)
            cost = compute_costs(
                torch.cat([layer.logits[i] for layer in layers]),
                torch.cat([layer.boxes[i] for layer in layers]),
                _sample_layer_masks(layers, i, points),
                target,
                points,
            ).total(self.weights)
            costs.append(cost.nan_to_num(_NONFINITE_COST, _NONFINITE_COST, -_NONFINITE_COST))  # [K, n]
        flat = torch.cat([cost.flatten() for cost in costs]).cpu()
        parts = torch.split(flat, [cost.numel() for cost in costs])
        tables = [torch.split(part.view(cost.shape), sizes) for part, cost in zip(parts, costs, strict=True)]
        pairs = [np.stack(linear_sum_assignment(table[i].numpy())) for i in range(len(layers)) for table in tables]
        whole = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device)
        split = torch.split(whole, [pair.shape[1] for pair in pairs], dim=1)
        each = [(queries, objects) for queries, objects in split]
        return [each[i : i + len(targets)] for i in range(0, len(each), len(targets))]


def _sample_layer_masks(layers: Sequence[Predictions], image: int, points: Tensor) -> Iterator[Tensor]:
    """For each layer [Q, P]: mask logits of an image at points. Features shared by layers are sampled once."""
    features = None
    for layer in layers:
        if layer.mask_features is not features:
            features = layer.mask_features
            there = sample_points(features[image].float(), points).to(features.dtype)  # [C, P]
        yield layer.select_mask_logits(image, slice(None), there)
