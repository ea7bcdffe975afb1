"""The loss of a batch: the losses of all decoder layers (deep supervision), weighted and summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from synthgen.models.mqformer.decoder import DecoderOutput
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.targets import MaskTarget


@dataclass(frozen=True, slots=True)
class SetCriterion:
    """Matches predictions with objects and computes the weighted losses (DETR).

    Attributes:
        weights: factors of the losses, and of the costs in matching.
        sampling: the points at which masks are compared.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    sampling: PointSampling = field(default_factory=PointSampling)

    def __call__(
        self,
        outputs: DecoderOutput,
        targets: Sequence[MaskTarget],
        *,
        num_objects: float,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Compute the weighted losses, summed over layers. Training minimizes their sum.

        Args:
            outputs: predictions of all decoder layers for B images.
            targets: the objects of each image.
            num_objects: objects in the batch, averaged over processes; at least 1.
            generator: draws the points at which masks are compared; on the device of the predictions.

        Returns:
            "label", "box", "giou", "mask" and "dice"; with denoising also the same names with the prefix "dn_".
            Each is a float32 scalar.
        """
        options: dict[str, Any] = {"weights": self.weights, "sampling": self.sampling, "generator": generator}
        # In float32 even if the network ran in half precision: mask costs are products over thousands of points.
        with torch.autocast(outputs.layers[-1].boxes.device.type, enabled=False):
            losses = {"": compute_losses(outputs.layers, targets, num_objects=num_objects, **options)}
            if (denoised := outputs.denoising_output) is not None:
                losses["dn_"] = compute_losses(
                    denoised.layers, targets, num_objects=num_objects * denoised.num_groups,
                    known_matches=denoised.matches, **options,
                )  # fmt: skip
            return {
                prefix + name: getattr(self.weights, name) * loss
                for prefix, parts in losses.items()
                for name, loss in parts.items()
            }
