"""All layers of a network are told what they should have said: the weighted losses of a batch (deep supervision)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgen.models.mqformer.decoder import DecoderOutput
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.targets import MaskTarget


def weighted_losses(
    outputs: DecoderOutput,
    targets: Sequence[MaskTarget],
    *,
    num_objects: float,
    weights: LossWeights,
    sampling: PointSampling,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The weighted losses, summed over layers; what is minimised is their sum.

    Args:
        num_objects: how many there are in the batch, averaged over processes; at least 1.
        generator: of the points at which masks are compared; on the device of the predictions.

    Returns:
        "label", "box", "giou", "mask", "dice", and with denoising these after "dn_": float32, of no dimension.
    """
    options: dict[str, Any] = {"weights": weights, "sampling": sampling, "generator": generator}
    # In float32 also where the network ran in half precision: masks are compared by products of thousands of points.
    with torch.autocast(outputs.layers[-1].boxes.device.type, enabled=False):
        found = [("", compute_losses(outputs.layers, targets, num_objects=num_objects, **options))]
        if (denoised := outputs.denoising_output) is not None:
            copies = num_objects * denoised.num_groups
            found.append(
                (
                    "dn_",
                    compute_losses(
                        denoised.layers, targets, num_objects=copies, known_matches=denoised.matches, **options
                    ),
                )
            )
        return {prefix + name: getattr(weights, name) * loss for prefix, parts in found for name, loss in parts.items()}
