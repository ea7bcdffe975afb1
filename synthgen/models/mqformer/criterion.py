"""All layers of a network are told what they should have said: the weighted losses of a batch (deep supervision)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgen.models.mqformer.decoder import Decoded
from synthgen.models.mqformer.losses import Sampling, losses
from synthgen.models.mqformer.matcher import Truth, Weights


def total_losses(
    decoded: Decoded,
    truths: Sequence[Truth],
    *,
    objects: float,
    weights: Weights,
    sampling: Sampling,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The weighted losses, summed over layers; what is minimised is their sum.

    Args:
        objects: how many there are in the batch, averaged over processes; at least 1.
        generator: of the points at which masks are compared; on the device of the predictions.

    Returns:
        "label", "box", "giou", "mask", "dice", and with denoising these after "dn_": float32, of no dimension.
    """
    options: dict[str, Any] = {"weights": weights, "sampling": sampling, "generator": generator}
    # In float32 also where the network ran in half precision: masks are compared by products of thousands of points.
    with torch.autocast(decoded.layers[-1].boxes.device.type, enabled=False):
        found = [("", losses(decoded.layers, truths, objects=objects, **options))]
        if (denoised := decoded.denoised) is not None:
            copies = objects * denoised.groups
            found.append(("dn_", losses(denoised.layers, truths, objects=copies, known=denoised.matches, **options)))
        return {prefix + name: getattr(weights, name) * loss for prefix, parts in found for name, loss in parts.items()}
