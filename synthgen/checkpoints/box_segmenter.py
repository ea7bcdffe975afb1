"""Box segmenters from a manifest or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from synthgen.checkpoints.timm_weights import find_timm_weights
from synthgen.dataloading.config import BoxSegmenterSettings
from synthgen.errors import SynthgenError
from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig
from synthgen.models.box_segmenter.weights import load_backbone, load_segmenter


def build_box_segmenter(settings: BoxSegmenterSettings, *, resumes: Path | None = None) -> BoxSegmenter:
    """Build the network.

    Args:
        settings: section `box_segmenter` of the manifest.
        resumes: a checkpoint of the run that is resumed; its network is taken.

    Raises:
        SynthgenError: weights are missing or do not fit.
    """
    if resumes is not None:
        try:
            return load_segmenter(resumes)
        except ValueError as why:
            raise SynthgenError(f"{resumes}: {why}; delete it, and the checkpoint before it is taken") from None
    if settings.weights is not None:
        try:
            return load_segmenter(Path(settings.weights))
        except ValueError as why:
            raise SynthgenError(f"{settings.weights}: {why}; see box_segmenter.weights") from None
    config = BoxSegmenterConfig(settings.backbone, settings.hidden_dim, settings.crop_size, settings.margin)
    if settings.backbone_weights == "random":
        return BoxSegmenter(config)
    given, option = settings.backbone_weights, "box_segmenter.backbone_weights"
    path = find_timm_weights(settings.backbone, option) if given == "pretrained" else Path(given)
    try:
        return BoxSegmenter(config, load_backbone(settings.backbone, path))
    except ValueError as why:
        raise SynthgenError(f"{path} does not have the weights of {settings.backbone}: {why}; see {option}") from None


def load_box_segmenter(path: Path, *, device: torch.device) -> BoxSegmenter:
    """Load the segmenter of a checkpoint for inference.

    Args:
        path: checkpoint; untrusted.
        device: where the network is put.

    Raises:
        SynthgenError: it is not a checkpoint of a box segmenter.
    """
    try:
        network = load_segmenter(path)
    except ValueError as why:
        raise SynthgenError(f"{path}: {why}; name a checkpoint of a box segmenter") from None
    return network.to(device).to(memory_format=torch.channels_last).eval()
