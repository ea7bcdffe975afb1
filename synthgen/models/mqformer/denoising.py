"""Denoising queries: an auxiliary training task that reconstructs noised ground-truth objects (DN-DETR, DINO).

The label of an object is sometimes replaced by another text of the image, and its box is shifted and scaled. The query
built from them is trained to predict the original object, without matching. Queries come in groups, with one copy of
each object per group. Matching queries do not attend to denoising queries, and groups do not attend to each other.
Inference uses no denoising queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget

#: Maximum shift of a box centre, in half side lengths, and maximum relative change of a side. A label is replaced with
#: half this probability.
NOISE_SCALE = 0.4

#: Maximum number of denoising queries per image. If an image has more objects, a random subset is used.
MAX_DENOISING_QUERIES = 100


@dataclass(frozen=True, slots=True, eq=False)
class NoisedTargets:
    """Noised objects of B images. There are D = groups * slots queries; the image with the most objects sets the slots.

    Attributes:
        labels: int64 [B, D], indices into the texts of an image.
        boxes: float32 [B, D, 4] CXCYWH in [0, 1].
        is_object: bool [B, D]; where False, `labels` and `boxes` are padding.
        matches: for each image (queries, objects), int64 [its matched queries] each: which object each query was made
            from.
        num_groups: the number of copies of each object.
    """

    labels: Tensor
    boxes: Tensor
    is_object: Tensor
    matches: list[tuple[Tensor, Tensor]]
    num_groups: int

    def attention_mask(self, num_matching_queries: int) -> Tensor:
        """bool [B, D + M, D + M], M = `num_matching_queries`: True where a query (row) must not attend to another.

        Denoising queries come first. They attend to matching queries, and matching queries do not attend to them.
        Padding slots are attended to only by themselves, so that the result does not depend on the other images of the
        batch.

        Args:
            num_matching_queries: the number of the other queries, which take part in the matching.
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
    """Predictions for noised objects.

    Attributes:
        layers: for each layer that received the objects.
        matches: for each image (queries, objects), int64 [its matched queries] each, as in `NoisedTargets`.
        num_groups: the number of copies of each object.
    """

    layers: tuple[Predictions, ...]
    matches: list[tuple[Tensor, Tensor]]
    num_groups: int


def add_noise(targets: Sequence[MaskTarget], num_texts: Sequence[int], num_groups: int) -> NoisedTargets:
    """Add noise to the objects of a batch, with torch's global generator.

    Args:
        targets: the objects of each image.
        num_texts: the number of texts of each image.
        num_groups: the maximum number of copies of each object; fewer if an image would exceed `MAX_DENOISING_QUERIES`.

    Returns:
        At least one query per image (possibly padding), so that every batch uses the same parameters.
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
    # May equal the original label, as in the reference code.
    other = (torch.rand(labels.shape, device=device) * others).long()
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
    """int64: indices of all objects, or of `MAX_DENOISING_QUERIES` random ones, ascending."""
    if count <= MAX_DENOISING_QUERIES:
        return torch.arange(count, device=device)
    return torch.randperm(count)[:MAX_DENOISING_QUERIES].sort().values.to(device)
