"""Denoising queries: noised objects whose own the decoder finds again, as a lesson beside matching (DN-DETR, DINO).

An object's label becomes, now and then, another of the image's texts, its box is shifted and stretched, and the query
made of the two is told what object it was: no assignment stands between it and what it learns. They come in groups, a
copy of each object in each. Matching queries see none of them, a group sees no other, and predictions are made without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget

#: How far a box's centre moves in halves of its sides, and its sides change; half of it is how often a label does.
NOISE_SCALE = 0.4

#: Most queries of an image; of more objects than these, some are drawn.
MAX_DENOISING_QUERIES = 100


@dataclass(frozen=True, slots=True, eq=False)
class NoisedTargets:
    """The noised objects of B images: D = groups * places queries, a place for each object of the fullest image.

    Attributes:
        labels: int64 [B, D], indices into an image's texts; boxes: float32 [B, D, 4] CXCYWH in [0, 1]; both of no
            meaning where `is_object`, bool [B, D], is False.
        matches: for each image (queries, objects), int64 each: which query was made of which object.
        num_groups: how many copies there are of each object.
    """

    labels: Tensor
    boxes: Tensor
    is_object: Tensor
    matches: list[tuple[Tensor, Tensor]]
    num_groups: int

    def attention_mask(self, num_matching_queries: int) -> Tensor:
        """bool [B, D + others, D + others]: what a query (a row) must not see, denoising ones first.

        What is no object is seen by nobody but itself, so that batches change nothing.
        """
        batch, count = self.is_object.shape
        group = torch.arange(count, device=self.is_object.device) // (count // self.num_groups)
        hidden = torch.zeros(
            batch,
            count + num_matching_queries,
            count + num_matching_queries,
            dtype=torch.bool,
            device=self.is_object.device,
        )
        hidden[:, count:, :count] = True
        hidden[:, :count, :count] = group[:, None] != group
        hidden[:, :, :count] |= ~self.is_object[:, None]
        hidden.diagonal(dim1=1, dim2=2).fill_(False)
        return hidden


@dataclass(frozen=True, slots=True, eq=False)
class DenoisingOutput:
    """What became of noised objects: predictions of each layer that saw them; the rest as in `NoisedTargets`."""

    layers: tuple[Predictions, ...]
    matches: list[tuple[Tensor, Tensor]]
    num_groups: int


def add_noise(targets: Sequence[MaskTarget], num_texts: Sequence[int], num_groups: int) -> NoisedTargets:
    """Add noise to the objects of a batch, by torch's global generator.

    Args:
        num_texts: how many each image has.
        num_groups: most copies of each object; fewer if an image would have more than `MAX_DENOISING_QUERIES` queries.

    Returns:
        At least one query an image, there or not, so that every batch goes the same way.
    """
    device = targets[0]["boxes"].device
    kept = [_sample_indices(len(truth["labels"]), device) for truth in targets]
    places = max(1, *(len(own) for own in kept))
    num_groups = max(1, min(num_groups, MAX_DENOISING_QUERIES // places))
    labels = torch.zeros(len(targets), num_groups, places, dtype=torch.int64, device=device)
    boxes = torch.full((len(targets), num_groups, places, 4), 0.5, device=device)
    there = torch.zeros(len(targets), num_groups, places, dtype=torch.bool, device=device)
    others, matches = torch.ones_like(labels), []
    for i, (truth, own, count) in enumerate(zip(targets, kept, num_texts, strict=True)):
        labels[i, :, : len(own)] = truth["labels"][own]
        boxes[i, :, : len(own)] = truth["boxes"][own]
        there[i, :, : len(own)] = True
        others[i] = count
        queries = torch.arange(num_groups * places, device=device).view(num_groups, places)[:, : len(own)].flatten()
        matches.append((queries, own.repeat(num_groups)))
    wrong = torch.rand(labels.shape, device=device) < NOISE_SCALE / 2
    other = (torch.rand(labels.shape, device=device) * others).long()  # which may be the right one, as in the reference
    shift = (2 * torch.rand(boxes.shape, device=device) - 1) * NOISE_SCALE
    sides = torch.cat([boxes[..., 2:] / 2, boxes[..., 2:]], dim=-1)
    return NoisedTargets(
        labels=torch.where(wrong, other, labels).flatten(1),
        boxes=(boxes + shift * sides).clamp(0, 1).flatten(1, 2),
        is_object=there.flatten(1),
        matches=matches,
        num_groups=num_groups,
    )


def _sample_indices(count: int, device: torch.device) -> Tensor:
    """int64: all of so many objects, or `MAX_DENOISING_QUERIES` of them, ascending."""
    if count <= MAX_DENOISING_QUERIES:
        return torch.arange(count, device=device)
    return torch.randperm(count)[:MAX_DENOISING_QUERIES].sort().values.to(device)
