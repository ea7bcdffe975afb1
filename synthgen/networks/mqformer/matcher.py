"""Which query answers for which object: one assignment over all queries, blind to their kind (Hungarian, DETR)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from synthgen.networks.mqformer.boxes import cxcywh_to_xyxy, generalised_iou
from synthgen.networks.mqformer.points import sample_points

ALPHA = 0.25  # focal loss: the share of positives

#: What stands for a cost that is no number: an assignment must come out, and the loss will say what is wrong.
_NEVER = 1e6


class Truth(TypedDict):
    """The n objects of one image, of which m have a mask to learn from.

    labels: int64 [n], indices into the image's texts. boxes: float32 [n, 4] CXCYWH, in parts of the unpadded image.
    has_mask: bool [n]. masks: bool [m, H, W], in order, with the batch's padding. mask_weights: float32 [n].
    ignore: bool [H, W], where no mask is right or wrong.
    """

    labels: Tensor
    boxes: Tensor
    has_mask: Tensor
    masks: Tensor
    mask_weights: Tensor
    ignore: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts, in matching as in the loss (Mask DINO's values)."""

    label: float = 4.0
    mask: float = 5.0
    dice: float = 5.0
    box: float = 5.0
    giou: float = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What each query of an image would cost for each of its objects: float32 [Q, n] each, unweighted.

    An object without a mask costs nothing in `mask` and `dice`, whoever gets it.
    """

    label: Tensor
    mask: Tensor
    dice: Tensor
    box: Tensor
    giou: Tensor

    def total(self, weights: Weights) -> Tensor:
        """Their weighted sum, float32 [Q, n]."""
        return (
            weights.label * self.label
            + weights.mask * self.mask
            + weights.dice * self.dice
            + weights.box * self.box
            + weights.giou * self.giou
        )


def costs(logits: Tensor, boxes: Tensor, mask_logits: Tensor, truth: Truth, points: Tensor) -> Costs:
    """Compare the queries of one image with its objects.

    Args:
        logits: [Q, T], of each query for each text.
        boxes: [Q, 4] CXCYWH in [0, 1].
        mask_logits: [Q, h, w], of the padded image.
        points: [1, P, 2], where masks are compared; see `sample_points`. Those in `truth["ignore"]` do not count.
    """
    probability = logits.float().sigmoid()
    absent = (1 - ALPHA) * probability**2 * -(1 - probability + 1e-8).log()
    present = ALPHA * (1 - probability) ** 2 * -(probability + 1e-8).log()
    own, theirs = boxes.float()[:, None], truth["boxes"].float()
    mask = logits.new_zeros(len(logits), len(theirs), dtype=torch.float32)
    dice = mask.clone()
    if len(truth["masks"]):
        counts = (sample_points(truth["ignore"][None].float(), points) == 0).float()  # [1, P]
        there = sample_points(truth["masks"].float(), points)  # [m, P]
        guess = sample_points(mask_logits.float(), points)  # [Q, P]
        total = counts.sum().clamp(min=1)
        right, wrong = functional.softplus(-guess) * counts, functional.softplus(guess) * counts
        mask[:, truth["has_mask"]] = (right @ there.T + wrong @ (1 - there).T) / total
        share = guess.sigmoid() * counts
        both, sums = 2 * share @ there.T, share.sum(1, keepdim=True) + (there * counts).sum(1)
        dice[:, truth["has_mask"]] = 1 - (both + 1) / (sums + 1)
    return Costs(
        label=(present - absent)[:, truth["labels"]],
        mask=mask,
        dice=dice,
        box=(own - theirs).abs().sum(-1),
        giou=-generalised_iou(cxcywh_to_xyxy(own), cxcywh_to_xyxy(theirs)),
    )


@torch.no_grad()
def match(
    logits: Sequence[Tensor],
    boxes: Tensor,
    mask_logits: Tensor,
    truths: Sequence[Truth],
    *,
    weights: Weights,
    points: int,
    generator: torch.Generator | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """The cheapest assignment of each image.

    Args:
        logits: for each image [Q, its texts]; boxes: [B, Q, 4]; mask_logits: [B, Q, h, w].
        points: how many to compare masks at; they are drawn anew for each image.

    Returns:
        For each image (queries, objects): int64 [min(Q, n)] each, ascending by query.
    """
    found = []
    for own_logits, own_boxes, own_masks, truth in zip(logits, boxes, mask_logits, truths, strict=True):
        drawn = torch.rand(1, points, 2, generator=generator, device=boxes.device)
        cost = costs(own_logits, own_boxes, own_masks, truth, drawn).total(weights)
        cost = cost.nan_to_num(_NEVER, _NEVER, -_NEVER)
        queries, objects = linear_sum_assignment(cost.cpu().numpy())
        found.append((torch.as_tensor(queries, device=boxes.device), torch.as_tensor(objects, device=boxes.device)))
    return found
