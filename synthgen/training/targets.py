"""Convert the targets of a batch to `MaskTarget` on the network's device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from synthgen.models.mqformer.targets import MaskTarget


def build_mask_targets(targets: Sequence[Mapping[str, Any]], device: torch.device) -> list[MaskTarget]:
    """The entries of `Batch.targets` used by matcher and losses. Copies from pinned memory are asynchronous.

    Args:
        targets: the targets of B images.
        device: where the result is needed.
    """
    return [
        MaskTarget(
            labels=target["labels"].to(device, non_blocking=True),
            boxes=target["boxes"].to(device, non_blocking=True),
            has_mask=target["has_mask"].to(device, non_blocking=True),
            masks=target["masks"].to(device, non_blocking=True),
            mask_weights=target["mask_weights"].to(device, non_blocking=True),
            ignore_mask=target["ignore"].to(device, non_blocking=True),
            has_ignored=bool(target["ignore"].any()),
            valid_ratio=_valid_ratio(*target["size"], *target["ignore"].shape[-2:]).to(device, non_blocking=True),
        )
        for target in targets
    ]


def _valid_ratio(height: int, width: int, padded_height: int, padded_width: int) -> torch.Tensor:
    return torch.tensor([width / padded_width, height / padded_height])
