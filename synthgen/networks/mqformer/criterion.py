"""What a prediction should have been, as losses of labels, boxes and masks (DETR, Mask2Former, Mask DINO).

What nobody knows costs nothing: an object without a mask has no mask loss; where a region is to be ignored no mask is
right or wrong, and a query that finds something there is not told that there is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from synthgen.networks.mqformer.boxes import cxcywh_to_xyxy, generalised_iou
from synthgen.networks.mqformer.matcher import ALPHA, Truth, Weights, match
from synthgen.networks.mqformer.points import sample_points, uncertain_points

#: A query lies in the ignored region if more than this share of its mask does.
_INSIDE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What one layer says of B images with Q queries each.

    Attributes:
        logits: for each image [Q, its texts]; how well each query fits each text.
        boxes: [B, Q, 4] CXCYWH in [0, 1], in parts of the unpadded image.
        mask_logits: [B, Q, h, w], of the padded image.
    """

    logits: Sequence[Tensor]
    boxes: Tensor
    mask_logits: Tensor

    def of(self, queries: slice) -> Predictions:
        """What is said of some of the queries."""
        return Predictions([own[queries] for own in self.logits], self.boxes[:, queries], self.mask_logits[:, queries])


@dataclass(frozen=True, slots=True)
class Sampling:
    """How masks are compared: points a mask; how many times as many are drawn; the share chosen by doubt."""

    points: int = 112 * 112
    oversample: float = 3.0
    importance: float = 0.75


def losses(
    predictions: Predictions,
    truths: Sequence[Truth],
    *,
    objects: float,
    weights: Weights,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    known: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """The losses of one layer, unweighted: "label", "box", "giou", "mask", "dice".

    Args:
        objects: how many there are in the batch, averaged over processes; at least 1.
        known: the matches as `match` gives them, where they need not be found; other queries are then told nothing.
    """
    matches = known
    if matches is None:
        matches = match(
            predictions.logits, predictions.boxes, predictions.mask_logits, truths,
            weights=weights, points=sampling.points, generator=generator,
        )  # fmt: skip
    return {
        "label": _label_loss(predictions, truths, matches, only_matched=known is not None) / objects,
        **{name: loss / objects for name, loss in _box_losses(predictions.boxes, truths, matches).items()},
        **{
            name: loss / objects
            for name, loss in _mask_losses(predictions.mask_logits, truths, matches, sampling, generator).items()
        },
    }


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Sigmoid focal loss (Lin et al., arXiv 1708.02002), gamma 2, element by element."""
    probability = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = probability + truth - 2 * probability * truth
    return (ALPHA * truth + (1 - ALPHA) * (1 - truth)) * wrong**2 * cross_entropy


def _label_loss(
    predictions: Predictions, truths: Sequence[Truth], matches: Sequence[tuple[Tensor, Tensor]], *, only_matched: bool
) -> Tensor:
    total = predictions.boxes.sum() * 0.0
    every = zip(predictions.logits, predictions.mask_logits, truths, matches, strict=True)
    for logits, mask_logits, truth, (queries, chosen) in every:
        wanted = torch.zeros_like(logits, dtype=torch.float32)
        wanted[queries, truth["labels"][chosen]] = 1.0
        loss = focal_loss(logits.float(), wanted)
        unknown = _in_ignored_region(mask_logits.detach(), truth["ignore"]) | only_matched
        unknown[queries] = False
        total = total + loss[~unknown].sum()
    return total


def _in_ignored_region(mask_logits: Tensor, ignore: Tensor) -> Tensor:
    """bool [Q]: the queries of an image whose mask lies in the ignored region for the most part."""
    if not ignore.any():
        return torch.zeros(len(mask_logits), dtype=torch.bool, device=mask_logits.device)
    height, width = mask_logits.shape[-2:]
    share = functional.adaptive_avg_pool2d(ignore[None].float(), (height, width))[0]
    mask = (mask_logits > 0).float()
    return (mask * share).sum((1, 2)) > _INSIDE * mask.sum((1, 2))


def _box_losses(boxes: Tensor, truths: Sequence[Truth], matches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    own = torch.cat([of_image[queries] for of_image, (queries, _) in zip(boxes, matches, strict=True)]).float()
    theirs = torch.cat([truth["boxes"][chosen] for truth, (_, chosen) in zip(truths, matches, strict=True)]).float()
    giou = generalised_iou(cxcywh_to_xyxy(own), cxcywh_to_xyxy(theirs))
    return {"box": (own - theirs).abs().sum(), "giou": (1 - giou).sum()}


def _mask_losses(
    mask_logits: Tensor,
    truths: Sequence[Truth],
    matches: Sequence[tuple[Tensor, Tensor]],
    sampling: Sampling,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    logits, masks, weights, ignored = [], [], [], []
    for own, truth, (queries, chosen) in zip(mask_logits, truths, matches, strict=True):
        known = truth["has_mask"][chosen]
        place = truth["has_mask"].cumsum(0)[chosen[known]] - 1  # among those that have one
        logits.append(own[queries[known]])
        masks.append(truth["masks"][place])
        weights.append(truth["mask_weights"][chosen[known]])
        ignored.append(truth["ignore"].expand(len(place), -1, -1))
    guess, there, unknown = torch.cat(logits).float(), torch.cat(masks).float(), torch.cat(ignored).float()
    if not len(guess):
        nothing = mask_logits.sum() * 0.0
        return {"mask": nothing, "dice": nothing}
    with torch.no_grad():
        points = uncertain_points(
            guess, sampling.points, oversample=sampling.oversample, importance=sampling.importance,
            generator=generator,
        )  # fmt: skip
        truth_there = sample_points(there, points)
        counts = (sample_points(unknown, points) == 0).float()  # no neighbour of the point is ignored
    guess_there = sample_points(guess, points)
    weight = torch.cat(weights)
    entropy = functional.binary_cross_entropy_with_logits(guess_there, truth_there, reduction="none") * counts
    share = guess_there.sigmoid() * counts
    both, sums = 2 * (share * truth_there).sum(1), share.sum(1) + (truth_there * counts).sum(1)
    return {
        "mask": (weight * entropy.sum(1) / counts.sum(1).clamp(min=1)).sum(),
        "dice": (weight * (1 - (both + 1) / (sums + 1))).sum(),
    }
