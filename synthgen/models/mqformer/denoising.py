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

from synthgen.models.mqformer.matcher import Truth
from synthgen.models.mqformer.predictions import Predictions

#: How far a box's centre moves in halves of its sides, and its sides change; half of it is how often a label does.
NOISE = 0.4

#: Most queries of an image; of more objects than these, some are drawn.
MOST = 100


@dataclass(frozen=True, slots=True, eq=False)
class Noised:
    """The noised objects of B images: D = groups * places queries, a place for each object of the fullest image.

    Attributes:
        labels: int64 [B, D], indices into an image's texts; boxes: float32 [B, D, 4] CXCYWH in [0, 1]; both of no
            meaning where `there`, bool [B, D], is False.
        matches: for each image (queries, objects), int64 each: which query was made of which object.
        groups: how many copies there are of each object.
    """

    labels: Tensor
    boxes: Tensor
    there: Tensor
    matches: list[tuple[Tensor, Tensor]]
    groups: int

    def hidden(self, others: int) -> Tensor:
        """bool [B, D + others, D + others]: what a query (a row) must not see, denoising ones first.

        What is no object is seen by nobody but itself, so that batches change nothing.
        """
        batch, count = self.there.shape
        group = torch.arange(count, device=self.there.device) // (count // self.groups)
        hidden = torch.zeros(batch, count + others, count + others, dtype=torch.bool, device=self.there.device)
        hidden[:, count:, :count] = True
        hidden[:, :count, :count] = group[:, None] != group
        hidden[:, :, :count] |= ~self.there[:, None]
        hidden.diagonal(dim1=1, dim2=2).fill_(False)
        return hidden


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    """What became of noised objects: predictions of each layer that saw them; the rest as in `Noised`."""

    layers: tuple[Predictions, ...]
    matches: list[tuple[Tensor, Tensor]]
    groups: int


def noised(truths: Sequence[Truth], texts: Sequence[int], groups: int) -> Noised:
    """Add noise to the objects of a batch, by torch's global generator.

    Args:
        texts: how many each image has.
        groups: most copies of each object; fewer if an image would have more than `MOST` queries.

    Returns:
        At least one query an image, there or not, so that every batch goes the same way.
    """
    device = truths[0]["boxes"].device
    kept = [_some(len(truth["labels"]), device) for truth in truths]
    places = max(1, *(len(own) for own in kept))
    groups = max(1, min(groups, MOST // places))
    labels = torch.zeros(len(truths), groups, places, dtype=torch.int64, device=device)
    boxes = torch.full((len(truths), groups, places, 4), 0.5, device=device)
    there = torch.zeros(len(truths), groups, places, dtype=torch.bool, device=device)
    others, matches = torch.ones_like(labels), []
    for i, (truth, own, count) in enumerate(zip(truths, kept, texts, strict=True)):
        labels[i, :, : len(own)] = truth["labels"][own]
        boxes[i, :, : len(own)] = truth["boxes"][own]
        there[i, :, : len(own)] = True
        others[i] = count
        queries = torch.arange(groups * places, device=device).view(groups, places)[:, : len(own)].flatten()
        matches.append((queries, own.repeat(groups)))
    wrong = torch.rand(labels.shape, device=device) < NOISE / 2
    other = (torch.rand(labels.shape, device=device) * others).long()  # which may be the right one, as in the reference
    shift = (2 * torch.rand(boxes.shape, device=device) - 1) * NOISE
    sides = torch.cat([boxes[..., 2:] / 2, boxes[..., 2:]], dim=-1)
    return Noised(
        labels=torch.where(wrong, other, labels).flatten(1),
        boxes=(boxes + shift * sides).clamp(0, 1).flatten(1, 2),
        there=there.flatten(1),
        matches=matches,
        groups=groups,
    )


def _some(count: int, device: torch.device) -> Tensor:
    """int64: all of so many objects, or `MOST` of them, ascending."""
    if count <= MOST:
        return torch.arange(count, device=device)
    return torch.randperm(count)[:MOST].sort().values.to(device)
