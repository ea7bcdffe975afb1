"""Losses of labels, boxes and masks (DETR, Mask2Former, Mask DINO).

Missing annotations add no loss. An object without a mask has no mask loss, ignored pixels count in no mask loss, and an
unmatched query whose mask lies in an ignored region has no label loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, sigmoid_focal_loss

from synthgen.models.mqformer.boxes import generalized_iou
from synthgen.models.mqformer.matcher import FOCAL_ALPHA, HungarianMatcher, LossWeights
from synthgen.models.mqformer.point_sampling import sample_bool_points, sample_points, sample_uncertain_points
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import BatchTargets, MaskTarget, concat_targets

#: A query lies in the ignored region if this share of its mask is exceeded.
_MAX_IGNORED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PointSampling:
    """Point sampling of the mask losses (PointRend).

    Attributes:
        num_points: points per mask.
        oversample_ratio: candidates drawn per point chosen by uncertainty.
        importance_sample_ratio: share of the points chosen by uncertainty; the others are uniform.
    """

    num_points: int = 112 * 112
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75


def compute_losses(
    layers: Sequence[Predictions],
    targets: Sequence[MaskTarget],
    *,
    num_objects: float,
    weights: LossWeights,
    sampling: PointSampling,
    generator: torch.Generator | None = None,
    known_matches: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Compute the losses, summed over layers and unweighted: "label", "box", "giou", "mask", "dice".

    Args:
        layers: predictions of the decoder layers for B images.
        targets: the objects of each image.
        num_objects: objects in the batch, averaged over processes; at least 1.
        weights: factors of the costs in matching; the losses are not weighted here.
        sampling: the points at which masks are compared.
        generator: draws the points, on the device of the predictions; None = PyTorch's global generator.
        known_matches: for each image (queries, objects), int64 [its matched queries] each, used for all layers instead
            of matching. Unmatched queries then have no label loss.
    """
    wanted = concat_targets(targets)
    matches: Sequence[Sequence[tuple[Tensor, Tensor]]]
    if known_matches is None:
        matches = HungarianMatcher(weights, sampling.num_points)(layers, targets, generator=generator)
    else:
        matches = [known_matches] * len(layers)
    parts = []
    for layer, of_images in zip(layers, matches, strict=True):
        pairs = [(queries, own + first) for (queries, own), first in zip(of_images, wanted.object_offsets, strict=True)]
        parts.append(
            {
                "label": _label_loss(layer, wanted, pairs, only_matched=known_matches is not None),
                **_box_losses(layer.boxes, wanted, pairs),
                **_mask_losses(layer, wanted, pairs, sampling, generator),
            }
        )
    return {name: torch.stack([part[name] for part in parts]).sum() / num_objects for name in parts[0]}


def _label_loss(
    predictions: Predictions, targets: BatchTargets, pairs: Sequence[tuple[Tensor, Tensor]], *, only_matched: bool
) -> Tensor:
    every = list(predictions.logits)
    if only_matched:
        every = [own[queries] for own, (queries, _) in zip(every, pairs, strict=True)]
        rows = [torch.arange(len(own), device=own.device) for own in every]
    else:
        rows = [queries for queries, _ in pairs]
    flat, sizes = torch.cat([own.flatten() for own in every]).float(), [own.numel() for own in every]
    begin = [0, *accumulate(sizes[:-1])]
    of_label = [first + own * logits.shape[1] for first, own, logits in zip(begin, rows, every, strict=True)]
    present = torch.zeros_like(flat)
    present[torch.cat(of_label) + targets.labels[torch.cat([objects for _, objects in pairs])]] = 1.0
    loss: Tensor = sigmoid_focal_loss(flat, present, alpha=FOCAL_ALPHA, gamma=2)
    if only_matched or not any(targets.has_ignored):
        return loss.sum()
    total = flat.new_zeros(())
    for i, own in enumerate(torch.split(loss, sizes)):
        if targets.has_ignored[i]:
            unknown = _in_ignored_region(predictions, i, targets.ignore_masks[i])
            unknown[rows[i]] = False
            own = own.view(every[i].shape).masked_fill(unknown[:, None], 0.0)
        total = total + own.sum()
    return total


@torch.no_grad()
def _in_ignored_region(predictions: Predictions, image: int, ignore: Tensor) -> Tensor:
    """bool [Q]: the queries of an image whose masks lie mostly in the ignored region."""
    features = predictions.mask_features[image]
    height, width = features.shape[1:]
    share = functional.adaptive_avg_pool2d(ignore[None].float(), (height, width))[0]
    mask = (predictions.select_mask_logits(image, slice(None), features) > 0).float()
    return (mask * share).sum((1, 2)) > _MAX_IGNORED_SHARE * mask.sum((1, 2))


def _box_losses(boxes: Tensor, targets: BatchTargets, pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    own = torch.cat([of_image[queries] for of_image, (queries, _) in zip(boxes.unbind(), pairs, strict=True)]).float()
    theirs = targets.boxes[torch.cat([objects for _, objects in pairs])]
    giou = generalized_iou(box_convert(own, "cxcywh", "xyxy"), box_convert(theirs, "cxcywh", "xyxy"))
    return {"box": (own - theirs).abs().sum(), "giou": (1 - giou).sum()}


def _mask_losses(
    predictions: Predictions,
    targets: BatchTargets,
    pairs: Sequence[tuple[Tensor, Tensor]],
    sampling: PointSampling,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    guesses, objects = [], []
    for i, (features, (queries, own)) in enumerate(zip(predictions.mask_features.unbind(), pairs, strict=True)):
        some = slice(None) if targets.has_masks[i] else slice(0)
        guesses.append(predictions.select_mask_logits(i, queries[some], features))
        objects.append(own[some])
    guess, chosen = torch.cat(guesses).float(), torch.cat(objects)
    if not len(guess):
        nothing = guess.sum() * 0.0
        return {"mask": nothing, "dice": nothing}
    with torch.no_grad():
        points = sample_uncertain_points(
            guess, targets.valid_ratios[targets.image_index[chosen]], sampling.num_points,
            oversample_ratio=sampling.oversample_ratio,
            importance_sample_ratio=sampling.importance_sample_ratio, generator=generator,
        )  # fmt: skip
        there = sample_bool_points(targets.masks, targets.mask_index[chosen], points)
        counts = torch.ones_like(there)
        if any(targets.has_ignored):  # 1 where no neighbouring pixel of the point is ignored
            counts = (sample_bool_points(targets.ignore_masks, targets.image_index[chosen], points) == 0).float()
    at = sample_points(guess, points)
    weight = targets.mask_weights[chosen]
    entropy = functional.binary_cross_entropy_with_logits(at, there, reduction="none") * counts
    share = at.sigmoid() * counts
    both, sums = 2 * (share * there).sum(1), share.sum(1) + (there * counts).sum(1)
    return {
        "mask": (weight * entropy.sum(1) / counts.sum(1).clamp(min=1)).sum(),
        "dice": (weight * (1 - (both + 1) / (sums + 1))).sum(),
    }
