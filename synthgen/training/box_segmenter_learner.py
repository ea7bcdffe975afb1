"""The learner of the box segmenter: crops around the boxes of a batch, and their mask losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_convert

from synthgen.checkpoints.box_segmenter import build_box_segmenter
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.config import BoxSegmenterSettings, ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import DistributedContext
from synthgen.evaluation.box_segmenter_evaluator import evaluate_box_segmenter
from synthgen.evaluation.captioner_evaluator import normalize_images
from synthgen.evaluation.results import EvalResult
from synthgen.models.box_segmenter.crop_augment import (
    add_occluders,
    lower_resolution,
    set_drop_path,
    swap_backgrounds,
)
from synthgen.models.box_segmenter.crops import boxes_in_crops, extract_crops, plan_windows
from synthgen.models.box_segmenter.losses import jitter_boxes, jitter_colors, mask_losses
from synthgen.models.box_segmenter.network import OUTPUT_STRIDE
from synthgen.models.box_segmenter.weights import KIND
from synthgen.progress import OpenProgress
from synthgen.training.optimizer import parameter_groups


class BoxSegmenterLearner:
    """A box segmenter as configured by a manifest; see `learner.Learner`.

    Args:
        manifest: gives the network's settings and the precision.
        device: where the network is trained.
        last_checkpoint: of the run that is resumed. It describes the network; files that it began with are not needed.

    Raises:
        SynthgenError: weights are missing or do not fit.
    """

    kind = KIND
    has_learned_masks = True
    sidecar_files: tuple[Path, ...] = ()

    def __init__(self, manifest: Manifest, device: torch.device, last_checkpoint: Path | None = None) -> None:
        self._settings = manifest.box_segmenter or BoxSegmenterSettings()
        network = build_box_segmenter(self._settings, resumes=last_checkpoint)
        set_drop_path(network, self._settings.drop_path)
        self.module = network.to(device).to(memory_format=torch.channels_last).train()
        self._uses_bf16 = manifest.schedule.precision == "bf16"

    def model_config(self) -> dict[str, Any]:
        """The structure of the network; `lite` needs nothing else."""
        config = self.module.config
        return {
            "backbone": config.backbone,
            "hidden_dim": config.hidden_dim,
            "crop_size": config.crop_size,
            "margin": config.margin,
        }

    def param_groups(self, schedule: ScheduleConfig) -> list[dict[str, Any]]:
        """Parameter groups for AdamW. By `schedule`, the backbone has its own learning rate."""
        return parameter_groups(self.module, schedule, {"stages.": schedule.backbone_lr})

    def count_targets(self, batch: Batch) -> int:
        """The number of objects in `batch`."""
        return sum(len(target["masks"]) for target in batch.targets)

    def compute_losses(self, batch: Batch, *, num_targets: float) -> dict[str, Tensor]:
        """The losses "mask" and "dice"; see `mask_losses`.

        Args:
            batch: as in `Learner.compute_losses`.
            num_targets: as in `Learner.compute_losses`; targets are objects.
        """
        crops, boxes, targets, weights = self._crop_objects(batch)
        crops, targets = self._augment(crops, targets)
        with torch.autocast(self.module.device.type, torch.bfloat16, enabled=self._uses_bf16):
            logits = self.module(crops, boxes)
        losses = mask_losses(logits, targets, weights)
        return {name: loss / num_targets for name, loss in losses.items()}

    def draw_predictions(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:  # noqa: ARG002
        """Nothing of `batch`: `synthgen masks` with `lite` and `synthgen show` draw its masks."""
        return iter(())

    def evaluate(
        self, manifest: Manifest, context: DistributedContext, *, num_workers: int, progress: OpenProgress
    ) -> list[EvalResult]:
        """See `evaluate_box_segmenter`."""
        return evaluate_box_segmenter(self.module, manifest, context, num_workers=num_workers, progress=progress)

    def _crop_objects(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops, boxes in them, target masks at the resolution of the logits, and weights, of all objects with a mask.

        If there are none, one crop of weight 0 is returned, so that all weights have a gradient of 0. Other processes
        wait for these gradients.
        """
        settings, config, device = self._settings, self.module.config, self.module.device
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for pixels, target in zip(batch.images, batch.targets, strict=True):
            height, width = target["size"]
            chosen = target["has_mask"]
            if not len(target["masks"]):
                continue
            image = normalize_images(pixels[:, :height, :width].to(device, non_blocking=True))
            masks = target["masks"][:, :height, :width].to(device, non_blocking=True)
            scale = torch.tensor([width, height, width, height], dtype=torch.float32)
            tight = box_convert(target["boxes"][chosen], "cxcywh", "xyxy") * scale
            prompts = jitter_boxes(tight, settings.box_jitter).clamp(min=torch.zeros(4), max=scale)
            low, high = settings.train_margin
            windows = plan_windows(prompts, low + (high - low) * torch.rand(len(prompts)))
            view = jitter_colors(image, settings.color_jitter)
            crops = extract_crops(view, windows, config.crop_size, grid=OUTPUT_STRIDE)
            shapes = torch.cat(
                [
                    extract_crops(mask[None].float(), window[None], config.crop_size // OUTPUT_STRIDE)[:, 0]
                    for mask, window in zip(masks, windows, strict=True)
                ]
            )
            boxes = boxes_in_crops(prompts, windows).to(device)
            found.append((crops, boxes, shapes, target["mask_weights"][chosen].to(device)))
        if not found:
            side = config.crop_size // OUTPUT_STRIDE
            blank = torch.zeros(1, 3, config.crop_size, config.crop_size, device=device)
            box = torch.tensor([[0.25, 0.25, 0.75, 0.75]], device=device)
            return blank, box, torch.zeros(1, side, side, device=device), torch.zeros(1, device=device)
        crops, boxes, shapes, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
        return crops, boxes, shapes, weights

    def _augment(self, crops: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Crops and their masks, changed as the settings say."""
        settings, originals = self._settings, crops
        if settings.background_swap:
            crops = swap_backgrounds(crops, shapes, settings.background_swap)
        if settings.occluders:
            crops, shapes = add_occluders(crops, shapes, settings.occluders, objects=originals)
        if settings.low_resolution:
            crops = lower_resolution(crops, settings.low_resolution)
        return crops.contiguous(memory_format=torch.channels_last), shapes
